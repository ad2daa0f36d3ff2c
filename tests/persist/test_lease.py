"""Two hosts and one folder: the second is refused, the dead give way, and who was overtaken is told."""

import json
import os
import threading
import time

import pytest

from training.errors import HostError
from training.persist import lease as claims
from training.persist.copying import Pulse
from training.persist.lease import NAME, Lease, Taken


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(claims, "SILENT", 0.3)
    monkeypatch.setattr(claims, "BEAT", 0.0)


@pytest.fixture
def said():
    return []


@pytest.fixture
def claim(tmp_path, said):
    return Lease(tmp_path, "training toy", said.append)


def other(folder, **told):
    """A notice of another process; by default of another host, written just now."""
    notice = {"host": "elsewhere", "process": 7, "began": "1", "place": "elsewhere", "purpose": "training toy",
              "at": time.time(), "token": "theirs"} | told  # fmt: skip
    (folder / NAME).write_text(json.dumps(notice))


def test_one_at_a_time_on_one_host(tmp_path, claim, said):
    """Exit 6, naming who; without waiting, for this host knows that it is alive."""
    claim.take(Pulse())
    with pytest.raises(HostError, match=f"in use by process {os.getpid()} on .*training toy") as caught:
        Lease(tmp_path, "copying", said.append).take(Pulse())
    assert caught.value.exit_code == 6 and not said
    claim.free()
    Lease(tmp_path, "copying", said.append).take(Pulse())


def test_a_process_of_this_host_that_died_gives_way_at_once(tmp_path, claim, said):
    child = os.fork()
    if child == 0:
        Lease(tmp_path, "training toy", print).take(Pulse())
        os._exit(9)
    os.waitpid(child, 0)
    claim.take(Pulse())
    assert not said


def test_a_later_process_with_the_number_of_the_dead_is_not_taken_for_it(tmp_path, claim, said):
    other(tmp_path, place=claims.place(), process=os.getppid(), began="1")
    claim.take(Pulse())
    assert not said


def test_another_host_that_shows_life_is_respected(tmp_path, claim, said):
    other(tmp_path)
    renewing = threading.Timer(0.1, lambda: other(tmp_path, at=time.time() + 1))
    renewing.start()
    with pytest.raises(HostError, match="in use by process 7 on elsewhere"):
        claim.take(Pulse())
    renewing.join()
    assert len(said) == 1 and "waiting" in said[0]


def test_another_host_that_is_silent_gives_way(tmp_path, claim, said):
    other(tmp_path)
    claim.take(Pulse())
    assert "waiting" in said[0]
    claim.renew()


def test_a_notice_that_was_cut_short_counts_as_one(tmp_path, claim, said):
    (tmp_path / NAME).write_text('{"host": "els')
    claim.take(Pulse())
    assert "another process; waiting" in said[0]


def test_nobody_waits_for_a_host_that_is_long_gone(tmp_path, claim, said):
    other(tmp_path, at=time.time() - 7200)
    claim.take(Pulse())
    assert not said


def test_who_was_overtaken_is_told_and_leaves_the_other_s_notice_alone(tmp_path, claim):
    claim.take(Pulse())
    other(tmp_path)
    with pytest.raises(Taken, match="used by process 7 on elsewhere"):
        claim.renew()
    claim.free()
    assert json.loads((tmp_path / NAME).read_text())["token"] == "theirs"


def test_it_is_renewed(tmp_path, claim):
    claim.take(Pulse())
    before = (tmp_path / NAME).read_bytes()
    claim.renew()
    assert (tmp_path / NAME).read_bytes() != before
    (tmp_path / NAME).unlink()  # by hand
    claim.renew()
    assert (tmp_path / NAME).exists()


def test_a_folder_on_another_disk_is_not_the_one_that_was_taken(tmp_path, claim):
    """What a drive that was detached leaves: the same path, on the disk beneath."""
    claim.take(Pulse())
    claim._device += 1
    with pytest.raises(Taken, match="has disappeared"):
        claim.renew()
