"""Builds pairs of audio and MIDI from real scores, to run the complete pipeline on: `real_music.py DIR [--count N]`.

    DIR/midi/happy/bwv269.mid   DIR/audio/happy/bwv269.wav      pieces in major
    DIR/midi/sad/bwv10.7.mid    DIR/audio/sad/bwv10.7.wav       pieces in minor
    DIR/real_music.json                                          the selection, and how it was made

The scores come from the corpus of the music21 package (Bach's chorales in Riemenschneider's order; or Monteverdi's
madrigals), half in major and half in minor as far as music21's key analysis finds both. Real are notes, rhythm, voices,
metre, and the tempo if the edition has one (otherwise 120). Not real are the dynamics: these editions have none, so
every note has music21's default velocity; the instruments: the scores are for voices, and each piece gets one of four
General MIDI programs (choir, organ, strings, piano) by a hash of its name; and the labels: `happy` and `sad` mean major
and minor, and no listener has rated the pieces. The sound is rendered by fluidsynth with a General MIDI sound font and
mixed down to one channel of 44,100 Hz.

`--kind performed` makes two other kinds of recording, half of each: `band/` (Bach's chorales by various bands) and
`solo/` (fiddle tunes and folk songs on one instrument), performed with expression by rules
(benchmarks/music/performing.py). Their level is that of a mastered recording, a peak of -1 dB.

The same arguments give the same files; a second run finds them and does nothing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.music import performing
from training.errors import AthanorError, DataError, HostError, UsageError

FORMAT = 2
SAMPLE_RATE = 44100
PEAK = 10 ** (-1 / 20)  # of a mastered recording: -1 dB
PROGRAMS = {52: "choir", 19: "church organ", 48: "strings", 0: "piano"}
FOLDERS = {"major": "happy", "minor": "sad"}
SOUND_FONTS = ("FluidR3_GM.sf2", "default-GM.sf2", "TimGM6mb.sf2")
SOUND_FOLDERS = ("/usr/share/sounds/sf2", "/usr/share/soundfonts")
APT = "sudo apt-get install -y fluidsynth fluid-soundfont-gm"


class Piece(NamedTuple):
    """One score, as MIDI."""

    name: str
    mode: str  # major or minor
    folder: str  # its emotion, below "solo" or "band" if it is performed
    players: str
    midi: bytes
    digest: str  # of its notes; equal for two editions of the same piece


def chorales() -> list[str]:
    from music21.corpus import chorales as listed

    numbers = listed.ChoraleListRKBWV().byRiemenschneider
    return list(dict.fromkeys(f"bach/bwv{numbers[number]['bwv']}" for number in sorted(numbers)))


def madrigals() -> list[str]:
    from music21 import corpus

    return [f"monteverdi/{path.name}" for path in sorted(corpus.getComposer("monteverdi")) if path.suffix == ".mxl"]


def tunes() -> list[str]:
    """Ryan's Mammoth Collection and the Essen folk songs in turn, both in an order that mixes their volumes. The name
    of a folk song is its file and its number in the file."""
    from music21 import corpus

    fiddle = [f"ryansMammoth/{path.name}" for path in corpus.getComposer("ryansMammoth") if path.suffix == ".abc"]
    folk = [
        f"essenFolksong/{path.stem}#{number}"
        for path in corpus.getComposer("essenFolksong")
        for number in re.findall(r"^X: *(\d+)", path.read_text(encoding="latin-1"), re.MULTILINE)
    ]
    mixed = [sorted(set(names), key=lambda name: zlib.crc32(name.encode())) for names in (fiddle, folk)]
    return [name for pair in zip(*mixed, strict=False) for name in pair]


class Kind(NamedTuple):
    """Which scores to use, and how they are played."""

    sources: Callable[[], list[str]]
    performed: str = ""  # "solo" or "band"; empty: as music21 plays them


KINDS: dict[str, tuple[Kind, ...]] = {
    "chorales": (Kind(chorales),),
    "madrigals": (Kind(madrigals),),
    "performed": (Kind(chorales, "band"), Kind(tunes, "solo")),
}


def read_piece(source: str, performed: str = "") -> Piece | str:
    """A score of the corpus as MIDI, or a string with the reason why it is left out."""
    from music21 import corpus
    from music21.exceptions21 import Music21Exception

    path, _, number = source.partition("#")
    name = re.sub(r"[^a-z0-9.]+", "_", Path(source).name.removesuffix(".mxl").removesuffix(".abc").lower())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # music21 warns about its own editions
            score = corpus.parse(path, number=int(number) if number else None)
            mode = score.analyze("key").mode
            if mode not in FOLDERS:
                return f"{source}: neither major nor minor"
            if performed:
                return _performed(name, mode, score, performed)
            return _as_written(name, mode, score)
    except (Music21Exception, DataError) as error:
        return f"{source}: {error}"


def _performed(name: str, mode: str, score: Any, kind: str) -> Piece:
    written = performing.written(score)
    played = performing.perform(name, mode, written, kind)
    notes = repr([[(note.pitch, note.length) for note in voice] for voice in written.voices])
    digest = hashlib.sha256(notes.encode()).hexdigest()
    return Piece(name, mode, f"{kind}/{played.emotion}", played.players, played.midi, digest)


def _as_written(name: str, mode: str, score: Any) -> Piece:
    """As music21 plays it, with one program for all voices."""
    import mido
    from music21.midi.translate import streamToMidiFile

    program = list(PROGRAMS)[zlib.crc32(name.encode()) % len(PROGRAMS)]
    file = mido.MidiFile(file=io.BytesIO(streamToMidiFile(score).writestr()))
    notes = hashlib.sha256()
    for number, track in enumerate(file.tracks):
        channels = sorted({message.channel for message in track if message.type == "note_on"})
        kept, late = [], 0  # program changes are removed, and their delta time is added to the next message
        for message in track:
            if message.type == "program_change":
                late += message.time
                continue
            kept.append(message.copy(time=message.time + late))
            late = 0
            if message.type == "note_on":
                notes.update(f"{number} {message.note} {message.time} ".encode())
        track[:] = [mido.Message("program_change", channel=c, program=program) for c in channels] + kept
    out = io.BytesIO()
    file.save(file=out)
    return Piece(name, mode, FOLDERS[mode], PROGRAMS[program], out.getvalue(), notes.hexdigest())


def choose(kind: Kind, count: int, workers: concurrent.futures.Executor) -> tuple[list[Piece], list[str]]:
    """The first `count` different pieces, half in each mode if there are enough; and those left out, with reasons."""
    sources = iter(kind.sources())
    pools: dict[str, list[Piece]] = {mode: [] for mode in FOLDERS}
    seen: set[str] = set()
    left_out: list[str] = []
    step = min(16, 2 * count)
    while min(len(pool) for pool in pools.values()) < (count + 1) // 2 and (
        batch := list(itertools.islice(sources, step))
    ):
        for found in workers.map(read_piece, batch, itertools.repeat(kind.performed)):
            if isinstance(found, str):
                left_out.append(found)
            elif {found.name, found.digest} & seen:
                left_out.append(f"{found.name}: another edition of a selected piece")
            else:
                seen |= {found.name, found.digest}
                pools[found.mode].append(found)
    every = sum(len(pool) for pool in pools.values())
    if every < count:
        raise UsageError(f"--count: {count} pieces are requested; music21's corpus has only {every} different ones.")
    minor = min(len(pools["minor"]), max(count // 2, count - len(pools["major"])))
    return pools["major"][: count - minor] + pools["minor"][:minor], left_out


def render(midi: Path, wav: Path, font: Path, mastered: bool) -> float:
    """Render `midi` to `wav` (one channel, 16 bits), atomically; returns its length in seconds. `mastered`: normalise
    the peak to PEAK."""
    import numpy as np
    import soundfile

    wide = wav.with_name(f".{wav.stem}.stereo.wav")
    partial = wav.with_name(f".{wav.stem}.partial.wav")
    command = ["fluidsynth", "-niq", "-g", "0.6", "-r", str(SAMPLE_RATE), "-F", str(wide)]
    command += ["-O", "float"] * mastered + [str(font), str(midi)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode or not wide.exists():
            raise HostError(f"fluidsynth could not play {midi}: {done.stderr.strip() or done.returncode}")
        sound, rate = soundfile.read(wide, dtype="float32", always_2d=True)
        mono = sound.mean(axis=1)
        peak = float(np.abs(mono).max(initial=0))
        if rate != SAMPLE_RATE or peak < (1e-4 if mastered else 0.01):
            raise HostError(f"fluidsynth rendered {midi} with {font} as silence.")
        if mastered:
            mono *= PEAK / peak
        soundfile.write(partial, mono, rate, subtype="PCM_16")
        partial.replace(wav)
    finally:
        wide.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    return len(mono) / rate


def write_atomically(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def find_font() -> Path:
    """The sound font; also checks for fluidsynth and music21. Raises HostError with what is missing."""
    found = (Path(folder) / name for name in SOUND_FONTS for folder in SOUND_FOLDERS)
    font = next((path for path in found if path.is_file()), None)
    missing = [] if shutil.which("fluidsynth") else ["the program fluidsynth"]
    missing += [] if font else [f"a General MIDI sound font ({SOUND_FONTS[0]})"]
    if missing:
        raise HostError(f"Missing: {' and '.join(missing)}. On Debian or Ubuntu: {APT}")
    try:
        import music21  # noqa: F401
    except ModuleNotFoundError:
        raise HostError("Missing: the Python package music21 (a development dependency): pip install music21") from None
    return font.resolve()


def build(folder: Path, kind: str, count: int) -> None:
    """Make the pairs, unless they exist."""
    selection = {"format": FORMAT, "kind": kind, "count": count}
    record = folder / "real_music.json"
    if record.exists():
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
            made = [folder / name for piece in known["pieces"] for name in (piece["midi"], piece["audio"])]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{record} is damaged; remove {folder} and run again.") from None
        if {key: known.get(key) for key in selection} != selection:
            raise UsageError(f"{folder} holds another selection ({record}). Choose another folder, or remove it.")
        if all(path.is_file() for path in made):
            print(f"{count} pieces ({kind}) are in {folder} already; nothing to do.")
            return
    font = find_font()
    started = time.monotonic()
    workers = min(os.cpu_count() or 1, 8)
    # Spawned instead of forked: forking a process that has threads may hang, and there is no memory to share.
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        left_out: list[str] = []
        jobs: list[tuple[Piece, Path, Path, concurrent.futures.Future[float]]] = []
        for number, one in enumerate(KINDS[kind]):
            share = (count + number) // len(KINDS[kind])
            pieces, without = choose(one, share, pool)
            left_out += without
            for piece in pieces:
                midi = folder / "midi" / piece.folder / f"{piece.name}.mid"
                wav = folder / "audio" / piece.folder / f"{piece.name}.wav"
                for path in (midi, wav):
                    path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(midi, piece.midi)
                jobs.append((piece, midi, wav, pool.submit(render, midi, wav, font, bool(one.performed))))
        rows = []
        for piece, midi, wav, job in jobs:
            row = {"name": piece.name, "mode": piece.mode, "players": piece.players}
            row |= {"midi": str(midi.relative_to(folder)), "audio": str(wav.relative_to(folder))}
            rows.append(row | {"seconds": round(job.result(), 2)})
    made_by = {"sound_font": font.name, "left_out": left_out, "pieces": rows}
    write_atomically(record, json.dumps(selection | made_by, indent=1).encode())
    seconds = sum(row["seconds"] for row in rows)
    folders = Counter(str(Path(row["midi"]).parent.relative_to("midi")) for row in rows)
    held = ", ".join(f"{number} in {name}/" for name, number in sorted(folders.items()))
    print(f"{len(rows)} {kind} ({held}), {seconds / 60:.1f} minutes of sound, in {folder}: ", end="")
    print(f"{time.monotonic() - started:.0f} s with {workers} processes; {len(left_out)} left out.")


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build pairs of real music: MIDI, and its sound by fluidsynth.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="output folder: DIR/audio and DIR/midi")
    parser.add_argument("--count", type=at_least_one, default=40, help="how many pieces (default: 40)")
    parser.add_argument("--kind", choices=sorted(KINDS), default="chorales", help="which music (default: chorales)")
    options = parser.parse_args(arguments)
    try:
        build(options.folder.absolute(), options.kind, options.count)
    except AthanorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
