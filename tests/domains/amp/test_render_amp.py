"""The command `render`: guitar through a capture before and after, as files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from training import cli

from . import making


@pytest.fixture
def render(tmp_path, capsys):
    """(exit code, what was printed) of the command with more words."""
    making.guitar(tmp_path / "riff.wav", seconds=2.5, rate=44_100, channels=2)

    def call(*words: object) -> tuple[int, str]:
        line = ["render", "amp", "--job", tmp_path / "job", "--device", "cpu", "--out", tmp_path / "sounds",
                "--di", tmp_path / "riff.wav", *words]  # fmt: skip
        code = cli.main([str(word) for word in line])
        return code, "".join(capsys.readouterr())

    return call


def test_before_after_and_their_difference_are_written_at_equal_loudness(tmp_path, render):
    document = making.a1()
    original = making.save(tmp_path, "Crunch 1", document)
    louder = json.loads(json.dumps(document))
    louder["weights"][-1] = louder["config"]["head_scale"] = 0.08  # four times as loud: the same sound
    louder["weights"][0] *= 1.2
    code, text = render("--capture", original, "--after", making.save(tmp_path, "Crunch 2", louder))
    assert code == 0 and "at equal loudness" in text and "is -" in text
    sounds = {}
    for side in ("before", "after", "difference"):
        path = tmp_path / "sounds" / f"{side}.wav"
        about = soundfile.info(path)
        assert (about.samplerate, about.channels, about.subtype) == (48_000, 1, "PCM_24")
        sounds[side] = soundfile.read(path)[0]
    assert len(sounds["before"]) == 120_000
    levels = {side: float(np.sqrt(np.mean(sound**2))) for side, sound in sounds.items()}
    assert levels["after"] == pytest.approx(levels["before"], rel=1e-4) and levels["before"] > 0.05
    assert 0 < levels["difference"] < levels["before"]
    assert np.abs(sounds["after"] - sounds["before"] - sounds["difference"]).max() < 2.0**-21


def test_what_cannot_be_rendered_is_refused_with_the_file_and_the_remedy(tmp_path, render):
    original = making.save(tmp_path, "Crunch", making.a1())
    code, text = render()
    assert code == 2 and "--capture FILE and --di WAV are needed" in text
    code, text = render("--capture", original)
    assert code == 2 and "Crunch.nam has not been trained in" in text and "--after FILE" in text
    code, text = render("--capture", making.save(tmp_path, "short", making.content(making.a1())[:90]))
    assert code == 3 and "short.nam: truncated" in text
    code, text = render("--capture", original, "--after", original, "--di", original)
    assert code == 3 and "Crunch.nam: cannot be decoded" in text
