"""Commands that are forked from a process with everything imported are processes like others."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from textwrap import indent

import pytest

from training.errors import Interrupted
from training.host import process_exists
from training.stages.children import Children
from training.stages.fork_server import Forked, ForkServer

ROOT = Path(__file__).resolve().parents[2]
OTHER = """
from tests.gauges_domain.domain import Gauges

class Other(Gauges):
    word = "other"

    def arrange(self, request):
{code}
        return request

OTHER = Other()
"""
PLAN = [sys.executable, "-m", "training", "plan", "other", "--out", "somewhere"]

pytestmark = pytest.mark.skipif(not ForkServer.available, reason="forks on Linux only")


@pytest.fixture
def domain(tmp_path, monkeypatch):
    """A function that makes `plan` execute some code in the process of the command."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("ATHANOR_DOMAINS", "other:OTHER")

    def runs(code: str) -> None:
        (tmp_path / "other.py").write_text(OTHER.format(code=indent(code, "        ")), encoding="utf-8")

    return runs


def started(server: ForkServer) -> Forked:
    return server.start(PLAN, dict(os.environ))


def until(true) -> bool:
    end = time.monotonic() + 30
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def test_each_has_its_words_environment_session_and_exit_code_and_what_is_imported_once(domain, tmp_path, monkeypatch):
    domain("import os, sys\nprint(os.getsid(0), os.environ['NUMBER'], 'once' in sys.modules, file=sys.stderr)")
    imported = tmp_path / "imported"
    (tmp_path / "once.py").write_text(f"open({str(imported)!r}, 'a').write('x')", encoding="utf-8")
    with ForkServer(["once", "no.such.module"], {}) as server:
        commands = []
        for number in ("1", "2"):
            monkeypatch.setenv("NUMBER", number)
            commands.append(started(server))
        bad = server.start([*PLAN[:4], "no-such-word"], dict(os.environ))
        for number, command in enumerate(commands, 1):
            assert json.loads(command.stdout.read())["out"].endswith("somewhere")
            assert command.stderr.read() == f"{command.pid} {number} True\n"
            assert command.wait() == 0
        assert "no-such-word" in bad.stderr.read() and bad.wait() == 2
    assert imported.read_text() == "x"


def test_a_command_that_is_killed_leaves_no_process_behind_and_others_continue(domain):
    domain(
        "import os, subprocess\n"
        "nothing = subprocess.DEVNULL\n"
        "print(subprocess.Popen(['sleep', '60'], stdout=nothing, stderr=nothing).pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    with ForkServer([], {}) as server:
        killed = started(server)
        left = int(killed.stdout.readline())
        assert killed.wait() == -signal.SIGKILL
        assert until(lambda: not process_exists(left))
        domain("pass")
        assert started(server).wait() == 0


WAITS = "import os, time\nprint(os.getpid(), flush=True)\nwhile True: time.sleep(0.01)"


@pytest.mark.parametrize("ends", ["server", "caller"])
def test_commands_stop_with_the_server_and_the_server_with_its_caller(domain, ends):
    domain(WAITS)
    server = ForkServer([], {})
    server.__enter__()
    command = started(server)
    process = int(command.stdout.readline())
    if ends == "server":
        server._process.kill()
        assert command.wait() == -signal.SIGKILL
    else:
        server._orders.close()  # as the end of the caller closes it
    assert until(lambda: not process_exists(process))
    if ends == "server":
        assert started(server).wait() == -signal.SIGKILL, "none is started any more, and nothing waits for ever"
    server.__exit__()


def test_a_signal_is_forwarded_to_forked_commands(domain, signals_as_at_a_terminal):
    domain(WAITS)

    def say(line: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # when the command has begun

    with pytest.raises(Interrupted), ForkServer([], {}) as server, Children(say, server) as children:
        children.run({"waits": PLAN})
