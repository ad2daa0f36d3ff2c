"""Rows 11 and 12: `prepare`, as users run it, on hostile media files among valid ones, and on odd file names."""

from __future__ import annotations

import json
import math
import os
import struct
import unicodedata
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from soak import hostile, watched
from soak.harness import Mutant, Row, Soak, TrialResult, once, patched
from soak.hostile import HAS_FFMPEG, valid_file, wav, wave
from soak.hostile_midi import header, length, notes, song, track
from training import cli
from training.data.files import printable

MOST_SECONDS, MOST_MEGABYTES = 5.0, 1024.0


# -- row 11 --------------------------------------------------------------------------------------------------------


def _good(folder: Path, count: int) -> list[str]:
    """Make pairs that must be kept: ordinary ones, and unusual ones that are valid. Returns their ids."""
    names = []
    for number in range(count):
        name = f"good{number:04d}"
        suffix, sound = _odd_sound(number) if number < 12 else (".wav", wav(wave(number, 1.6, 8000), 8000))
        (folder / "audio" / (name + suffix)).write_bytes(sound)
        (folder / "midi" / f"{name}.mid").write_bytes(_odd_song(number) if number < 6 else song(1000 + number))
        names.append(name)
    return names


def _odd_sound(number: int) -> tuple[str, bytes]:
    streamed = bytearray(wav(wave(50)))
    struct.pack_into("<I", streamed, 40, 0xFFFFFFFF)
    counted = valid_file(".mp3", 51)
    at = max(counted.find(b"Xing"), counted.find(b"Info"))
    kinds = [
        (".wav", wav(wave(52, 1.6, 192_000, 8), 192_000)), (".wav", wav(wave(53), subtype="PCM_24")),
        (".wav", wav(wave(54), subtype="FLOAT")), (".wav", wav(wave(55, 2, 4000), 4000, "PCM_U8")),
        (".wav", bytes(streamed)), (".wav", valid_file(".flac", 56)),
        (".mp3", counted[:at] + b"none" + counted[at + 4 :]),
        (".mp3", b"ID3\x03\x00\x00\x00\x03\x00\x00" + bytes(3 * 128 * 128) + valid_file(".mp3", 57)),
        (".FLAC", valid_file(".flac", 58)), (".ogg", valid_file(".ogg", 59)),
        (".m4a", valid_file(".m4a", 60)) if HAS_FFMPEG else (".flac", valid_file(".flac", 60)),
        (".aac", valid_file(".aac", 61)) if HAS_FFMPEG else (".flac", valid_file(".flac", 61)),
    ]  # fmt: skip
    return kinds[number]


def _odd_song(number: int) -> bytes:
    body = notes(70 + number)
    storm = b"".join(b"\x01\xff\x51\x03" + struct.pack(">I", 300_000 + n)[1:] for n in range(5000))
    dense = b"".join(bytes([0, 0x90, p, 80, 1, 0x80, p, 0]) for p in list(range(30, 100)) * 3000)
    return [
        header(1, form=0) + track(body), header(1, division=0xE728) + track(body), header(1) + track(storm + body),
        header(1, division=1) + track(notes(80, 30).replace(length(480), length(1)).replace(length(240), length(1))),
        header(1) + track(dense), header(1) + track(body, end=False) + b"XXXX" + struct.pack(">I", 3) + b"abc",
    ][number]  # fmt: skip


def _judge_media(soak: Soak) -> list[TrialResult]:
    """Prepare a corpus with `soak.count` hostile files; one result per hostile file, and one for each valid file that
    was lost."""
    audio, midi = soak.folder / "audio", soak.folder / "midi"
    audio.mkdir(), midi.mkdir()
    bad = []
    for index in range(soak.count):
        kind, path = hostile.make(index, soak.random(index), audio, midi)
        bad.append((index, kind, path))
        partner = path.stem + (".mid" if path.parent == audio else ".wav")
        if path.parent == audio:
            (midi / partner).write_bytes(song(10_000 + index))
        else:
            (audio / partner).write_bytes(wav(wave(10_000 + index, 1.6, 8000), 8000))
    # With fewer valid ones `prepare` would refuse the corpus, as more than a fifth of its files could not be read.
    good = _good(soak.folder, math.ceil(4.2 * len(bad)) + 12)
    log = soak.folder / "costs.jsonl"
    log.touch()
    with watched.encoders(log):
        code = cli.main(["prepare", "--audio-root", str(audio), "--midi-root", str(midi), "--out",
                         str(soak.folder / "out")])  # fmt: skip
    manifests = soak.folder / "out" / "data" / "manifests"
    if code != 0:
        return [TrialResult("all", False, f"prepare ended with {code} instead of setting the bad files aside")]
    listed = {entry["path"]: entry["reason"] for entry in _lines(manifests / "quarantine.jsonl")}
    kept = {row["id"] for split in ("train", "val") for row in _lines(manifests / f"spectocloud_{split}.jsonl")}
    scores = {row["midi_path"] for split in ("train", "val") for row in _lines(manifests / f"midi_{split}.jsonl")}
    costs = watched.costs(log)
    out = []
    for index, kind, path in bad:
        cost = costs.get(os.fsencode(path), watched.Cost(0.0, 0.0))
        seen = ""
        if not listed.get(printable(path)):
            seen = "was not listed with a reason"
        elif cost.seconds > MOST_SECONDS or cost.megabytes > MOST_MEGABYTES:
            seen = f"took {cost.seconds:.1f} s and {cost.megabytes:.0f} MB; {listed[printable(path)]}"
        elif path.parent == audio and str(midi / f"{path.stem}.mid") not in scores:
            seen = "its valid score was left out too"
        out.append(TrialResult(f"{index} ({kind}, {path.name})", not seen, seen))
    out += [
        TrialResult(name, False, f"a good file was lost: {_why(listed, name)}") for name in good if name not in kept
    ]
    return out


def _why(listed: dict[str, str], name: str) -> str:
    return next((f"{path}: {reason}" for path, reason in listed.items() if f"/{name}." in path), "listed nowhere")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _no_time_limit() -> AbstractContextManager[None]:
    from training.data import encode, sandbox

    return patched(encode.Encoder, "time_limit", lambda self, path: sandbox.TimeLimit(120.0))()


def _not_listed() -> AbstractContextManager[None]:
    from training.data import writing

    real = writing.write_quarantine
    return patched(writing, "write_quarantine", lambda path, items: real(path, items[1:]))()


def _in_worker(name: str) -> Mutant:
    """A mutant of the decoders' code. The patch does nothing: the workers that decode look the fault up by this name,
    in watched.FAULTS."""
    return Mutant(name, patched(watched, "MUTANT", watched.MUTANT), trials=5)


# -- row 12 --------------------------------------------------------------------------------------------------------

MARK = "PWNED"
#: File names, without extension. Those of the first list also go through ffmpeg, as .m4a.
COMMANDS = [
    f"$(touch {MARK})", f"`touch {MARK}`", f"; touch {MARK} ;", f"| touch {MARK}", f"&& touch {MARK} &&",
    f"'; touch {MARK}; '", f'"; touch {MARK}; "', f"a\ntouch {MARK}\n", f"$(touch$IFS{MARK})", f"-vf movie={MARK}",
    "-i", "--help", "-", "concat:a|b", "http:%2f%2f127.0.0.1%2fx", "pipe:0", "file:x", "%d", "@list", "a:b", "data:,x",
]  # fmt: skip
NAMES = [
    "two words", " leading", "trailing ", "tab\there", "line\nbreak", "carriage\rreturn", "it's", 'say "so"',
    "back\\slash",
    "semi;colon", "pipe|bar", "amp&ersand", "star*", "question?", "[abc]", "{a,b}", "~", "~root", "#hash", "!bang",
    "100%", "%s%n%x", "dollar$HOME", "${IFS}", "<angle>", "comma,semi;", "caret^", "\x1b[31mred", "\x1b]0;title\x07",
    "bell\x07", "x" * 246, "é" * 123, "日本語の歌", "مرحبا", "🎵🎶", "\u202egnp", "zero\u200bwidth", "\ufeffbom",
    "a.mid", "a.b.c.d", "..x", "x..", "__proto__", "null", "None", "0", "-1", "1e400", "NaN", "neutral", "\x7f",
    "synthetic.json", "CON", "nul", "a=b",
]  # fmt: skip


def _names(count: int) -> list[tuple[bytes, str]]:
    """(name without extension, as bytes; extension of the recording)."""
    latin = [b"caf\xe9", b"\xff\xfe", b"a\x80b"]  # not UTF-8
    forms = [unicodedata.normalize(form, "Ågren é") for form in ("NFC", "NFD")]
    suffix = ".m4a" if HAS_FFMPEG else ".wav"
    every = [(name.encode(), suffix) for name in COMMANDS]
    every += [(name, ".wav") for name in latin] + [(name.encode(), ".wav") for name in forms]
    every += [(name.encode(), ".wav") for name in NAMES]
    step = max(1, len(every) / count)
    return [every[int(n * step)] for n in range(min(count, len(every)))]


def _judge_names(soak: Soak) -> list[TrialResult]:
    """Prepare and train on one corpus with all the names; one result per name."""
    audio, midi, out = soak.folder / "audio", soak.folder / "midi", soak.folder / "out"
    audio.mkdir(), midi.mkdir()
    os.chdir(audio)  # a command in a name would create its file MARK here
    for number in range(30):
        (audio / f"plain{number}.wav").write_bytes(wav(wave(number, 1.6, 8000), 8000))
        (midi / f"plain{number}.mid").write_bytes(song(number))
    names = _names(soak.count)
    for number, (name, suffix) in enumerate(names):
        sound = valid_file(".m4a", 200 + number) if suffix == ".m4a" else wav(wave(200 + number, 1.6, 8000), 8000)
        _write(os.fsencode(audio) + b"/" + name + suffix.encode(), sound)
        _write(os.fsencode(midi) + b"/" + name + b".mid", song(200 + number))
    log = soak.folder / "costs.jsonl"
    log.touch()
    roots = ["--audio-root", str(audio), "--midi-root", str(midi), "--out", str(out)]
    with watched.encoders(log):
        code = cli.main(["prepare", *roots])
    marks = [str(path) for path in soak.folder.rglob(f"*{MARK}*") if path.name == MARK]
    if marks or code:
        return [TrialResult("all", False, f"a name was executed: {marks}" if marks else f"prepare ended with {code}")]
    manifests = out / "data" / "manifests"
    rows = [row for split in ("train", "val") for row in _lines(manifests / f"spectocloud_{split}.jsonl")]
    used = {row[key] for row in rows for key in ("audio_path", "midi_path")}
    refused = {entry["path"] for entry in _lines(manifests / "quarantine.jsonl")}
    outcomes = []
    for number, (name, suffix) in enumerate(names):
        missing = []
        for root, ending in ((audio, suffix), (midi, ".mid")):
            path = os.fsdecode(os.fsencode(root) + b"/" + name + ending.encode())
            if path not in used and printable(path) not in refused:
                missing.append(printable(path))
        seen = f"neither trained on nor refused: {missing}" if missing else ""
        outcomes.append(TrialResult(f"{number} ({printable(os.fsdecode(name))})", not missing, seen))
    if all(outcome.held for outcome in outcomes):
        for family in ("spectocloud", "midi_generator"):
            steps = ["--preset", "debug", "--set", "training.max_steps=2", "--set", "logging.tensorboard=false"]
            code = cli.main(["train", family, "--device", "cpu", *steps, *roots])
            if code:
                return [TrialResult("all", False, f"train {family} ended with {code}")]
    return outcomes


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123 - bytes that are no UTF-8
        file.write(content)


def _silence() -> AbstractContextManager[None]:
    """Names that are not UTF-8 are skipped without a message."""
    from training.domains.music.corpora import corpus

    real = corpus.scan

    def scan(*arguments: Any) -> Any:
        found, refused = real(*arguments)
        return found, [item for item in refused if "UTF-8" not in item.reason]

    return patched(corpus, "scan", scan)()


ROWS = (
    Row(
        11, "300 hostile or broken media files among good ones",
        "0 crashes or hangs, each within 5 s and 1 GB, all listed with a reason, every good file kept",
        once(_judge_media, seconds=1800), full=300, small=len(hostile.KINDS),
        mutants=(
            Mutant("no limit of processor time", _no_time_limit, trials=5, sign="took"),
            _in_worker("no limit on the length of sound for a file's size"),
            _in_worker("truncated recordings are accepted"),
            Mutant("the first refusal is not listed", _not_listed, trials=5),
        ),
        note=lambda: "" if HAS_FFMPEG else "without ffmpeg: no .m4a or .aac",
    ),
    Row(
        12, "60 odd file names (spaces, quotes, $(..), newline, leading dash, 250 characters, non-UTF-8, NFC and NFD)",
        "no command executed; each trained on, or refused by name",
        once(_judge_names, seconds=600), full=79, small=27,
        mutants=(
            _in_worker("names go through a shell"),
            Mutant("names that are not UTF-8 are skipped without a message", _silence),
        ),
        note=lambda: "" if HAS_FFMPEG else "without ffmpeg",
    ),
)  # fmt: skip
