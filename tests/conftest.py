"""What tests of several folders share."""

import os
import signal

import pytest

from tests.warm import Warm

# Before torch is imported. Where workers of pytest-xdist occupy all cores, threads beyond the first of each worker, and
# of each process that a test starts, only wait for a core that another worker uses, and spin while they wait.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory):
    """A path for `sys.executable`: `python -m training ...` without the seconds of its imports."""
    warm = Warm(tmp_path_factory.mktemp("warm"))
    yield warm.python
    warm.close()


@pytest.fixture
def signals_as_at_a_terminal():
    """SIGINT and SIGHUP end this process and what it starts, for as long as the test lasts. `make test &` in a script,
    and `nohup make test`, have them ignored, and that is inherited."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    ignored = [number for number in defaults if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, defaults[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
