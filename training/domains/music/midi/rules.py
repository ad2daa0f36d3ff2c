"""The vocabulary, its grammar and its decoder as data: metadata of the exported graphs, so that applications in other
languages read the rules from the file instead of copying them.

Every id has a kind and a value: its distance from the first id of the kind (`vocabulary` in the metadata). The state
of a sequence is a stage and a few integer registers; grammar.py implements the same rules for batches with numpy.

`grammar_rules`:

    stages     stage -> {kind that may follow: next stage}
    registers  name -> its value before the first id
    entering   stage -> what its id does, in this order; v is the value of the id:
                 ["set", r, n]               r = n
                 ["add", r, n]               r = r + n
                 ["value", r]                r = v
                 ["digits", r, high, base]   r = high * base + v
                 ["differs", r, [others]]    if v != r: each of the others = -1
    forbidden  [stage or "*", [kinds], condition]: which of the ids that may follow may not follow now; v is theirs:
                 ["below", r, n]             r < n
                 ["above", r, n]             r > n
                 ["value below", r, n]       v < r + n
                 ["value is", r]             v == r
                 ["digits are", r, high, base]   high * base + v == r

`decoding` has the units of values: lengths in parts of a bar, velocities, programs of instruments, and tempi.
"""

from __future__ import annotations

import json
from typing import Any

from training.domains.music.midi import tokens
from training.domains.music.midi.writer import DRUM_CHANNEL, PER_QUARTER

_FOLLOWS: dict[str, dict[str, str]] = {
    "start": {"bos": "bos"},
    "bos": {"bar": "bar"},
    "bar": {"tempo": "coarse", "position": "position", "bar": "bar"},
    "coarse": {"tempo": "fine"},
    "fine": {"position": "position", "bar": "bar"},
    "position": {"instrument": "instrument", "note": "note"},
    "instrument": {"note": "note"},
    "note": {"velocity": "velocity"},
    "velocity": {"duration": "duration"},
    "duration": {"note": "note", "instrument": "instrument", "position": "position", "bar": "bar", "eos": "eos"},
    "eos": {"pad": "eos"},
}
_REGISTERS = {"empty_bars": 0} | dict.fromkeys(
    ("tempo", "coarse", "position", "instrument", "pitch", "velocity", "duration"), -1
)
_NEW_ONSET = [["set", "pitch", -1], ["set", "velocity", -1], ["set", "duration", -1]]
_ENTERING: dict[str, list[list[Any]]] = {
    "bar": [["set", "position", -1], ["add", "empty_bars", 1]],
    "coarse": [["value", "coarse"]],
    "fine": [["digits", "tempo", "coarse", tokens.DIGITS]],
    "position": [["value", "position"], *_NEW_ONSET],
    "instrument": [["value", "instrument"], *_NEW_ONSET],
    "note": [["differs", "pitch", ["velocity", "duration"]], ["value", "pitch"], ["set", "empty_bars", 0]],
    "velocity": [["differs", "velocity", ["duration"]], ["value", "velocity"]],
    "duration": [["value", "duration"]],
}


def grammar_rules(*, unisons: bool, empty_bars: int | None) -> dict[str, Any]:
    """The rules of `grammar.Grammar(unisons=unisons, empty_bars=empty_bars)`, as JSON values."""
    forbidden: list[list[Any]] = [
        ["bar", ["position", "bar"], ["below", "tempo", 0]],
        ["coarse", ["tempo"], ["digits are", "tempo", "coarse", tokens.DIGITS]],
        ["position", ["instrument"], ["value is", "instrument"]],
        ["position", ["note"], ["below", "instrument", 0]],
        ["duration", ["note"], ["value below", "pitch", 0 if unisons else 1]],
        ["duration", ["instrument"], ["value below", "instrument", 1]],
        ["duration", ["position"], ["value below", "position", 1]],
        ["note", ["velocity"], ["value below", "velocity", 0]],
        ["velocity", ["duration"], ["value below", "duration", 0]],
    ]
    if empty_bars is not None:
        forbidden.append(["*", ["bar"], ["above", "empty_bars", empty_bars]])
    return {
        "start": "start",
        "end": "eos",
        "stages": _FOLLOWS,
        "registers": _REGISTERS,
        "entering": _ENTERING,
        "forbidden": forbidden,
    }


def decoding() -> dict[str, Any]:
    """What values mean, as JSON values. A velocity v sounds as v * scale + offset; a tempo t, two digits, is a bar of
    seconds = slowest_seconds * ratio ** (-t / (count - 1)); a program is what to write for each family."""
    slowest = 240.0 / tokens.SLOWEST
    return {
        "positions": tokens.STEPS,
        "durations": tokens.DURATIONS.tolist(),
        "velocity": {"scale": 4, "offset": 2},
        "families": list(tokens.FAMILIES),
        "programs": tokens.PROGRAMS.tolist(),
        "drums": tokens.DRUMS,
        "drum_channel": DRUM_CHANNEL,
        "tempo": {
            "base": tokens.DIGITS,
            "count": tokens.TEMPI,
            "slowest_seconds": slowest,
            "ratio": tokens.FASTEST / tokens.SLOWEST,
        },
        "ticks_per_quarter": PER_QUARTER,
        "quarters_per_bar": 4,
    }


def metadata(*, unisons: bool, empty_bars: int | None) -> dict[str, str]:
    """Both tables as JSON texts, for a file's metadata."""
    return {
        "grammar_rules": json.dumps(grammar_rules(unisons=unisons, empty_bars=empty_bars)),
        "decoding": json.dumps(decoding()),
    }
