"""Leases: a second process or host is refused, an expired lease is taken over, and the former holder reports that."""

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
    """Write the lease of another process; by default of another host, renewed just now."""
    notice = {"host": "elsewhere", "process": 7, "began": "1", "place": "elsewhere", "purpose": "training toy",
              "at": time.time(), "token": "theirs"} | values  # fmt: skip
    (folder / NAME).write_text(json.dumps(notice))


def test_a_second_process_of_this_host_is_refused_until_the_first_has_ended(tmp_path, lease, messages):
    """Exit 6, naming the holder; without waiting, since its process can be checked on this host."""
    lease.take(Pulse())
    with pytest.raises(HostError, match=f"in use by process {os.getpid()} on .*training toy") as caught:
        lease_on(tmp_path, "copying", messages.append).take(Pulse())
    assert caught.value.exit_code == 6 and not messages
    lease.free()
    lease_on(tmp_path, "copying", messages.append).take(Pulse())


def test_the_lease_of_a_dead_process_of_this_host_is_taken_over_at_once(tmp_path, lease, messages):
    child = os.fork()
    if child == 0:
        lease_on(tmp_path).take(Pulse())
        os._exit(9)
    os.waitpid(child, 0)
    lease.take(Pulse())
    assert not messages


def test_a_process_with_the_number_of_a_dead_holder_is_not_mistaken_for_it(tmp_path, lease, messages):
    other(tmp_path, place=lease_module.pid_namespace(), process=os.getppid(), began="1")
    lease.take(Pulse())
    assert not messages


def test_a_lease_that_another_host_renews_is_not_taken_over(tmp_path, lease, messages, monkeypatch):
    monkeypatch.setattr(lease_module, "SILENT", 60.0)  # it ends with the renewal, however late that comes
    other(tmp_path)
    renewing = threading.Timer(0.1, lambda: other(tmp_path, at=time.time() + 1))
    renewing.start()
    with pytest.raises(HostError, match="in use by process 7 on elsewhere"):
        lease.take(Pulse())
    renewing.join()
    assert len(messages) == 1 and "waiting" in messages[0]


def test_a_lease_that_another_host_does_not_renew_is_taken_over(tmp_path, lease, messages):
    other(tmp_path)
    lease.take(Pulse())
    assert "waiting" in messages[0]
    lease.renew()


def test_a_truncated_lease_file_counts_as_a_lease(tmp_path, lease, messages):
    (tmp_path / NAME).write_text('{"host": "els')
    lease.take(Pulse())
    assert "another process; waiting" in messages[0]


def test_an_old_lease_is_taken_over_without_waiting(tmp_path, lease, messages):
    other(tmp_path, at=time.time() - 7200)
    lease.take(Pulse())
    assert not messages


def test_a_holder_whose_lease_was_taken_over_reports_it_and_leaves_the_new_one_alone(tmp_path, lease):
    lease.take(Pulse())
    other(tmp_path)
    with pytest.raises(Taken, match="used by process 7 on elsewhere"):
        lease.renew()
    lease.free()
    assert json.loads((tmp_path / NAME).read_text())["token"] == "theirs"


def test_renewing_writes_the_lease_again(tmp_path, lease):
    lease.take(Pulse())
    before = (tmp_path / NAME).read_bytes()
    lease.renew()
    assert (tmp_path / NAME).read_bytes() != before
    (tmp_path / NAME).unlink()  # by hand
    lease.renew()
    assert (tmp_path / NAME).exists()
