"""A simulated corpus with any number of songs and little disk space, for measurements that depend on their number.

Every score is a hard link to one of few small files. A ledger is filled with a different digest for each, and a store
with tokens for each, which simulates that all files were read and decoded before. Everything after that is real: names
are scanned, signatures of files are read, manifests are written, and models are trained on the tokens.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.data.digests import Ledger
from training.data.files import signature
from training.data.records import pack
from training.data.store import Store, key_of
from training.domains.music.midi import tokens
from training.domains.music.midi.reader import CHANGES
from training.workspace import Workspace

EMOTIONS = ("happy", "sad", "angry", "fear", "disgust", "surprise")
FOLDER = 1000  # songs per folder; they share a file, because file systems limit the number of links to one


def corpus(root: Path, songs: int, lengths: tuple[int, int] = (32, 64)) -> Path:
    """Make `songs` scores under root/midi, known to the workspace root/out; returns their folder. `lengths`: least and
    most tokens per song, BOS and EOS included."""
    midi, cache = root / "midi", Workspace(root / "out").cache
    for first in range(0, songs, FOLDER):
        _link(midi, first, min(FOLDER, songs - first))
    Ledger(cache / "ledger.sqlite")
    with sqlite3.connect(cache / "ledger.sqlite") as db:
        db.executemany("INSERT INTO digests VALUES (?, ?, ?)", _digests(midi, songs))
    db.close()
    random = np.random.default_rng(0)
    records = []
    for length in random.integers(*lengths, min(songs, 4096), endpoint=True).tolist():
        notes = random.integers(tokens.NOTE, tokens.VELOCITY, length - 2)
        ids = np.array([tokens.BOS, *notes, tokens.EOS], np.uint16)
        records.append(pack({"ids": ids, "changes": np.zeros(len(CHANGES), np.int32)}))
    store = Store.at(cache / tokens.TOKENS.kind)
    with store.writing() as writer:
        for song in range(songs):
            writer.add(key_of(content(song), tokens.TOKENS.version), records[song % len(records)])
    return midi


def content(song: int) -> str:
    """The simulated SHA-256 of a song's content, in hex."""
    return hashlib.sha256(song.to_bytes(8, "little")).hexdigest()


def _name(song: int) -> str:
    return f"song {song:07d}.mid"


def _folder(midi: Path, song: int) -> Path:
    """The folder of a song, in a realistic collection: artists, albums, and an emotion word."""
    number = song // FOLDER
    return midi / f"artist {number // 8:03d}" / f"album {number:04d} {EMOTIONS[number % len(EMOTIONS)]}"


def _link(midi: Path, first: int, count: int) -> None:
    folder = _folder(midi, first)
    folder.mkdir(parents=True)
    real = folder / _name(first)
    real.write_bytes(b"MThd" + first.to_bytes(8, "little"))
    for song in range(first + 1, first + count):
        os.link(real, folder / _name(song))


def _digests(midi: Path, songs: int) -> Iterator[tuple[bytes, str, str]]:
    for song in range(songs):
        if song % FOLDER == 0:
            folder = str(_folder(midi, song))
            of_file = repr(signature(f"{folder}/{_name(song)}"))
        yield os.fsencode(f"{folder}/{_name(song)}"), of_file, content(song)
