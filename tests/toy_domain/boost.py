"""A fitted family: boosted stumps on x, over all devices together."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.toy_domain.readings import LIMITS, READINGS, pairs
from training.config import Section
from training.graphs import Graph, TensorSpec
from training.judgement import Judgement, Verdict
from training.recipe import Fitted
from training.settings import RunSettings


class Trees(Section):
    rate: float = 0.3
    cuts: int = 16  # thresholds tried in a round


class BoostSettings(RunSettings):
    trees: Trees = Trees()


@dataclass
class Stumps:
    """y = base + sum over stumps of (left where x < threshold, else right)."""

    base: float
    stumps: np.ndarray  # float64 [rounds, 3]: threshold, left, right
    data: Mapping[str, np.ndarray] = field(default_factory=dict)  # split -> float64 [n, 2]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """x [n] -> y [n], float64."""
        below = x[:, None] < self.stumps[None, :, 0]
        return self.base + np.where(below, self.stumps[:, 1], self.stumps[:, 2]).sum(1)


class Boost(Fitted):
    family, title, manifest, settings_type = "boost", "Boost", "boost", BoostSettings
    chunk = 4

    def encoders(self):
        return {"readings_path": READINGS, "limits_path": LIMITS}

    def begin(self, rows, constants, seed):
        data = {split: pairs(of).astype(np.float64) for split, of in rows.items()}
        return Stumps(float(data["train"][:, 1].mean()), np.zeros((0, 3)), data)

    def advance(self, state, rounds):
        x, y = state.data["train"].T
        for _ in range(rounds):
            left = y - state.predict(x)
            # The thresholds depend on the number of the round alone, so that they are the same after a resume.
            random = np.random.default_rng([self.settings.seed, len(state.stumps)])
            cuts = np.sort(random.choice(x, self.settings.trees.cuts, replace=False))
            stumps = [self._stump(x, left, cut) for cut in cuts]
            best = min(stumps, key=lambda stump: ((left - np.where(x < stump[0], stump[1], stump[2])) ** 2).sum())
            step = np.array([best[0], *(self.settings.trees.rate * value for value in best[1:])])
            state = Stumps(state.base, np.vstack([state.stumps, step]), state.data)
        return state

    @staticmethod
    def _stump(x: np.ndarray, left: np.ndarray, cut: float) -> tuple[float, float, float]:
        below = x < cut
        return cut, left[below].mean() if below.any() else 0.0, left[~below].mean() if (~below).any() else 0.0

    def score(self, state, split):
        x, y = state.data[split].T
        return {"val_loss" if split == "val" else "loss": float(((state.predict(x) - y) ** 2).mean())}

    def dump(self, state):
        content = io.BytesIO()
        np.save(content, np.vstack([[state.base, 0.0, 0.0], state.stumps]))
        return content.getvalue()

    def load(self, content, rows, constants):
        table = np.load(io.BytesIO(content))
        data = {split: pairs(of).astype(np.float64) for split, of in rows.items()} if rows else {}
        return Stumps(float(table[0, 0]), table[1:], data)

    def evaluate(self, context):
        return Judgement({}, Verdict("weak", [f"{len(context.model.stumps)} stumps, not compared with a baseline."]))

    def graphs(self, model):
        stumps = model.stumps.astype(np.float32)

        def reference(inputs):
            below = inputs["x"] < stumps[:, 0]
            return {"y": np.float32(model.base) + np.where(below, stumps[:, 1], stumps[:, 2]).sum(1, keepdims=True)}

        def example(sizes, seed):
            return (np.random.default_rng(seed).uniform(-1, 1, (sizes["batch"], 1)).astype(np.float32),)

        return [
            Graph(
                "boost", None, (TensorSpec("x", "float32", ("batch", 1)),), (TensorSpec("y", "float32", ("batch", 1)),),
                {"batch": (1, 64)}, example, ({"batch": 1}, {"batch": 7}), tolerance=1e-5,
                write=lambda path: _write_onnx(path, model.base, stumps), reference=reference,
            )
        ]  # fmt: skip


def _write_onnx(path, base: float, stumps: np.ndarray) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {"cut": stumps[:, 0], "left": stumps[:, 1], "right": stumps[:, 2]}
    tensors = [numpy_helper.from_array(value.reshape(1, -1), name) for name, value in constants.items()]
    tensors += [
        numpy_helper.from_array(np.array([base], np.float32), "base"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    nodes = [
        helper.make_node("Less", ["x", "cut"], ["below"]),
        helper.make_node("Where", ["below", "left", "right"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", "axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "base"], ["y"]),
    ]
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "boost", shape[:1], shape[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
