"""Commands that run at once share the CPUs of this host, and get its signals."""

import os
import signal
import sys
import time

import pytest

from training.errors import Interrupted
from training.stages.children import Children
from training.threads import AT_ONCE

PRINTS = [sys.executable, "-S", "-c", f"import os; print(os.environ[{AT_ONCE!r}])"]


def test_each_command_gets_the_number_that_runs_at_once(monkeypatch):
    monkeypatch.delenv(AT_ONCE, raising=False)
    printed = []
    with Children(printed.append) as children:
        children.run({"one": PRINTS, "two": PRINTS}, at_once=8)
        children.run({"three": PRINTS}, at_once=8)
        monkeypatch.setenv(AT_ONCE, "2")  # of such a command
        children.run(dict.fromkeys(("four", "five", "six"), PRINTS), at_once=3)
    assert sorted(printed) == ["[five] 6", "[four] 6", "[one] 2", "[six] 6", "[three] 1", "[two] 2"]


def test_a_signal_that_comes_while_a_command_is_started_stops_that_command(signals_as_at_a_terminal):
    class Stopped(Children):
        def _start(self, *arguments):
            process = super()._start(*arguments)
            os.kill(os.getpid(), signal.SIGTERM)
            return process

    began = time.monotonic()
    with pytest.raises(Interrupted), Stopped(print) as children:
        children.run({"sleeps": [sys.executable, "-S", "-c", "import time; time.sleep(60)"]})
    assert time.monotonic() - began < 30
