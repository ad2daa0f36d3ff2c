"""Runs a GGUF file in llama.cpp, in a child process: token ids of texts, and greedy answers.

llama.cpp comes in the package xllamacpp. This file is also the program of the child, which imports nothing else of this
project: `python -I llama_cpp.py REQUEST ANSWER`, both JSON files.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "xllamacpp"
SECONDS = 1800.0  # for one file
MOST_RESTARTS = 10  # in one answer


def version() -> str | None:
    """The version of the installed package, None without it."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    return importlib.metadata.version(PACKAGE)


@dataclass(frozen=True)
class Ran:
    ids: list[list[int]]  # of each text
    answers: list[list[int]]  # greedy, to each prompt; may include the token that ended it
    same_next: int  # tokens of the expected answers that are the most likely ones after the expected tokens before them


def run(
    model: Path, texts: Sequence[str], prompts: Sequence[Sequence[int]], expected: Sequence[Sequence[int]], threads: int
) -> Ran:
    """Tokenise `texts` (special tokens as such, none added), and continue each prompt (token ids) to the length of its
    expected answer or to the token that ends it. Raises RuntimeError with the last lines of llama.cpp's log."""
    request = {
        "model": str(model.absolute()), "texts": list(texts), "threads": threads,
        "prompts": [list(ids) for ids in prompts], "expected": [list(ids) for ids in expected],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="athanor-gguf-") as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-I", __file__, str(asked), str(answered)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
        if done.returncode or not answered.is_file():
            log = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
            raise RuntimeError(f"llama.cpp ended with code {done.returncode}: {' | '.join(log[-4:])}")
        found = json.loads(answered.read_text(encoding="utf-8"))
    return Ran(**found)


def _child(request: dict[str, Any]) -> dict[str, Any]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = request["model"]
    params.n_gpu_layers, params.fit_params, params.warmup, params.verbosity = 0, False, False, 1
    params.n_ctx = max(len(a) + len(b) for a, b in zip(request["prompts"], request["expected"], strict=True)) + 8
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request["threads"]
    # as exact as the file allows: float32 keys and values
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    # the server listens on this host alone
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def post(path: str, content: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps(content).encode()
        asked = urllib.request.Request(server.listening_address + path, body, {"Content-Type": "application/json"})
        with direct.open(asked, timeout=SECONDS) as answered:
            return json.load(answered)

    ids = [
        post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
        for text in request["texts"]
    ]

    def continued(prompt: list[int], most: int) -> list[int]:
        greedy = {"n_predict": most, "temperature": 0.0, "top_k": 1, "return_tokens": True, "cache_prompt": True}
        return post("/completion", {"prompt": prompt, **greedy})["tokens"]

    answers, same = [], 0
    for prompt, expected in zip(request["prompts"], request["expected"], strict=True):
        answers.append(continued(prompt, len(expected)))
        same += _same_next(answers[-1], expected, lambda at, p=prompt, e=expected: continued(p + e[:at], len(e) - at))
    return {"ids": ids, "answers": answers, "same_next": same}


def _same_next(found: list[int], expected: list[int], continued_from: Callable[[int], list[int]]) -> int:
    """How many tokens of `expected` are the most likely ones after those before. `found`: the greedy continuation from
    the start; after a token that differs, generation continues from the expected one. After MOST_RESTARTS of them, the
    rest of the answer counts as different."""
    same = at = 0
    for _ in range(MOST_RESTARTS):
        equal = next((n for n, (a, b) in enumerate(zip(found, expected[at:], strict=False)) if a != b), len(found))
        same, at = same + equal, at + equal + 1
        if at >= len(expected):
            break
        found = continued_from(at)
    return same


if __name__ == "__main__":
    result = _child(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
