"""What playing a trained capture costs beside its original: seconds of processor time for a second of sound, on one
thread. By torch as in exports/NAME/cost.json, in blocks of 512 samples; and by the C++ core of the players, built as
WebAssembly, in blocks of 128 (tests/domains/amp/players.py fetches it)."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.harness import Row, not_measured
from tests.domains.amp import making
from tests.domains.amp.players import run_the_core
from training.domains.amp.captures import Capture, parse_capture, write_capture
from training.domains.amp.exports.cost import costs
from training.domains.amp.student.smaller import smaller

BLOCK, SECONDS, RATE, ROUNDS = 512, 10, 48_000, 3
APART = 0.02  # between student and teacher
DILATIONS = [2**power for power in range(10)]


def captures(small: bool) -> dict[str, dict[str, Any]]:
    first, second = (4, 2) if small else (16, 8)
    arrays = [
        making.a1_array(1, first, second, DILATIONS),
        making.a1_array(first, second, 1, DILATIONS, head_bias=True),
    ]
    return {
        f"WaveNet A1, {first} and {second} channels": making.a1(arrays=arrays),
        "LSTM of 20 cells": making.lstm(hidden=20, layers=1),
    }


def measure(small: bool) -> list[Row]:
    rows = []
    for letters, (what, document) in zip(("def", "ghi"), captures(small).items(), strict=True):
        capture = parse_capture(making.content(document), "capture")
        trained = _trained(capture)
        of = next(row for row in costs(capture.network, trained.network) if row["block"] == BLOCK)
        twice, four = (of[name] / of["teacher"] for name in ("T_2", "T_4"))
        note = f"torch; at 2x: {twice:.2f}x, at 4x: {four:.2f}x, without filters"
        rows.append(_row(f"16{letters[0]}", f"{what}: playing what was trained", of["student"], of["teacher"], note))
        rows += _by_the_core(letters[1:], what, capture, trained, 1 if small else SECONDS)
    return rows


def _trained(capture: Capture) -> Capture:
    """The same capture with other weights."""
    other = copy.deepcopy(capture)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.mul_(1.01)
    return other


def _by_the_core(letters: str, what: str, capture: Capture, trained: Capture, seconds: int) -> list[Row]:
    wanted = f"+- {100 * APART:.0f} %", "stated"
    names = f"{what}: playing what was trained, in the players' core", f"{what}: --student nano, in the players' core"
    sound = 0.3 * np.random.default_rng(0).standard_normal(seconds * RATE)
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        files = {name: room / f"{name}.nam" for name in ("teacher", "trained", "nano")}
        files["teacher"].write_bytes(capture.content)
        write_capture(capture, trained.networks, files["trained"])
        files["nano"].write_bytes(smaller(capture)[0].content)
        best = dict.fromkeys(files, float("inf"))
        try:
            for _ in range(ROUNDS):
                best = {name: min(best[name], run_the_core(path, sound, RATE, room)) for name, path in files.items()}
        except pytest.skip.Exception as reason:
            rows = zip(letters, names, wanted, strict=True)
            return [not_measured(f"16{letter}", name, bar, str(reason)) for letter, name, bar in rows]
    note = "WebAssembly, blocks of 128; at 2x it processes twice the samples, and filters"
    return [
        _row(f"16{letters[0]}", names[0], best["trained"], best["teacher"], note),
        _row(f"16{letters[1]}", names[1], best["nano"], best["teacher"], note, "stated"),
    ]


def _row(bar: str, what: str, own: float, teacher: float, note: str, wanted: str = f"+- {100 * APART:.0f} %") -> Row:
    met = wanted == "stated" or abs(own / teacher - 1) <= APART
    return Row(bar, what, own, teacher, "s", own / teacher, wanted, met, note)
