"""The demo corpus: short composed pieces as .wav and .mid files, so that the pipeline runs without any data.

    folder/synthetic.json   folder/audio/happy/happy_001.wav ...   folder/midi/happy/happy_001.mid ...

`synthetic.json` is in `folder`, `audio/` and `midi/`, so that a scan of any of them recognises the music as synthetic.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.data import sandbox
from training.data.identity import MARKER
from training.domains.music.composing import synth
from training.domains.music.composing.compose import compose
from training.domains.music.emotion import BASES
from training.errors import HostError, UsageError
from training.threads import share

PIECES = 180
ALONE = 12  # up to this many pieces, one process finishes sooner than several start
SECONDS, MEGABYTES = 300.0, 4_096  # limits of one piece, minutes and gigabytes above what it takes
_SOURCES = (
    "../emotions.yaml", "../emotion.py", "harmony.py", "figures.py", "piece.py", "compose.py", "synth.py", "demo.py"
)  # fmt: skip


def make_demo_corpus(folder: Path, pieces: int = PIECES, seed: int = 42) -> tuple[Path, Path]:
    """Write `pieces` pieces, the six base emotions in turn, below `folder`; returns (audio root, MIDI root).

    A complete corpus of the same seed, count and code version is left as it is; missing or truncated files are made
    again, with the same bytes on the same machine. Files are written atomically. Raises UsageError if `pieces` < 1, or
    if the folder holds audio or MIDI that was not made here.
    """
    if pieces < 1:
        raise UsageError(f"A demo corpus needs at least one piece; {pieces} were requested.")
    audio, midi = folder / "audio", folder / "midi"
    plan = dict(_plan(pieces))
    about = {
        "synthetic": True,
        "what": f"{pieces} pieces composed and synthesised by rules (training/music/composing); nothing was recorded",
        "seed": seed,
        "pieces": pieces,
        "code_version": code_version(),
    }
    old = _read_marker(folder)
    known = set(old.get("files", {}))
    _refuse_foreign(folder, known | {name for pair in plan for name in pair})
    same = {key: old.get(key) for key in about} == about
    sizes = old.get("files", {}) if same else {}
    complete = {name for name, size in sizes.items() if size is not None and size == _size(folder / name)}
    missing = {pair: job for pair, job in plan.items() if not complete.issuperset(pair)}
    if not missing and all(_read_marker(root) for root in (audio, midi)) and known == set(sizes):
        return audio, midi

    wanted = {name for pair in plan for name in pair}
    if not same:
        for name in known - wanted:
            (folder / name).unlink(missing_ok=True)
    # Files that are about to be written are listed before, without a size, so that an interrupted corpus does not look
    # complete.
    unsure = {name for pair in missing for name in pair}
    files: dict[str, int | None] = {name: None if name in unsure else sizes[name] for name in sorted(wanted)}
    for root in (folder, audio, midi):
        root.mkdir(parents=True, exist_ok=True)
        _write_marker(root, about if root != folder else {**about, "files": files})
    made = functools.partial(_make, folder, seed)
    if len(missing) > ALONE:
        for outcome in sandbox.run(made, list(missing.items()), seconds=SECONDS, megabytes=MEGABYTES, workers=share()):
            if outcome.error:
                raise HostError(f"A piece of the demo corpus cannot be made in {folder}: {outcome.error}")
            files.update(outcome.value)
    else:
        files.update(found for one in missing.items() for found in made(one))
    _write_marker(folder, {**about, "files": files})
    return audio, midi


def _make(folder: Path, seed: int, one: tuple[tuple[str, str], tuple[str, int]]) -> list[tuple[str, int | None]]:
    """Compose a piece of the plan and write its sound and its score; returns their names and sizes."""
    (wav, mid), (emotion, index) = one
    piece = compose(emotion, seed, index)
    wave = synth.render(piece.notes(), seed=index)
    _atomically(folder / wav, lambda path: synth.write_wav(path, wave))
    _atomically(folder / mid, piece.write)
    return [(name, _size(folder / name)) for name in (wav, mid)]


def code_version() -> str:
    """Digest of the code and rules that make the corpus; a corpus of another version is made again."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in _SOURCES)).hexdigest()[:16]


def is_synthetic(root: Path) -> bool:
    """Whether `root` or the folder that holds it is marked as synthetic."""
    return any(_read_marker(folder).get("synthetic") is True for folder in (root, root.parent))


def _plan(pieces: int) -> Iterator[tuple[tuple[str, str], tuple[str, int]]]:
    """((wav, mid) relative to the folder, (emotion, index)) for every piece."""
    for n in range(pieces):
        emotion, index = BASES[n % len(BASES)], n // len(BASES)
        stem = f"{emotion}/{emotion}_{index + 1:03d}"
        yield (f"audio/{stem}.wav", f"midi/{stem}.mid"), (emotion, index)


def _refuse_foreign(folder: Path, ours: set[str]) -> None:
    for root in (folder / "audio", folder / "midi"):
        for path in sorted(root.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.suffix == ".partial":
                path.unlink()  # left by a run that was killed
            elif path.name != MARKER and not path.is_dir() and name not in ours:
                raise UsageError(
                    f"{path} does not belong to the demo corpus in {folder}. Move it elsewhere; to train on your own "
                    "music, pass its folders with --audio-root and --midi-root."
                )


def _read_marker(folder: Path) -> dict[str, Any]:
    """The marker in `folder`; empty if it is missing or unreadable (then the corpus is made again)."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _write_marker(folder: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1) + "\n"
    _atomically(folder / MARKER, lambda path: path.write_text(text, encoding="utf-8"))


def _atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file next to `path`, flush it to disk, and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
