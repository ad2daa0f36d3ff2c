"""`inspect` and `doctor` for captures and guitar."""

from __future__ import annotations

import json

import pytest

from training import cli
from training.domain import Job
from training.domains.amp.checks import checks
from training.workspace import Workspace

from . import making


def test_inspect_shows_what_a_capture_is_and_refuses_as_prepare_does(tmp_path, capsys):
    good = making.save(tmp_path, "good", making.container())
    bad = making.save(tmp_path, "bad.json", b'{"songs": []}')
    assert cli.main(["inspect", "amp", "--json", str(good), str(making.guitar(tmp_path / "di.wav", channels=2))]) == 0
    capture, guitar = json.loads(capsys.readouterr().out)
    assert capture["facts"]["architecture"] == "SlimmableContainer" and capture["facts"]["sample rate, Hz"] == 48_000
    assert [row["size"] for row in capture["tables"]["networks"]] == ["2 channels", "4 channels"]
    assert guitar["facts"]["seconds"] == 6 and guitar["remarks"] == ["the left channel is used"]
    assert cli.main(["inspect", "amp", str(bad)]) == 3
    assert "bad.json: refused: no capture: keys songs" in capsys.readouterr().out


@pytest.mark.parametrize("with_captures", [False, True])
def test_doctor_says_whether_there_are_captures_and_guitar(tmp_path, with_captures):
    folder = tmp_path / "captures"
    folder.mkdir()
    if with_captures:
        making.save(folder, "one", making.a1())
    found = list(checks(Job(Workspace(tmp_path), {"captures": folder, "di": None})))
    assert [one.state for one in found] == (["ok", "note"] if with_captures else ["fails", "note"])
    (tmp_path / "di").mkdir()
    found = list(checks(Job(Workspace(tmp_path), {"captures": folder, "di": tmp_path / "di"})))
    assert found[-1].state == "fails" and "holds no .wav" in found[-1].text
