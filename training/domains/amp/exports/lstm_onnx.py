"""An LSTM as ONNX, written operator by operator, and the same in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.domains.amp.networks.lstm import LSTM
from training.export.onnx import IR_VERSION, OPSET

#: Order of the gates in torch (input, forget, cell, output) -> in ONNX (input, output, forget, cell).
_ONNX_GATES = (0, 3, 1, 2)


def _arrays(network: LSTM) -> list[list[np.ndarray]]:
    return [[value.detach().cpu().numpy() for value in layer] for layer in network.layers()]


def write_lstm(network: LSTM, path: Path) -> None:
    """audio [1, block], state_0 and state_1 [1, layers, hidden] -> sound [1, block], next_0, next_1."""
    hidden, layers = network.core.hidden_size, network.core.num_layers
    weights: dict[str, np.ndarray] = {
        "to_sequence": np.array([-1, 1, 1]), "to_audio": np.array([1, -1]),
        "directions": np.array([1]),
        "head": network.head.weight.detach().cpu().numpy().T.copy(), "head_bias": network.head.bias.detach().numpy(),
    }  # fmt: skip
    nodes = [helper.make_node("Reshape", ["audio", "to_sequence"], ["sequence_0"])]
    for name, state in (("hidden", "state_0"), ("cell", "state_1")):
        nodes.append(helper.make_node("Split", [state], [f"{name}_{n}" for n in range(layers)], axis=1,
                                      num_outputs=layers))  # fmt: skip
    for number, (of_input, of_hidden, bias, second_bias) in enumerate(_arrays(network)):
        weights[f"w_{number}"] = _reordered(of_input)[None]
        weights[f"r_{number}"] = _reordered(of_hidden)[None]
        weights[f"b_{number}"] = np.concatenate([_reordered(bias), _reordered(second_bias)])[None]
        nodes += [
            helper.make_node(
                "LSTM",
                [f"sequence_{number}", f"w_{number}", f"r_{number}", f"b_{number}", "", f"hidden_{number}",
                 f"cell_{number}"],
                [f"all_{number}", f"after_hidden_{number}", f"after_cell_{number}"], hidden_size=hidden,
            ),
            helper.make_node("Squeeze", [f"all_{number}", "directions"], [f"sequence_{number + 1}"]),
        ]  # fmt: skip
    nodes += [
        helper.make_node("Concat", [f"after_hidden_{n}" for n in range(layers)], ["next_0"], axis=1),
        helper.make_node("Concat", [f"after_cell_{n}" for n in range(layers)], ["next_1"], axis=1),
        helper.make_node("MatMul", [f"sequence_{layers}", "head"], ["projected"]),
        helper.make_node("Add", ["projected", "head_bias"], ["biased"]),
        helper.make_node("Reshape", ["biased", "to_audio"], ["amplified" if network.skip else "sound"]),
    ]
    if network.skip:
        nodes.append(helper.make_node("Add", ["amplified", "audio"], ["sound"]))
    shapes = {"audio": [1, "block"], "sound": [1, "block"]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes.get(name, [1, layers, hidden]))
        for name in ("audio", "state_0", "state_1", "sound", "next_0", "next_1")
    }
    graph = helper.make_graph(
        nodes, "amp_stream", [values[name] for name in ("audio", "state_0", "state_1")],
        [values[name] for name in ("sound", "next_0", "next_1")],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                              producer_name="athanor")  # fmt: skip
    onnx.save_model(model, path)


def _reordered(rows: np.ndarray) -> np.ndarray:
    gates = np.split(rows, 4)
    return np.concatenate([gates[gate] for gate in _ONNX_GATES])


def reference_lstm(network: LSTM, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same outputs, by the equations of torch.nn.LSTM, in float64."""
    audio = given["audio"][0].astype(np.float64)
    hidden, cell = (given[name][0].astype(np.float64).copy() for name in ("state_0", "state_1"))
    layers = [[value.astype(np.float64) for value in layer] for layer in _arrays(network)]
    head, bias = (value.detach().cpu().numpy().astype(np.float64) for value in (network.head.weight, network.head.bias))
    sound = np.empty(len(audio))
    for at, sample in enumerate(audio):
        x = np.array([sample])
        for number, (of_input, of_hidden, first_bias, second_bias) in enumerate(layers):
            gates = of_input @ x + of_hidden @ hidden[number] + first_bias + second_bias
            enter, forget, new, leave = np.split(gates, 4)
            cell[number] = _sigmoid(forget) * cell[number] + _sigmoid(enter) * np.tanh(new)
            x = hidden[number] = _sigmoid(leave) * np.tanh(cell[number])
        sound[at] = head[0] @ x + bias[0] + (sample if network.skip else 0.0)
    return {
        "sound": sound[None].astype(np.float32), "next_0": hidden[None].astype(np.float32),
        "next_1": cell[None].astype(np.float32),
    }  # fmt: skip


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
