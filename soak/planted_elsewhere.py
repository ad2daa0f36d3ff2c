"""Row 21: models whose data are in other files, and lists of files whose names lead out of their folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx
from onnx.external_data_helper import set_external_data

from soak.planting import FAMILY, SECRET, Case, Place, exports_in, sign
from soak.runs import train
from training import cli
from training.engine.checkpoints.index import INDEX, LAST


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
WAYS = ("absolute", "..", "through a folder", "a symbolic link", "a hard link", "declared twice")


def _in_model(place: Place, tensor: str, way: str, graph: int) -> int:
    """A model with a tensor whose data are declared to be in the secret file."""
    folder = exports_in(place)
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
    if way != "declared twice":  # in that case the model holds the data, and names an external place as well
        found.ClearField("raw_data")
        found.data_location = onnx.TensorProto.EXTERNAL
    else:
        found.data_location = onnx.TensorProto.DEFAULT
    path.write_bytes(model.SerializeToString())
    sign(folder)
    return cli.main(["verify", str(folder)])


def _named_outside(place: Place, link: bool) -> int:
    """The receipt lists the secret file as one of the exports."""
    folder = exports_in(place)
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
    """The index of a checkpoint folder, on a drive (`restore`) or of this run (`train`), names a file elsewhere, which
    would be read, and replaced or deleted."""
    run, out = place.folder / "run", place.folder / "drive"
    shutil.copytree(place.base / "toy", out if verb == "restore" else run)
    folder = (out if verb == "restore" else run) / "checkpoints" / "toy"
    index = json.loads((folder / INDEX).read_text())
    entry = index["files"][LAST]
    here = (run / "checkpoints" / "toy") if verb == "restore" else folder
    name = os.path.relpath(place.secret, here)
    index["files"][name] = entry | {"sha256": hashlib.sha256(SECRET).hexdigest(), "saved": entry["saved"] + 1}
    (folder / INDEX).write_text(json.dumps(index))
    if verb == "restore":
        return cli.main(["restore", "--persist", str(out), "--out", str(run)])
    train(run, training={"epochs": 9})
    return 0


def data_elsewhere() -> Iterator[Case]:
    for tensor in TENSORS:
        for number, way in enumerate(WAYS):
            if tensor == "sparse" and way == "declared twice":
                continue
            act = partial(_in_model, tensor=tensor, way=way, graph=number % 2 - 1)
            yield Case(f"a model, {tensor}: {way}", act, 4, "refers to data outside itself")
    for link in (False, True):
        act = partial(_named_outside, link=link)
        yield Case(f"a receipt names another file{', by a link' * link}", act, 4, "link" if link else "leads out of")


def names_elsewhere() -> Iterator[Case]:
    for verb in ("restore", "train"):
        yield Case(
            f"an index names another file: {verb}", partial(_listed_outside, verb=verb), 2, "is not the name of a file"
        )
