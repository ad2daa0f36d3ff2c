"""Requests to stop outside of a training: raised anywhere, and taken for nothing else."""

from __future__ import annotations

import gc
import os
import signal
import subprocess

import pytest

from training import cli
from training.engine.process import signals
from training.errors import ExportError

pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")


@pytest.fixture
def verify(monkeypatch):
    """verify(stage) -> the exit code of a stage that does this."""

    def run(stage):
        monkeypatch.setitem(cli.VERBS, "verify", lambda _options: stage())
        return cli.main(["verify", "x"])

    return run


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", signals.STOPS)
def test_a_stop_signal_ends_a_stage_with_exit_code_75(verify, capsys, number):
    assert verify(lambda: os.kill(os.getpid(), number)) == 75
    assert capsys.readouterr().err.startswith(f"interrupted: {number.name}: stopped")


def test_a_library_that_catches_every_exception_does_not_hide_a_stop_signal(verify):
    """torch.onnx, torch.export and coremltools do; what they interrupt would be reported as a differing export (4), or
    as a format that this model has not got."""

    def stage():
        try:
            ask()
        except Exception as error:
            raise ExportError("cannot be converted") from error

    assert verify(stage) == 75


@pytest.mark.parametrize("error", [ExportError("cannot be converted"), ImportError("half a module")])
def test_a_stop_that_a_library_replaced_by_its_own_error_still_ends_with_75(verify, capsys, error):
    def stage():
        try:
            ask()
        except BaseException:  # noqa: BLE001
            raise error from None

    assert verify(stage) == 75
    assert "interrupted: SIGTERM" in capsys.readouterr().err


def test_a_stop_signal_lost_in_a_destructor_stops_the_next_training_at_its_start(verify):
    """Raised in a destructor, or in a callback of an import, it is printed and forgotten by Python."""

    class Unlucky:
        def __del__(self):
            ask()

    began = []

    def stage():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.unraisablehook", lambda _: None)
            Unlucky()
            gc.collect()
        with signals.Signals():
            began.append("training")

    assert verify(stage) == 75 and not began


def test_a_repeat_within_a_second_is_ignored_and_a_later_signal_ends_at_once(verify, monkeypatch):
    ended = []
    monkeypatch.setattr(signals, "end_at_once", ended.append)

    def stage():
        try:
            ask()
        finally:  # it cleans up
            ask()
            assert not ended
            monkeypatch.setattr(signals, "ECHO_SECONDS", 0.0)
            ask()

    assert verify(stage) == 75 and ended == [signal.SIGTERM]


def test_blocked_or_ignored_signals_that_were_inherited_are_reset(verify):
    """A program that starts this one may have blocked the requests to stop, and ignore how its children end: with
    SIGCHLD ignored, every command of ours would seem to end well."""
    codes = []

    def stage():
        codes.append(subprocess.run(["false"], check=False).returncode)
        ask()

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPS)
    try:
        assert verify(stage) == 75 and codes == [1]
    finally:
        signal.signal(signal.SIGCHLD, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOPS)


def test_signal_handlers_are_restored_and_nohup_is_respected(verify):
    before = [signal.getsignal(number) for number in signals.STOPS]
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert verify(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, hangup)
    assert verify(ask) == 75
    assert [signal.getsignal(number) for number in signals.STOPS] == before


def test_a_failure_without_a_stop_signal_keeps_its_exit_code(verify):
    def stage():
        raise ExportError("differs")

    assert verify(stage) == 4
    assert verify(ask) == 75
    assert verify(stage) == 4, "an earlier request is not this one's"
