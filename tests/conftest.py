"""What tests of several folders share."""

import copy
import os
import signal
import sys
from functools import cache

import pytest

from tests.probes import SHORT
from tests.warm import Warm
from training.budget import reserve

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported. The workers occupy all cores: further threads of each, and of each process that a test
    # starts, would only wait for a core that another worker uses, and spin while they wait.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from training.data import sandbox

    # The server of decoders starts once a process, with the first test that decodes, and keeps what it has imported
    # until then. Each worker of a decoder that it does not know would import for itself, for seconds.
    domains = "training.domains"
    sandbox.preload(
        imports=(
            "av", "nibabel", "openpyxl", "polars", "safetensors.numpy", "scipy.fft", "scipy.signal", "soundfile",
            "soxr", f"{domains}.amp.formats.checking", f"{domains}.amp.guitar", f"{domains}.brain.bold.masks",
            f"{domains}.brain.bold.reading", f"{domains}.brain.stimulus.annotations", f"{domains}.brain.stimulus.bins",
            f"{domains}.brain.stimulus.film", f"{domains}.market.bars.reading", f"{domains}.market.decisions",
            f"{domains}.music.alignment.align", f"{domains}.music.audio", f"{domains}.music.composing.demo",
            f"{domains}.music.midi.tokens", f"{domains}.sql.databases.sqlite",
        )
    )  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def short_probe():
    """The commands of tests measure this host's speed in milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reserve, "PROBE", SHORT)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_registry_of_onnx():
    """torch lists its operators for each graph that it exports, for half a second: here once in a process."""
    if "training.export.onnx" not in sys.modules:
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    listed = cache(ONNXRegistry.from_torchlib)

    def copied(*arguments, **named):
        made = copy.copy(listed(*arguments, **named))
        made.functions = {target: list(known) for target, known in made.functions.items()}
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))
        yield


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
