"""Every MIDI file that is installed with the test environment, note by note against mido."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mido
import pytest

from tests.domains.music.midi_reference import Heard, heard
from training.domains.music.midi.reader import read_score

_INSTALLED = find_spec("music21")
_FOLDERS = [Path(__file__).parent, *map(Path, _INSTALLED.submodule_search_locations if _INSTALLED else ())]
FILES = sorted(path for folder in _FOLDERS for path in folder.rglob("*.mid"))


def differences(path: Path) -> list[str]:
    """What differs from mido: onset, duration, pitch, velocity, program and drum of every note with a note-off."""
    expected = heard(mido.MidiFile(path))
    score = read_score(path)
    columns = ("onset", "pitch", "velocity", "program", "drum", "duration")
    ours = sorted(zip(*(score.notes[name].tolist() for name in columns), strict=True))
    theirs = sorted(map(_row, expected))
    if len(ours) != len(theirs):
        return [f"{len(ours)} notes, mido {len(theirs)}"]
    out = []
    for mine, other in zip(ours, theirs, strict=True):
        if (
            mine[1:5] != other[1:5]
            or abs(mine[0] - other[0]) > 1e-6
            or (other[5] >= 0 and abs(mine[5] - other[5]) > 1e-6 and not score.changes["clipped"])
        ):
            out.append(f"{mine}, mido {other}")
    return out


def _row(note: Heard) -> tuple:
    lasts = -1.0 if note.end in (None, note.onset) else float(note.end - note.onset)
    return float(note.onset), note.pitch, note.velocity, note.program, note.drum, lasts


def test_there_are_files_to_compare():
    assert len(FILES) >= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_note_is_as_mido_reads_it(path):
    try:
        read_score(path)
    except ValueError as error:
        with pytest.raises(Exception):  # noqa: B017  mido refuses with errors of many kinds
            mido.MidiFile(path)
        assert "malformed" in str(error)
        return
    assert differences(path) == []
