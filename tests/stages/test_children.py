"""Commands that run at once share the CPUs of this host."""

import sys

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
