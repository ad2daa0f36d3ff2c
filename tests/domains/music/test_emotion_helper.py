"""scripts/emotion_helper.py: its output and exit codes, from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "emotion_helper.py"


@pytest.fixture
def helper(tmp_path):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, SCRIPT, *arguments], cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60
        )

    return call


def test_word_and_path_are_shown_with_the_reason(helper):
    done = helper("grief", "happy/track_rage.wav", "song 1.mid")
    assert done.returncode == 0, done.stderr
    word, _, path, why_path, none, why_none = done.stdout.splitlines()
    assert word == "grief: [-0.79 -0.23 0.85]  sad > grief > intense"
    assert "folder 'happy'" in why_path and "happy > joy" in path
    assert none.startswith("song 1.mid: [+0.00 +0.00 0.50]  neutral") and "no hint" in why_none


def test_unknown_word_ends_with_2_and_near_misses(helper):
    done = helper("joyfull")
    assert done.returncode == 2 and "not in the lexicon" in done.stderr and "joyful " in done.stderr
    assert helper("--", "-xyzzy").returncode == 2
    assert helper().returncode == 2


def test_list_prints_every_cell(helper):
    lines = helper("--list").stdout.splitlines()
    assert len(lines) >= 216 + 7
    assert any("sad > grief > intense" in line and "grieving" in line for line in lines)
