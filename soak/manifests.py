"""Row 13: manifests with mistakes such as editing, copying and damage make, which must be found before training.

`_allowed` decides which mutations are harmless. It is a second implementation of the format's specification,
independent of the product's code. A mutation that results in an allowed line must be accepted, and the loaded row must
have the line's values; any other must be refused with the number of the line.
"""

from __future__ import annotations

import json
import math
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from soak.harness import Mutant, Row, Soak, TrialResult, patched
from soak.hostile import wav, wave
from soak.hostile_midi import song
from soak.processes import forked
from training import cli
from training.data import manifest
from training.domains.music import rows
from training.domains.music.midi_generator import recipe as _midi  # noqa: F401 - imported here once, not in every fork
from training.domains.music.spectocloud import recipe as _spectocloud  # noqa: F401
from training.registry import load_recipe
from training.stages.splits import load_split
from training.workspace import Workspace

ROWS_OF_BASE = 12
PATHS = {"audio_path": "audio", "midi_path": "midi"}
NEEDED = {"spectocloud": ("audio_path", "midi_path"), "midi_generator": ("midi_path",)}

Lines = list[bytes]
#: (lines, number of the line to mutate from 0, random numbers, folder with the files) -> the mutated lines
Mutation = Callable[[Lines, int, random.Random, Path], Lines]


# -- what a line may hold ------------------------------------------------------------------------------------------


def _allowed(line: bytes, needed: tuple[str, ...], folder: Path) -> bool:
    """Whether a manifest line (not blank) is one that may be trained on."""
    try:
        pairs: list[list[tuple[str, Any]]] = []
        row = json.loads(line.decode("utf-8"), object_pairs_hook=lambda p: pairs.append(p) or dict(p),
                         parse_constant=lambda name: 1 / 0)  # fmt: skip
    except (ValueError, ZeroDivisionError, RecursionError):
        return False
    if not isinstance(row, dict) or any(len(p) != len(dict(p)) for p in pairs):
        return False
    known = {*PATHS, "target_pointcloud_path", "target_pointcloud_start", "emotion", "id", "label_source"}
    if any(key not in known and not key.startswith("_") for key in row) or not set(needed) <= row.keys():
        return False
    emotion = row.get("emotion")
    if not isinstance(emotion, list) or len(emotion) not in (3, 64) or not all(map(_number, emotion)):
        return False
    low = [-1, -1, 0] if len(emotion) == 3 else [-1] * 64
    if not all(least <= value <= 1 for least, value in zip(low, emotion, strict=True)):
        return False
    texts = [row[key] for key in (*PATHS, "target_pointcloud_path", "id", "label_source") if key in row]
    if not all(isinstance(text, str) and text.strip() and "\0" not in text for text in texts):
        return False
    start = row.get("target_pointcloud_start", 0)
    if not _number(start) or not 0 <= start < 1e15:
        return False
    named = [row[key] for key in (*PATHS, "target_pointcloud_path") if key in row]
    try:
        files = [os.fsencode(folder / name) for name in named]
        return all(os.path.isfile(name) for name in files)  # noqa: PTH113 - names that are no UTF-8
    except (ValueError, UnicodeEncodeError):
        return False


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


# -- mutations -----------------------------------------------------------------------------------------------------


def _on_row(change: Callable[[dict[str, Any], random.Random, Path], Any]) -> Mutation:
    def mutate(lines: Lines, at: int, numbers: random.Random, folder: Path) -> Lines:
        row = json.loads(lines[at])
        changed = change(row, numbers, folder)
        text = changed if isinstance(changed, bytes) else json.dumps(row if changed is None else changed).encode()
        return [*lines[:at], text, *lines[at + 1 :]]

    return mutate


def _set(*keys: str, values: Callable[[Any, random.Random, Path], list[Any]]) -> Mutation:
    def change(row: dict[str, Any], numbers: random.Random, folder: Path) -> None:
        key = numbers.choice([key for key in keys if key in row or key not in PATHS])
        row[key] = numbers.choice(values(row.get(key), numbers, folder))

    return _on_row(change)


def _without_key(row: dict[str, Any], numbers: random.Random, folder: Path) -> None:
    del row[numbers.choice([*row])]


def _misspelt_key(row: dict[str, Any], numbers: random.Random, folder: Path) -> dict[str, Any]:
    key = numbers.choice([*row])
    at = numbers.randrange(len(key))
    wrong = numbers.choice((key[:at] + key[at + 1 :], key[:at] + "x" + key[at:], key.upper(), key + " ", key + "s"))
    return {wrong if name == key else name: value for name, value in row.items()}


def _doubled_key(row: dict[str, Any], numbers: random.Random, folder: Path) -> bytes:
    key = numbers.choice([*row])
    return json.dumps(row)[:-1].encode() + b", " + json.dumps({key: row[key]})[1:].encode()


def _text(change: Callable[[bytes, random.Random], bytes]) -> Mutation:
    return lambda lines, at, numbers, folder: [*lines[:at], change(lines[at], numbers), *lines[at + 1 :]]


def _flipped_bit(line: bytes, numbers: random.Random) -> bytes:
    out = bytearray(line)
    out[numbers.randrange(len(out))] ^= 1 << numbers.randrange(8)
    return bytes(out)


def _paths(value: Any, numbers: random.Random, folder: Path) -> list[Any]:
    return [
        value + "x", "", " ", 17, None, ["a"], {"path": value}, True, "/nowhere/" + value, value.replace("/", "\\"),
        "audio", "fifo.wav", "gone.wav", "circle.wav", value + "\0", "~/" + value, "$HOME/" + value, "file://" + value,
        "../" * 40, "a" * 300 + ".wav", "a/" * 2500 + "b.wav", "\ud800.wav", "http://127.0.0.1/x.wav", "-", "/dev/zero",
        "C:\\music\\x.wav",
    ]  # fmt: skip


def _emotions(value: Any, numbers: random.Random, folder: Path) -> list[Any]:
    return [
        [], [0.5], [0.5] * 4, [0.5] * 63, [0.5] * 65, "happy", None, 0.5, {"valence": 1}, ["0.5", "0.5", "0.5"],
        [True, False, True], [None] * 3, [2, 0, 0], [0, -1.5, 0], [0, 0, -0.1], [1e300, 0, 0], [[0], [0], [0]],
    ]  # fmt: skip


def _others(value: Any, numbers: random.Random, folder: Path) -> list[Any]:
    return [[], {}, 5, True, None, ""]


def _starts(value: Any, numbers: random.Random, folder: Path) -> list[Any]:
    return [-1, "3", None, [], 1e300, True]


def _clouds(value: Any, numbers: random.Random, folder: Path) -> list[Any]:
    broken = ["short", "pickled", "nan", "lying", "zip", "text", "missing"]
    return [*(f"cloud_{what}.npy" for what in broken), 5]


def _as_it_was(change: Callable[[bytes, random.Random], bytes]) -> Mutation:
    """A change of how the line is written, but not of its values."""
    return _text(change)


#: Name -> mutation. Some (a flipped bit) are harmless or not by chance: `_allowed` decides what must happen.
MUTATIONS: dict[str, Mutation] = {
    "a bit flipped": _text(_flipped_bit),
    "a key left out": _on_row(_without_key),
    "a key misspelt": _on_row(_misspelt_key),
    "a key twice": _on_row(_doubled_key),
    "an invalid path": _set(*PATHS, values=_paths),
    "an invalid emotion": _set("emotion", values=_emotions),
    "NaN or infinity": _text(lambda line, n: line.replace(b"0.5", n.choice((b"NaN", b"Infinity", b"-Infinity")), 1)),
    "an invalid id or source": _set("id", "label_source", values=_others),
    "an id given before": lambda lines, at, n, f: _with(lines, at, id=json.loads(lines[at - 1])["id"]),
    "an invalid start": _set("target_pointcloud_start", values=_starts),
    "an invalid cloud": _set("target_pointcloud_path", values=_clouds),
    "cut": _text(lambda line, n: line[: n.randrange(1, len(line))]),
    "not UTF-8": _text(lambda line, n: line.replace(b"audio" if b"audio" in line else b"midi", b"caf\xe9", 1)),
    "UTF-16": _text(lambda line, n: line.decode().encode("utf-16")),
    "not an object": _text(lambda line, n: n.choice((b"[" + line + b"]", b"17", b"null", b'"text"', b"a,b", b"{}"))),
    "100,000 levels of nesting": _text(lambda line, n: n.choice((b"[" * 100_000, b'{"a":' * 100_000))),
    "two rows in one line": lambda lines, at, n, f: [*lines[:at], lines[at] + lines[at - 1], *lines[at + 1 :]],
    "a comma at its end": _text(lambda line, n: line + b","),
    "single quotes": _text(lambda line, n: line.replace(b'"', b"'")),
    "binary": _text(lambda line, n: n.randbytes(300).replace(b"\n", b"x")),
    "a conflict marker": _text(lambda line, n: n.choice((b"<<<<<<< HEAD", b"=======", b">>>>>>> main"))),
    # harmless
    "spaces": _as_it_was(lambda line, n: b" \t" + line.replace(b", ", b" ,  ") + b" \r"),
    "keys in another order": _as_it_was(lambda line, n: json.dumps(dict(reversed(json.loads(line).items()))).encode()),
    "escapes": _as_it_was(lambda line, n: line.replace(b"a", b"\\u0061")),
    "a key of one's own": _on_row(lambda row, n, f: row.update({"_note": {"anything": [1, None]}})),
    "whole numbers": _set("emotion", values=lambda v, n, f: [[0, 1, 1], [-1, 0, 0], [1.0, -0.0, 5e-1]]),
    "an absolute path": _on_row(lambda row, n, f: row.update(midi_path=str(f / row["midi_path"]))),
    "a roundabout path": _on_row(lambda row, n, f: row.update(midi_path="./audio/../" + row["midi_path"])),
}  # fmt: skip


def _with(lines: Lines, at: int, **values: Any) -> Lines:
    return [*lines[:at], json.dumps(json.loads(lines[at]) | values).encode(), *lines[at + 1 :]]


# -- trials --------------------------------------------------------------------------------------------------------


def _base(folder: Path) -> dict[str, Lines]:
    """Make the files in `folder`; returns the valid manifest lines of each family."""
    for name in ("audio", "midi"):
        (folder / name).mkdir()
    lines: dict[str, Lines] = {}
    for family, keys in NEEDED.items():
        lines[family] = []
        for number in range(ROWS_OF_BASE + 3):
            row = {key: f"{PATHS[key]}/song {number}{'.wav' if key == 'audio_path' else '.mid'}" for key in keys}
            row |= {"emotion": [0.5, -0.25, number / 20], "id": f"song {number}", "label_source": "manifest"}
            lines[family].append(json.dumps(row).encode())
    for number in range(ROWS_OF_BASE + 3):
        (folder / "audio" / f"song {number}.wav").write_bytes(wav(wave(number, 1.6, 8000), 8000))
        (folder / "midi" / f"song {number}.mid").write_bytes(song(number))
    os.mkfifo(folder / "fifo.wav")
    (folder / "gone.wav").symlink_to("nowhere")
    (folder / "circle.wav").symlink_to("circle.wav")
    np.save(folder / "cloud_short.npy", np.zeros((10, 3), np.float32))
    np.save(folder / "cloud_nan.npy", np.full((1200, 3), np.nan, np.float32))
    np.save(folder / "cloud_pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with (folder / "cloud_zip.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    (folder / "cloud_lying.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(100))
    (folder / "cloud_text.npy").write_text("no array")
    return lines


def _train(family: str, folder: Path) -> None:
    steps = ["--preset", "debug", "--set", "training.max_steps=1", "--set", "logging.tensorboard=false"]
    manifests = [f"data.{split}_manifest={folder / split}.jsonl" for split in ("train", "val")]
    overrides = [part for manifest in manifests for part in ("--set", manifest)]
    os.chdir(folder)
    raise SystemExit(cli.main(["train", family, "--device", "cpu", "--out", str(folder / "out"), *steps, *overrides]))


def _load(family: str, folder: Path) -> list[dict[str, Any]]:
    recipe = load_recipe(family, "debug", None, [f"data.train_manifest={folder / 'train.jsonl'}"])
    return [dict(row.values) for row in load_split(recipe, Workspace(folder / "out"), "train")]


def _run(soak: Soak):
    """Trials share one folder of decoded files; each has its own manifest and process."""
    folder = soak.folder
    lines = _base(folder)
    for family in NEEDED:
        _put(folder, lines[family])
        forked(_load, family, folder)  # decodes the files into the store once, for all trials
    for index in soak.indices:
        numbers = soak.random(index)
        family = numbers.choice([*NEEDED])
        name = [*MUTATIONS][index % len(MUTATIONS)]
        yield _trial(f"{index} ({name}, {family})", name, family, lines[family], numbers, folder)


def _put(folder: Path, lines: Lines) -> None:
    (folder / "train.jsonl").write_bytes(b"\n".join(lines[:ROWS_OF_BASE]) + b"\n")
    (folder / "val.jsonl").write_bytes(b"\n".join(lines[ROWS_OF_BASE:]) + b"\n")


def _trial(
    title: str, name: str, family: str, lines: Lines, numbers: random.Random, folder: Path
) -> TrialResult:  # fmt: skip
    at = numbers.randrange(1, ROWS_OF_BASE)
    mutated = MUTATIONS[name](lines, at, numbers, folder)
    _put(folder, mutated)
    # A mutation may have added a line break: judge the lines of the file as written.
    found = (folder / "train.jsonl").read_bytes().split(b"\n")
    ids: set[str] = set()
    bad = []
    for number, line in enumerate(found, 1):
        if line.strip() and not (_allowed(line, NEEDED[family], folder) and _fits(line, ids, family)):
            bad.append(number)
    if not bad:
        ended = forked(_load, family, folder, seconds=60)
        if ended.value is None:
            return TrialResult(
                title, False, f"a harmless change was refused: {ended.tail}; line {at + 1}: {mutated[at][:300]}"
            )
        stated = [json.loads(line) for line in found if line.strip()]
        same = [_same(row, stated, folder) for row, stated in zip(ended.value, stated, strict=True)]
        return TrialResult(title, all(same), "" if all(same) else f"row {same.index(False) + 1} differs from its line")
    ended = forked(_train, family, folder, seconds=120)
    checkpoints = [*(folder / "out").rglob("*.pt")]
    for path in checkpoints:
        path.unlink()
    output = [number for number in bad if f"train.jsonl:{number}:" in ended.output]
    if ended.code == 3 and not checkpoints and output == bad and "Traceback" not in ended.output:
        return TrialResult(title, True)
    how = f"ended with {ended.code}, named {output} of the bad lines {bad}, {len(checkpoints)} checkpoints"
    return TrialResult(title, False, f"{how}; line {at + 1}: {found[at][:300]}\n{ended.tail}")


def _fits(line: bytes, ids: set[str], family: str) -> bool:
    """What a row must satisfy beyond its own format: a unique id, and a valid cloud if the family learns clouds."""
    row = json.loads(line)
    if row.get("id") in ids:
        return False
    ids.add(row.get("id"))
    return family != "spectocloud" or "target_pointcloud_path" not in row  # every cloud in the folder is invalid


def _same(row: dict[str, Any], stated: dict[str, Any], folder: Path) -> bool:
    """Whether a loaded row has the values of its line."""
    for key, value in stated.items():
        if key in (*PATHS, "target_pointcloud_path"):
            same = (folder / value).samefile(row[key])
        elif key == "emotion":
            same = row[key] == [float(number) for number in value]
        else:
            same = row[key] == value
        if not same:
            return False
    return True


ROWS = (
    Row(
        13, "200 manifest mutations",
        "refused before training, with the line number; harmless ones are accepted as written",
        _run, full=280, small=len(MUTATIONS),
        mutants=(
            Mutant("keys are not checked", patched(manifest, "_check_keys", lambda *_: None), trials=8),
            Mutant("the last of two equal keys wins", patched(manifest, "_unique", dict), trials=8),
            Mutant("numbers are not checked", patched(rows, "is_number", lambda value: True), trials=10),
        ),
    ),
)  # fmt: skip
