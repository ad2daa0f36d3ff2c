"""A training that copies to an object store: whatever the store does, it continues, and reports the truth."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.engine import toy
from tests.engine.test_engine_checkpoint import put
from tests.object_server import environment
from tests.persist.copied import WHERE, intact, restore
from training.cli import main
from training.data.objects.address import Address
from training.data.objects.store import ObjectStore
from training.engine.checkpoints import checkpoint_file
from training.errors import HostError
from training.persist.copying import Pulse
from training.persist.objects.catalog import Catalog
from training.persist.objects.lock import ObjectLease
from training.persist.replicator import Replicator
from training.workspace import PROJECT


def steps(there):
    """Name -> step of what is listed."""
    return {name: entry.step for name, entry in Catalog.read(ObjectStore(there), "toy")[0].listing.files.items()}


def test_a_store_that_is_away_for_a_while_does_not_stop_the_training_and_is_reported(here, there, proxy, messages):
    put(here / WHERE, 1)
    with Replicator(here, there, "toy", [], messages) as running:
        messages.until(f"Copied to {there}, and verified there: step 1")
        proxy.down = True
        put(here / WHERE, 2)
        running.saved()
        messages.until("does not answer. Check the network")
        assert f"NOT copied to {there}: step 2" in messages[-1] and "It is safe in" in messages[-1]
        proxy.down = False
        put(here / WHERE, 3)
        running.saved()
        messages.until("again, it has caught up: step 3")
    assert steps(there)["last.pt"] == 3 and len(messages) == 3


def test_a_store_that_is_away_from_the_beginning_is_refused(here, there, proxy, capsys):
    """Exit 6 before any step, with the URL and the remedy."""
    proxy.down = True
    put(here / WHERE, 1)
    for verb in ("persist", "restore"):
        assert main([verb, "--out", str(here), "--persist", str(there)]) == 6
        assert f"--persist {there} cannot be used: the store at {proxy.endpoint}" in capsys.readouterr().err
    with pytest.raises(HostError, match="does not answer"):
        toy.run(here.parent / "new", persist=there)


def test_a_training_whose_run_another_host_has_taken_over_stops(here, there, monkeypatch):
    """Exit 6 at its next save; nothing of the other host's is replaced."""

    class Taken(toy.ToyRecipe):
        def losses(self, model, batch, progress):
            if progress.step == 6:
                while steps(there).get("last.pt", 0) < 6:
                    os.sched_yield()
                other = ObjectLease(ObjectStore(there), "checkpoints/toy", "training toy", print)
                notice = other._notice
                other._notice = lambda: notice() | {"host": "elsewhere"}
                other._expired = lambda *_: True  # the other host saw no sign of life, as the network was down
                other.take(Pulse())
            if progress.step > 6:
                self.seen = progress.step
            return super().losses(model, batch, progress)

    with pytest.raises(
        HostError, match=r"Another host has taken this run over: .*Let the other host continue"
    ) as caught:
        toy.run(here, Taken, persist=there, training={"save_steps": 1, "epochs": 200})
    assert caught.value.exit_code == 6 and steps(there)["last.pt"] == 6
    assert intact(here / WHERE)["last.pt"] >= 6
    assert b"elsewhere" in ObjectStore(there).get("checkpoints/toy/lock.json")[0]


def test_a_store_that_ignores_conditions_is_reported_and_used(here, there, proxy, messages):
    proxy.deaf = True
    put(here / WHERE, 1)
    with Replicator(here, there, "toy", [], messages):
        messages.until("Copied to")
        with (
            pytest.raises(HostError, match="in use by process"),
            Replicator(here, there, "toy", [], messages),
        ):
            pass
    assert "this store ignores conditions of writes" in messages[0] and steps(there) == {"last.pt": 1}


def killed(here, there, at):
    """A run that is killed by a write to the store: the one of number `at`."""
    made, real = 0, ObjectStore.put

    def put_until(*arguments, **options):
        nonlocal made
        made += 1
        if made == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    ObjectStore.put = put_until
    toy.run(here, persist=Address.parse(there), training={"save_steps": 1})
    sys.exit("it was not killed")


@pytest.mark.parametrize("at", [9])
def test_a_run_killed_during_an_upload_with_its_host_ends_in_the_same_bits(here, server, there, tmp_path, at):
    """kill -9, the disk is gone, a new host: it continues from the store, or from the beginning."""
    code = "import pathlib, sys; from tests.persist.objects import test_object_training as test; "
    code += "test.killed(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
    child = subprocess.run(
        [sys.executable, "-c", code, here, str(there), str(at)], cwd=PROJECT, timeout=300,
        env=os.environ | environment(server.endpoint),
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL
    shutil.rmtree(here)
    restore(there, tmp_path / "new")
    ended = toy.run(tmp_path / "new", persist=there, training={"save_steps": 1})
    straight = toy.run(tmp_path / "straight", training={"save_steps": 1})
    one, other = checkpoint_file.read(straight.last), checkpoint_file.read(ended.last)
    assert all(one["model"][name].equal(other["model"][name]) for name in one["model"])
    assert steps(there)["last.pt"] == other["progress"]["step"]
