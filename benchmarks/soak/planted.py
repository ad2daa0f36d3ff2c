"""Row 21: files that somebody else made to have their code run, or another file read: checkpoints, arrays and settings
with code in them, models whose data lie elsewhere, lists of files whose names lead out of their folder.

Each is planted with the digests, lengths and listings that belong to it, so that nothing but the way it is read stands
between it and its goal. Code that ran leaves a mark; a file that was read has another time of access.
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
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from onnx.external_data_helper import set_external_data

from benchmarks.soak.harness import Mutant, Outcome, Row, Soak, edited, outcome_of, patched, several
from benchmarks.soak.hostile import song
from benchmarks.soak.processes import Ended, expect, forked, start
from benchmarks.soak.runs import train, train_family
from training import cli, config
from training.engine import checkpoint
from training.export import check, golden, proof
from training.export.onnx import is_external, tensors
from training.models.spectocloud import data as spectocloud_data
from training.stages.export import export
from training.workspace import Workspace

FAMILY = "midi_generator"
SECRET = b"what no model may hold"


@dataclass(frozen=True)
class Place:
    """Where a trial works."""

    folder: Path  # its own, empty
    base: Path  # a trained toy, a trained family and its exports: to copy from
    mark: Path  # made by planted code
    secret: Path  # outside of every folder that is read


@dataclass(frozen=True)
class Case:
    """Something planted. `act` plants it and uses it, in a process of its own; then the exit code must be `code`, and
    one of `said` in the output."""

    name: str
    act: Callable[[Place], int]
    code: int
    said: str


# -- code in pickles -----------------------------------------------------------------------------------------------


class Planted:
    """Unpickling it calls a function."""

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
    """Listed with its own digest: what `verb` reads."""
    shutil.copytree(place.base / "toy" if verb == "train" else place.base / FAMILY, place.folder / "run")
    folder = place.folder / "run" / "checkpoints" / ("toy" if verb == "train" else FAMILY)
    state, planted = checkpoint.read(folder / checkpoint.LAST), CALLS[call](place.mark)
    if depth == "as the metrics":
        state["metrics"] = {"val_loss": planted}
    elif depth == "as an optimizer's value":
        state["optimizer"]["param_groups"][0]["lr"] = planted
    else:
        state = planted
    content = FORMS[form](state)
    index = json.loads((folder / checkpoint.INDEX).read_text())
    for name, entry in index["files"].items():
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        entry["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / checkpoint.INDEX).write_text(json.dumps(index))
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
    """A row of somebody's manifest brings its own target cloud."""
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
    folder = _exports(place)
    name = next(path for path in sorted((folder / "golden").iterdir()) if path.suffix == ".npz")
    with np.load(name) as archive:
        arrays = {key: archive[key] for key in archive.files}
    key = next(iter(arrays))
    arrays[key] = _object_array(place.mark, call, arrays[key].shape or (1,))
    np.savez(name, **arrays)
    _sign(folder)
    return cli.main(["verify", str(folder)])


def _arrays() -> Iterator[Case]:
    for call in CALLS:
        yield Case(f"a target cloud: {call}", partial(_in_cloud, call=call), 3, "cloud.npy")
        yield Case(f"a golden file: {call}", partial(_in_golden, call=call), 4, "no readable golden file")


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
    "a tag of one's own": "!run touch",
    "a known type": "!!binary aGk=",
}
SPOTS = {
    "a value": "seed: {tag}\n",
    "in a section": "training:\n  epochs: {tag}\n",
    "a key": "? {tag}\n: 1\n",
    "the whole": "{tag}\n",
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


# -- data elsewhere ------------------------------------------------------------------------------------------------


def _exports(place: Place) -> Path:
    return Path(shutil.copytree(place.base / FAMILY / "exports", place.folder / "exports"))


def _sign(folder: Path) -> None:
    """The receipt says what the files are now."""
    receipt = json.loads((folder / "receipt.json").read_text())
    for entry in receipt["families"].values():
        for name, about in entry["files"].items():
            path = folder / name
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                about |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "receipt.json").write_text(json.dumps(receipt))


def _first_weight(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


def _constant(model: onnx.ModelProto) -> onnx.TensorProto:
    tensor = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "planted")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["planted"], value=tensor))
    return model.graph.node[0].attribute[0].t


def _in_branch(model: onnx.ModelProto) -> onnx.TensorProto:
    """A weight of a sub-graph."""
    tensor = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "inner")
    out = onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [1])
    branch = onnx.helper.make_graph([], "branch", [], [out], [tensor])
    yes = onnx.helper.make_node("Constant", [], ["yes"], value=onnx.numpy_helper.from_array(np.array(True)))
    model.graph.node.insert(0, yes)
    chosen = onnx.helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    model.graph.node.insert(1, chosen)
    return model.graph.node[1].attribute[0].g.initializer[0]


def _sparse(model: onnx.ModelProto) -> onnx.TensorProto:
    values = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "sparse")
    indices = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4]))
    return model.graph.sparse_initializer[0].values


TENSORS = {"a weight": _first_weight, "a constant": _constant, "in a branch": _in_branch, "sparse": _sparse}
WAYS = ("absolute", "..", "through a folder", "a symbolic link", "a hard link", "said twice")


def _in_model(place: Place, tensor: str, way: str, graph: int) -> int:
    """Data of a model that are said to lie in the secret file."""
    folder = _exports(place)
    path = sorted(folder.glob("*.onnx"))[graph]
    model = onnx.load_model(path)
    found = TENSORS[tensor](model)
    if way == "a symbolic link":
        (folder / "weights.bin").symlink_to(place.secret)
    elif way == "a hard link":
        (folder / "weights.bin").hardlink_to(place.secret)
    relative = os.path.relpath(place.secret, folder)
    location = {"absolute": str(place.secret), "..": relative, "through a folder": f"golden/../{relative}"}.get(way)
    set_external_data(found, location=location or ("weights.bin" if "link" in way else relative), offset=0, length=4)
    if way != "said twice":  # else the data are there as well, and another place is named beside them
        found.ClearField("raw_data")
        found.data_location = onnx.TensorProto.EXTERNAL
    else:
        found.data_location = onnx.TensorProto.DEFAULT
    path.write_bytes(model.SerializeToString())
    _sign(folder)
    return cli.main(["verify", str(folder)])


def _named_outside(place: Place, link: bool) -> int:
    """The receipt lists the secret file as one of the exports."""
    folder = _exports(place)
    receipt = json.loads((folder / "receipt.json").read_text())
    files = receipt["families"][FAMILY]["files"]
    about = next(about for name, about in files.items() if name.endswith(".onnx"))
    name = "linked.onnx" if link else os.path.relpath(place.secret, folder)
    if link:
        (folder / name).symlink_to(place.secret)
    files[name] = about | {"sha256": hashlib.sha256(SECRET).hexdigest(), "bytes": len(SECRET)}
    (folder / "receipt.json").write_text(json.dumps(receipt))
    return cli.main(["verify", str(folder)])


def _listed_outside(place: Place, verb: str) -> int:
    """A list of checkpoints, brought by a drive or found here, names a file elsewhere: it would be read, and replaced
    or deleted."""
    run, out = place.folder / "run", place.folder / "drive"
    shutil.copytree(place.base / "toy", out if verb == "restore" else run)
    folder = (out if verb == "restore" else run) / "checkpoints" / "toy"
    index = json.loads((folder / checkpoint.INDEX).read_text())
    entry = index["files"][checkpoint.LAST]
    here = (run / "checkpoints" / "toy") if verb == "restore" else folder
    name = os.path.relpath(place.secret, here)
    index["files"][name] = entry | {"sha256": hashlib.sha256(SECRET).hexdigest(), "saved": entry["saved"] + 1}
    (folder / checkpoint.INDEX).write_text(json.dumps(index))
    if verb == "restore":
        return cli.main(["restore", "--persist", str(out), "--out", str(run)])
    train(run, training={"epochs": 9})
    return 0


def _elsewhere() -> Iterator[Case]:
    for tensor in TENSORS:
        for number, way in enumerate(WAYS):
            if tensor == "sparse" and way == "said twice":
                continue
            act = partial(_in_model, tensor=tensor, way=way, graph=number % 2 - 1)
            yield Case(f"a model, {tensor}: {way}", act, 4, "refers to data outside itself")
    for link in (False, True):
        act = partial(_named_outside, link=link)
        yield Case(f"a receipt names another file{', by a link' * link}", act, 4, "link" if link else "leads out of")


def _lists() -> Iterator[Case]:
    for verb in ("restore", "train"):
        yield Case(f"an index names another file: {verb}", partial(_listed_outside, verb=verb), 2, "no name of a file")


#: In turns, so that the first few are of every kind.
KINDS = (_pickles, _arrays, _settings, _elsewhere, _lists)
CASES = [case for turn in zip_longest(*(kind() for kind in KINDS)) for case in turn if case]


# -- trials --------------------------------------------------------------------------------------------------------


def _run(soak: Soak) -> Iterator[Outcome]:
    base = soak.folder.parent / "planted"  # for the mutants too
    if not base.exists():
        ended = forked(_make_base, base, seconds=300)
        if ended.code != 0:
            yield Outcome("what they are planted in", False, ended.tail, judged=False)
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
        yield outcome_of(f"{index} ({case.name})", forked(_judge, case, place, _plain(ended)))
        shutil.rmtree(folder, ignore_errors=True)


def _act(number: int, place: Place) -> None:
    raise SystemExit(CASES[number].act(place))


def _plain(ended: Ended) -> Ended:
    return dataclasses.replace(ended, value=None)


def _judge(case: Case, place: Place, ended: Ended) -> None:
    told = f"ended with {ended.code}\n{ended.tail}"
    expect(not place.mark.exists(), f"planted code ran; {told}")
    expect(place.secret.exists(), f"a file outside was taken away; {told}")
    expect(place.secret.stat().st_atime == 0, f"a file outside was read; {told}")
    expect(place.secret.read_bytes() == SECRET, f"a file outside was written; {told}")
    expect(not ended.timed_out and ended.code == case.code, f"{case.code} was wanted; {told}")
    expect(case.said in ended.output and "Traceback" not in ended.output, f"`{case.said}` was to be said; {told}")


def _make_base(base: Path) -> None:
    train(base / "toy")
    train_family(base / FAMILY, FAMILY, training={"max_steps": 2})
    export({FAMILY: None}, Workspace(base / FAMILY))


def _unable() -> str:
    """A file system that keeps no times of access cannot show what was read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "control"
        path.write_bytes(SECRET)
        os.utime(path, (0, path.stat().st_mtime))
        path.read_bytes()
        return "" if path.stat().st_atime else f"{folder} keeps no times of access: nobody sees what was read"


# -- mutants -------------------------------------------------------------------------------------------------------


def _naive(path: Path) -> onnx.ModelProto:
    """A reader that fetches data from wherever a model says."""
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
            Mutant("checkpoints are unpickled", edited(checkpoint, "read", "weights_only=True", "weights_only=False"),
                   sign="planted code ran"),
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
                check._Checker, "_is_the_one",
                'if parts.is_absolute() or ".." in parts.parts or "\\\\" in name or not parts.parts:', "if False:"),
                sign="outside was read", trials=len(CASES)),
            Mutant("an index's names are followed", edited(
                checkpoint, "read_index", "Path(name).name != name", "False"), sign="a file outside"),
        ),
    ),
)  # fmt: skip
