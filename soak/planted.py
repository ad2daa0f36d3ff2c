"""Row 21: files made by an attacker to run code or to have another file read: checkpoints, arrays and settings with
code in them, models whose data are in other files, lists of files whose names lead out of their folder.

Each is planted with the matching digests, lengths and listings, so that only the way it is read can stop the attack.
Planted code creates the file `mark` if it runs; a file that was read has a later access time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml

from soak.harness import Mutant, Row, Soak, TrialResult, edited, patched, result_of, several
from soak.hostile_midi import song
from soak.planted_elsewhere import data_elsewhere, names_elsewhere
from soak.planting import FAMILY, SECRET, Case, Place, exports_in, sign
from soak.processes import Ended, expect, forked, start
from soak.runs import train, train_family
from training import cli, config
from training.domains.music.spectocloud import data as spectocloud_data
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.index import INDEX, LAST, Index
from training.export import check, golden, proof
from training.export.onnx import is_external, tensors
from training.stages.export import export
from training.workspace import Workspace

# -- code in pickles -----------------------------------------------------------------------------------------------


class Planted:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


CALLS: dict[str, Callable[[Path], Planted]] = {
    "os.system": lambda mark: Planted(os.system, f"touch '{mark}'"),
    "exec": lambda mark: Planted(exec, f"open({str(mark)!r}, 'w').close()"),
    "eval": lambda mark: Planted(eval, f"open({str(mark)!r}, 'w')"),
    "subprocess": lambda mark: Planted(subprocess.call, ["touch", str(mark)]),
    "open": lambda mark: Planted(open, str(mark), "w"),
    "torch.save": lambda mark: Planted(torch.save, {}, str(mark)),
}


def _bare(state: dict[str, Any], protocol: int) -> bytes:
    return pickle.dumps(state, protocol=protocol)


def _torch(state: dict[str, Any], zipped: bool) -> bytes:
    content = io.BytesIO()
    torch.save(state, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


FORMS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "torch.save": partial(_torch, zipped=True),
    "torch.save as before 1.6": partial(_torch, zipped=False),
    **{f"a bare pickle of protocol {number}": partial(_bare, protocol=number) for number in (0, 2, 4, 5)},
}
DEPTHS = ("alone", "as the metrics", "as an optimizer's value")


def _in_checkpoint(place: Place, call: str, form: str, depth: str, verb: str) -> int:
    """A checkpoint with planted code, listed with its digest, which `verb` reads."""
    shutil.copytree(place.base / "toy" if verb == "train" else place.base / FAMILY, place.folder / "run")
    folder = place.folder / "run" / "checkpoints" / ("toy" if verb == "train" else FAMILY)
    state, planted = checkpoint_file.read(folder / LAST), CALLS[call](place.mark)
    if depth == "as the metrics":
        state["metrics"] = {"val_loss": planted}
    elif depth == "as an optimizer's value":
        state["optimizer"]["param_groups"][0]["lr"] = planted
    else:
        state = planted
    content = FORMS[form](state)
    index = json.loads((folder / INDEX).read_text())
    for name, entry in index["files"].items():
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        entry["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / INDEX).write_text(json.dumps(index))
    if verb == "train":
        train(place.folder / "run", training={"epochs": 9})
        return 0
    out = str(place.folder / "run")
    return cli.main(["export", FAMILY, "--out", out])


def _pickles() -> Iterator[Case]:
    for number, form in enumerate(FORMS):
        for more, call in enumerate(CALLS):
            verb, depth = ("train", "export")[more % 2], DEPTHS[(number + more) % len(DEPTHS)]
            name = f"a checkpoint, {verb}: {call} {depth}, {form}"
            yield Case(name, partial(_in_checkpoint, call=call, form=form, depth=depth, verb=verb), 2, "checkpoint")


# -- code in arrays ------------------------------------------------------------------------------------------------


def _object_array(mark: Path, call: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(shape, object)
    array.flat[0] = CALLS[call](mark)
    return array


def _in_cloud(place: Place, call: str) -> int:
    """A manifest's row names a target cloud with planted code."""
    folder = place.folder
    np.save(folder / "cloud.npy", _object_array(place.mark, call, (1200, 3)), allow_pickle=True)
    (folder / "song.mid").write_bytes(song(1))
    row = {"midi_path": "song.mid", "audio_path": "song.mid", "emotion": [0, 0, 0.5],
           "target_pointcloud_path": "cloud.npy"}  # fmt: skip
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    manifests = [f"data.{split}_manifest={folder / 'rows.jsonl'}" for split in ("train", "val")]
    settings = [part for manifest in manifests for part in ("--set", manifest)]
    out = str(folder / "out")
    return cli.main(["train", "spectocloud", "--preset", "debug", "--device", "cpu", "--out", out, *settings])


def _in_golden(place: Place, call: str) -> int:
    folder = exports_in(place)
    name = next(path for path in sorted((folder / "golden").iterdir()) if path.suffix == ".npz")
    with np.load(name) as archive:
        arrays = {key: archive[key] for key in archive.files}
    key = next(iter(arrays))
    arrays[key] = _object_array(place.mark, call, arrays[key].shape or (1,))
    np.savez(name, **arrays)
    sign(folder)
    return cli.main(["verify", str(folder)])


def _arrays() -> Iterator[Case]:
    for call in CALLS:
        yield Case(f"a target cloud: {call}", partial(_in_cloud, call=call), 3, "cloud.npy")
        yield Case(f"a golden file: {call}", partial(_in_golden, call=call), 4, "not a readable golden file")


# -- code in settings ----------------------------------------------------------------------------------------------

TAGS = {
    "apply": "!!python/object/apply:os.system [\"touch '{mark}'\"]",
    "apply, as a mapping": "!!python/object/apply:os.system {{args: [\"touch '{mark}'\"]}}",
    "new": "!!python/object/new:subprocess.Popen [[touch, '{mark}']]",
    "in full": "!<tag:yaml.org,2002:python/object/apply:os.system> [\"touch '{mark}'\"]",
    "exec": "!!python/object/apply:builtins.exec [\"open('{mark}', 'w').close()\"]",
    "name": "!!python/name:os.system",
    "module": "!!python/module:antigravity",
    "tuple": "!!python/tuple [1, 2]",
    "a local tag": "!run touch",
    "a known type": "!!binary aGk=",
}
SPOTS = {
    "a value": "seed: {tag}\n",
    "in a section": "training:\n  epochs: {tag}\n",
    "a key": "? {tag}\n: 1\n",
    "the complete document": "{tag}\n",
    "in a list": "data:\n  crops: [1, {tag}]\n",
}


def _in_settings(place: Place, tag: str, spot: str) -> int:
    path = place.folder / "run.yaml"
    text = TAGS[tag].format(mark=place.mark)
    path.write_text(SPOTS[spot].format(tag=text))
    return cli.main(["train", FAMILY, "--config", str(path), "--out", str(place.folder / "out")])


def _in_set(place: Place, tag: str) -> int:
    text = TAGS[tag].format(mark=place.mark)
    return cli.main(["train", FAMILY, "--set", f"seed={text}", "--out", str(place.folder / "out")])


def _settings() -> Iterator[Case]:
    for number, tag in enumerate(TAGS):
        for more, spot in enumerate(SPOTS):
            if (number + more) % 2 == 0:
                yield Case(f"a config, {spot}: {tag}", partial(_in_settings, tag=tag, spot=spot), 2, "run.yaml")
        yield Case(f"--set: {tag}", partial(_in_set, tag=tag), 2, "--set")


#: Kinds alternate, so that the first few cases include every kind.
KINDS = (_pickles, _arrays, _settings, data_elsewhere, names_elsewhere)
CASES = [case for turn in zip_longest(*(kind() for kind in KINDS)) for case in turn if case]


# -- trials --------------------------------------------------------------------------------------------------------


def _run(soak: Soak) -> Iterator[TrialResult]:
    base = soak.folder.parent / "planted"  # for the mutants too
    if not base.exists():
        ended = forked(_make_base, base, seconds=300)
        if ended.code != 0:
            yield TrialResult("the runs that files are planted in", False, ended.tail, judged=False)
            return
    for index in soak.indices:
        case = CASES[index % len(CASES)]
        folder = soak.folder / str(index)
        folder.mkdir()
        place = Place(folder / "here", base, folder / "mark", folder / "secret.bin")
        place.folder.mkdir()
        place.secret.write_bytes(SECRET)
        os.utime(place.secret, (0, place.secret.stat().st_mtime))
        ended = start(_act, index % len(CASES), place).wait(60)
        yield result_of(f"{index} ({case.name})", forked(_judge, case, place, _plain(ended)))
        shutil.rmtree(folder, ignore_errors=True)


def _act(number: int, place: Place) -> None:
    raise SystemExit(CASES[number].act(place))


def _plain(ended: Ended) -> Ended:
    return dataclasses.replace(ended, value=None)


def _judge(case: Case, place: Place, ended: Ended) -> None:
    label = f"ended with {ended.code}\n{ended.tail}"
    expect(not place.mark.exists(), f"planted code ran; {label}")
    expect(place.secret.exists(), f"a file outside was deleted; {label}")
    expect(place.secret.stat().st_atime == 0, f"a file outside was read; {label}")
    expect(place.secret.read_bytes() == SECRET, f"a file outside was written; {label}")
    expect(not ended.timed_out and ended.code == case.code, f"exit code {case.code} was expected; {label}")
    expect(case.output in ended.output and "Traceback" not in ended.output, f"`{case.output}` was expected; {label}")


def _make_base(base: Path) -> None:
    train(base / "toy")
    train_family(base / FAMILY, FAMILY, training={"max_steps": 2})
    export({FAMILY: None}, Workspace(base / FAMILY))


def _unable() -> str:
    """Why the row cannot be run here: without access times (a mount with `noatime`) a read cannot be noticed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "control"
        path.write_bytes(SECRET)
        os.utime(path, (0, path.stat().st_mtime))
        path.read_bytes()
        return "" if path.stat().st_atime else f"{folder} keeps no access times, so what was read cannot be seen"


# -- mutants -------------------------------------------------------------------------------------------------------


def _naive(path: Path) -> onnx.ModelProto:
    """A reader of models that loads external data from any path."""
    model = onnx.load_model(path, load_external_data=False)
    for tensor in tensors(model):
        if is_external(tensor):
            where = {entry.key: entry.value for entry in tensor.external_data}
            tensor.raw_data = (path.parent / where["location"]).read_bytes()[:4]
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.ClearField("external_data")
    return model


ROWS = (
    Row(
        21, "planted pickle, YAML tag, ONNX external data, names that lead out of a folder",
        "nothing runs, nothing outside is read or written; refused by name",
        _run, full=len(CASES), small=20, unable=_unable,
        mutants=(
            Mutant("checkpoints are unpickled", edited(
                checkpoint_file, "load", "weights_only=True", "weights_only=False"), sign="planted code ran"),
            Mutant("clouds are unpickled", edited(
                spectocloud_data, "read_target", 'np.lib.format.open_memmap(path, mode="r")',
                "np.load(path, allow_pickle=True)"), sign="planted code ran"),
            Mutant("golden files are unpickled",
                   edited(golden, "_read", "allow_pickle=False", "allow_pickle=True"), sign="planted code ran"),
            Mutant("YAML makes objects", several(
                patched(config, "_Loader", yaml.UnsafeLoader),
                edited(config, "_compose", 'if getattr(event, "tag", None):', "if False:")), sign="planted code ran"),
            Mutant("a model's data are fetched", several(
                patched(check, "read_model", _naive), patched(proof, "read_model", _naive)), sign="outside was read"),
            Mutant("a receipt's names are followed", edited(
                check._Checker, "_require_intact",
                'if parts.is_absolute() or ".." in parts.parts or "\\\\" in name or not parts.parts:', "if False:"),
                sign="outside was read", trials=len(CASES)),
            Mutant("an index's names are followed", edited(
                Index, "parsed", "Path(name).name != name", "False"), sign="a file outside"),
        ),
    ),
)  # fmt: skip
