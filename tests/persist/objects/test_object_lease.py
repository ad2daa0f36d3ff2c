"""The lease on a run in an object store: a lock. Of two hosts that want one run, one is refused."""

import threading

import pytest

from training.data.objects.store import ObjectStore
from training.errors import HostError
from training.persist import lease as lease_module
from training.persist.copying import Pulse
from training.persist.lease import Taken
from training.persist.objects.lock import ObjectLease


def lease_of(there, host, say=lambda _: None):
    """A lease as a process of another host takes it: its number says nothing here."""
    made = ObjectLease(ObjectStore(there), "checkpoints/toy", "training toy", say)
    notice = made._notice
    made._notice = lambda: notice() | {"host": host, "place": host}
    return made


def test_a_second_host_is_refused_until_the_first_has_ended(there, monkeypatch):
    monkeypatch.setattr(lease_module, "SILENT", 20.0)  # it ends with the first renewal
    first = lease_of(there, "one")
    first.take(Pulse())
    renewing = threading.Event()

    def renew():
        while not renewing.wait(0.02):
            first.renew()

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(HostError, match=f"{there}/checkpoints/toy is in use by .* on one .training toy.") as caught:
        lease_of(there, "two").take(Pulse())
    assert caught.value.exit_code == 6
    renewing.set()
    thread.join()
    first.free()
    lease_of(there, "two").take(Pulse())


def test_of_hosts_that_begin_at_the_same_moment_one_succeeds(there):
    """All have looked, and seen no lease, before the first one writes."""
    hosts, ends = 6, []
    seen = threading.Barrier(hosts)

    def begin(number):
        lease = lease_of(there, f"host {number}")
        write = lease._write
        lease._write = lambda: (seen.wait(30), write())
        try:
            lease.take(Pulse())
            ends.append("has it")
        except HostError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count("has it") == 1
    assert all("is in use by process" in end for end in ends if end != "has it")


def test_of_hosts_that_take_over_an_expired_lease_one_succeeds(there, monkeypatch):
    """The second one has waited in vain for a sign of the old holder, and the first one takes over before it writes."""
    monkeypatch.setattr(lease_module, "BEAT", 0.0)
    gone, one, two = (lease_of(there, host) for host in ("gone", "one", "two"))
    gone.take(Pulse())
    expired = two._expired

    def waited(*arguments):
        over = expired(*arguments)
        one.take(Pulse())
        return over

    two._expired = waited
    with pytest.raises(HostError, match=r"in use by .* on one"):
        two.take(Pulse())
    with pytest.raises(Taken, match=r"used by .* on one .*now"):
        gone.renew()


def test_a_holder_that_lost_the_lease_does_not_release_that_of_the_new_one(there, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT", 0.0)
    gone, new = lease_of(there, "gone"), lease_of(there, "new")
    gone.take(Pulse())
    new.take(Pulse())  # after SILENT seconds
    gone.free()
    with pytest.raises(Taken):
        gone.renew()
    new.renew()


def test_a_lock_that_was_deleted_by_hand_is_written_again(there):
    lease = lease_of(there, "one")
    lease.take(Pulse())
    lease.store.delete([lease.key])
    lease.renew()
    assert b'"one"' in lease.store.get(lease.key)[0]
