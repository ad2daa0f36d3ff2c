"""A stop signal outside of training ends a stage anywhere with exit code 75, and is not reported as another error."""

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
    """verify(stage) -> the exit code of the command `verify` if its stage is this function."""

    def run(stage):
        monkeypatch.setitem(cli.VERBS, "verify", lambda _options: stage())
        return cli.main(["verify", "x"])

    return run


def send_sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", signals.STOPS)
def test_a_stop_signal_ends_a_stage_with_exit_code_75(verify, capsys, number):
    assert verify(lambda: os.kill(os.getpid(), number)) == 75
    assert capsys.readouterr().err.startswith(f"interrupted: {number.name}: stopped")


def test_a_library_that_catches_every_exception_does_not_hide_a_stop_signal(verify):
    """torch.onnx, torch.export and coremltools catch all exceptions. A stop would then be reported as an export that
    differs (4), or as a format that the model does not have."""

    def stage():
        try:
            send_sigterm()
        except Exception as error:
            raise ExportError("cannot be converted") from error

    assert verify(stage) == 75


@pytest.mark.parametrize("error", [ExportError("cannot be converted"), ImportError("half a module")])
def test_a_stop_that_a_library_replaced_by_its_own_error_still_ends_with_75(verify, capsys, error):
    def stage():
        try:
            send_sigterm()
        except BaseException:  # noqa: BLE001
            raise error from None

    assert verify(stage) == 75
    assert "interrupted: SIGTERM" in capsys.readouterr().err


def test_a_stop_signal_lost_in_a_destructor_stops_the_next_training_at_its_start(verify):
    """Python prints an exception of a destructor, or of a callback of an import, and ignores it."""

    class Unlucky:
        def __del__(self):
            send_sigterm()

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
            send_sigterm()
        finally:  # during clean-up
            send_sigterm()
            assert not ended
            monkeypatch.setattr(signals, "ECHO_SECONDS", 0.0)
            send_sigterm()

    assert verify(stage) == 75 and ended == [signal.SIGTERM]


def test_blocked_or_ignored_signals_that_were_inherited_are_reset(verify):
    """The program that starts this one may have blocked the stop signals and ignored SIGCHLD, with which the exit code
    of every command that we start would be 0."""
    codes = []

    def stage():
        codes.append(subprocess.run(["false"], check=False).returncode)
        send_sigterm()

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
    assert verify(send_sigterm) == 75
    assert [signal.getsignal(number) for number in signals.STOPS] == before


def test_a_failure_without_a_stop_signal_keeps_its_exit_code(verify):
    def stage():
        raise ExportError("differs")

    assert verify(stage) == 4
    assert verify(send_sigterm) == 75
    assert verify(stage) == 4, "a stop signal of an earlier command has no effect on this one"
