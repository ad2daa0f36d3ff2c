"""A place that mirrors, on time scales of tests; and what may be wrong with it."""

import threading

import pytest

from training.persist import lease as claim
from training.persist import remote, replicator


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(claim, "SILENT", 0.3)
    monkeypatch.setattr(replicator, "BEAT", 0.02)
    monkeypatch.setattr(claim, "BEAT", 0.0)
    monkeypatch.setattr(replicator, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(replicator, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def here(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def there(tmp_path):
    return tmp_path / "drive"


class Said(list):
    """What was told; `until` waits for it."""

    def __init__(self):
        super().__init__()
        self._new = threading.Condition()

    def __call__(self, text):
        with self._new:
            self.append(text)
            self._new.notify_all()

    def until(self, part):
        with self._new:
            assert self._new.wait_for(lambda: any(part in text for text in self), 30), (part, list(self))


@pytest.fixture
def said():
    return Said()


@pytest.fixture
def copies(monkeypatch):
    """Names of checkpoints copied through the network, so to speak; what is linked or renamed there is not."""
    names, real = [], remote.copy

    def noted(source, target, pulse, expected=None):
        names.append(source.name)
        return real(source, target, pulse, expected)

    monkeypatch.setattr(remote, "copy", noted)
    return names


class Trouble:
    """While `error` is set, nothing can be written to the place; while `gate` is closed, it hangs."""

    def __init__(self, monkeypatch):
        self.error, self.gate, self.tried = None, threading.Event(), threading.Event()
        self.gate.set()
        real = remote.copy

        def troubled(*arguments):
            self.tried.set()
            assert self.gate.wait(30)
            if self.error:
                raise self.error
            return real(*arguments)

        monkeypatch.setattr(remote, "copy", troubled)


@pytest.fixture
def trouble(monkeypatch):
    made = Trouble(monkeypatch)
    yield made
    made.gate.set()
