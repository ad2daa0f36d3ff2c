"""The neutral packages know no domain: neither by an import (import-linter sees those) nor by a word."""

from __future__ import annotations

import re

import pytest

from training.workspace import PROJECT

TRAINING = PROJECT / "training"
#: What must be neutral: the packages beside domains/, and the files.
NEUTRAL = (
    "engine", "data", "export", "report", "persist", "play", "budget", "stages", "runner", "colab",
    *sorted(path.name for path in TRAINING.glob("*.py") if path.name != "registry.py"),
)  # fmt: skip
#: Words of a domain, in names (song_by_song, midiRoot), strings and comments alike.
WORDS = re.compile(
    r"(?<![a-z])(songs?|emotions?|midi|audio|music|musical|spectocloud|pointclouds?|clouds?)(?![a-z])", re.I
)
#: Lines that may hold such a word: (path, text of the line, why).
ALLOWED = (
    ("report/measures.py", 'ROWS_BEFORE = "rows", "songs"', "files of older versions have this key"),
    ("engine/tracking/board.py", "audio = Summary.Audio(", "TensorBoard's name for a sound"),
    ("engine/tracking/board.py", "encoded_audio_string=data", "TensorBoard's name for a sound"),
    ("engine/tracking/board.py", "Summary.Value(tag=name, audio=audio)", "TensorBoard's name for a sound"),
    ("data/objects/store.py", "scripts/setup_env.sh clouds", "the name of the extra"),
    ("engine/tracking/wandb_process.py", "wandb.Audio", "W&B's name for a sound"),
)
SUFFIXES = {".py", ".j2", ".css", ".js", ".yaml", ".sh"}


def words_in(text: str) -> list[tuple[int, str]]:
    """(line number, word) of every domain word. Names in camel case are taken apart first."""
    return [
        (number, found[0])
        for number, line in enumerate(text.splitlines(), 1)
        for found in WORDS.finditer(re.sub(r"([a-z])([A-Z])", r"\1 \2", line))
    ]


def hits(place: str) -> list[str]:
    """file:line of every domain word in a package or file under training/ that nothing allows."""
    path = TRAINING / place
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES)
    out = []
    for one in files:
        lines = one.read_text(encoding="utf-8").splitlines()
        name = one.relative_to(TRAINING).as_posix()
        for number, word in words_in("\n".join(lines)):
            if not any(name == where and text in lines[number - 1] for where, text, _ in ALLOWED):
                out.append(f"training/{name}:{number}: `{word}`: {lines[number - 1].strip()}")
    return out


@pytest.mark.parametrize("place", NEUTRAL)
def test_a_neutral_package_names_no_domain(place):
    assert (TRAINING / place).exists()
    found = hits(place)
    assert not found, "\n" + "\n".join(found)


def test_what_is_allowed_is_there():
    """An entry whose line is gone would allow a later one."""
    for where, text, why in ALLOWED:
        assert text in (TRAINING / where).read_text(encoding="utf-8"), where
        assert why


def test_domain_words_are_found_in_names_strings_and_comments():
    for line in (
        "songs = 1",
        "by_song",
        "song_by",
        "# an emotion",
        "'--midi-root'",
        "audioRoot",
        "cloud: 1",
        "music_folder",
    ):
        assert words_in(line), line
    for line in ("notes = 1", "scores", "clouded", "singsong", "amid it"):
        assert not words_in(line), line
