"""Fixtures: a place for replicas, with short time limits, and faults of such a place."""

import threading

import pytest

from training.persist import lease, remote, replicator


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "SILENT", 0.3)
    monkeypatch.setattr(remote, "SETTLING", 0.5)
    monkeypatch.setattr(replicator, "BEAT", 0.02)
    monkeypatch.setattr(lease, "BEAT", 0.0)
    monkeypatch.setattr(replicator, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(replicator, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def here(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def there(tmp_path):
    return tmp_path / "drive"


class Messages(list):
    """What was reported; `until` waits for it."""

    def __init__(self):
        super().__init__()
        self._new = threading.Condition()

    def __call__(self, text):
        with self._new:
            self.append(text)
            self._new.notify_all()

    def until(self, part):
        with self._new:
            assert self._new.wait_for(lambda: any(part in text for text in self), 120), (part, list(self))


@pytest.fixture
def messages():
    return Messages()


@pytest.fixture
def copies(monkeypatch, here):
    """Names of the checkpoints that were copied from `here`, without those that were linked or renamed in the place.
    Copies from elsewhere do not count: an abandoned thread of an earlier test may still be copying."""
    names, real = [], remote.copy

    def noted(source, target, pulse, expected=None):
        if here in source.parents:
            names.append(source.name)
        return real(source, target, pulse, expected)

    monkeypatch.setattr(remote, "copy", noted)
    return names


class Fault:
    """While `error` is set, nothing can be written to the place; while `gate` is closed, it hangs."""

    def __init__(self, monkeypatch):
        self.error, self.gate, self.tried = None, threading.Event(), threading.Event()
        self.gate.set()
        real = remote.copy

        def faulty(*arguments):
            self.tried.set()
            assert self.gate.wait(120)
            if self.error:
                raise self.error
            return real(*arguments)

        monkeypatch.setattr(remote, "copy", faulty)


@pytest.fixture
def fault(monkeypatch):
    made = Fault(monkeypatch)
    yield made
    made.gate.set()
