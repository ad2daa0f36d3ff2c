"""The runner or its Docker client is killed: the container is stopped, once. On simulated hosts."""

from __future__ import annotations

import os
import signal

from .conftest import alive, stages, value


def requests(calls):
    """The calls of Docker that stop a container or send it a signal."""
    return [call for call in calls if call[0] in ("kill", "stop")]


def test_killing_the_runner_stops_its_container(host, tmp_path):
    """The container is the engine's child, and would continue. The runner's complete process group is killed here."""
    host.has_docker()
    process = host.start("--cpu", "--out", tmp_path / "out", HOLD_AT="prepare")
    assert not requests(host.calls())
    os.killpg(process.pid, signal.SIGKILL)
    host.wait_for(lambda: requests(host.calls()))
    name = value(stages(host.calls())[0][-1], "--name")
    assert requests(host.calls()) == [["kill", "--signal", "TERM", name]]
    (host.folder / "let-go").touch()
    process.communicate(timeout=300)


def test_a_runner_that_is_killed_while_its_container_stops_sends_no_second_request(host, tmp_path):
    host.has_docker()
    process = host.start("--cpu", "--out", tmp_path / "out", HOLD_AT="prepare")
    process.terminate()
    host.wait_for(lambda: requests(host.calls()))
    process.kill()
    (host.folder / "let-go").touch()
    process.communicate(timeout=300)  # until the last that it started has ended
    assert [call[0] for call in requests(host.calls())] == ["kill"]


def test_a_client_that_is_killed_leaves_no_container_behind(host, tmp_path):
    host.has_docker()
    process = host.start("--cpu", "--out", tmp_path / "out", HOLD_AT="prepare")
    client = int((host.folder / "holds").read_text())
    os.kill(client, signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode == 137 and not alive(client)
    name = value(stages(host.calls())[0][-1], "--name")
    assert requests(host.calls()) == [["stop", "--time", "600", name]]


def test_containers_that_end_normally_get_no_request_to_stop(host, tmp_path):
    host.has_docker()
    done, calls = host.run("--cpu", "--out", tmp_path / "out", "--persist", tmp_path / "drive")
    assert done.returncode == 0 and not requests(calls), done.stderr
    assert "coproc" not in done.stderr
