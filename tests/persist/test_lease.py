"""Two hosts and one folder: the second is refused, the dead give way, and who was overtaken is reported."""

import json
import os
import threading
import time

import pytest

from training.errors import HostError
from training.persist import lease as lease_module
from training.persist.copying import Pulse
from training.persist.lease import NAME, Lease, Taken
from training.persist.place import Place


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease_module, "SILENT", 0.3)
    monkeypatch.setattr(lease_module, "BEAT", 0.0)


@pytest.fixture
def messages():
    return []


def lease_on(folder, purpose="training toy", say=print):
    place = Place(folder)
    place.enter()
    return Lease(folder, purpose, say, place)


@pytest.fixture
def lease(tmp_path, messages):
    return lease_on(tmp_path, say=messages.append)


def other(folder, **values):
    """A notice of another process; by default of another host, written just now."""
    notice = {"host": "elsewhere", "process": 7, "began": "1", "place": "elsewhere", "purpose": "training toy",
              "at": time.time(), "token": "theirs"} | values  # fmt: skip
    (folder / NAME).write_text(json.dumps(notice))


def test_one_at_a_time_on_one_host(tmp_path, lease, messages):
    """Exit 6, naming who; without waiting, for this host knows that it is alive."""
    lease.take(Pulse())
    with pytest.raises(HostError, match=f"in use by process {os.getpid()} on .*training toy") as caught:
        lease_on(tmp_path, "copying", messages.append).take(Pulse())
    assert caught.value.exit_code == 6 and not messages
    lease.free()
    lease_on(tmp_path, "copying", messages.append).take(Pulse())


def test_a_process_of_this_host_that_died_gives_way_at_once(tmp_path, lease, messages):
    child = os.fork()
    if child == 0:
        lease_on(tmp_path).take(Pulse())
        os._exit(9)
    os.waitpid(child, 0)
    lease.take(Pulse())
    assert not messages


def test_a_later_process_with_the_number_of_the_dead_is_not_taken_for_it(tmp_path, lease, messages):
    other(tmp_path, place=lease_module.pid_namespace(), process=os.getppid(), began="1")
    lease.take(Pulse())
    assert not messages


def test_another_host_that_shows_life_is_respected(tmp_path, lease, messages):
    other(tmp_path)
    renewing = threading.Timer(0.1, lambda: other(tmp_path, at=time.time() + 1))
    renewing.start()
    with pytest.raises(HostError, match="in use by process 7 on elsewhere"):
        lease.take(Pulse())
    renewing.join()
    assert len(messages) == 1 and "waiting" in messages[0]


def test_another_host_that_is_silent_gives_way(tmp_path, lease, messages):
    other(tmp_path)
    lease.take(Pulse())
    assert "waiting" in messages[0]
    lease.renew()


def test_a_notice_that_was_cut_short_counts_as_one(tmp_path, lease, messages):
    (tmp_path / NAME).write_text('{"host": "els')
    lease.take(Pulse())
    assert "another process; waiting" in messages[0]


def test_no_one_waits_for_a_host_that_is_long_gone(tmp_path, lease, messages):
    other(tmp_path, at=time.time() - 7200)
    lease.take(Pulse())
    assert not messages


def test_who_was_overtaken_is_reported_and_leaves_the_other_s_notice_alone(tmp_path, lease):
    lease.take(Pulse())
    other(tmp_path)
    with pytest.raises(Taken, match="used by process 7 on elsewhere"):
        lease.renew()
    lease.free()
    assert json.loads((tmp_path / NAME).read_text())["token"] == "theirs"


def test_it_is_renewed(tmp_path, lease):
    lease.take(Pulse())
    before = (tmp_path / NAME).read_bytes()
    lease.renew()
    assert (tmp_path / NAME).read_bytes() != before
    (tmp_path / NAME).unlink()  # by hand
    lease.renew()
    assert (tmp_path / NAME).exists()
