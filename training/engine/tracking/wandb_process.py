"""Records to Weights & Biases, sent by a separate process: if it hangs or crashes, training continues.

Run as a file by `WandbProcess` (it imports nothing of the package): it reads JSON lines from its input, the first one
the arguments of `wandb.init`, and writes to its output, one JSON line each, the address of the run and the
reason if it stops.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MOST_WAITING = 16 << 20  # bytes of records that are kept for a tracker that takes none
LAST_SECONDS = 10.0  # that a run which has ended waits for its tracker


class WandbProcess:
    """The training's side. No method waits, but `close`, and that not for long; none raises.

    `options`: of wandb.init. `say`: one line for people.
    """

    def __init__(self, options: Mapping[str, Any], say: Callable[[str], None]):
        self.say = say
        self._waiting = bytearray(_line(options))
        self._received = b""
        self._process: subprocess.Popen | None = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
        )  # fmt: skip
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(self._process.stdout.fileno(), False)
        self._send()

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        """Scalars of a step."""
        self._hand_over({"step": step, "values": dict(numbers)})

    def _hand_over(self, record: Mapping[str, Any]) -> None:
        if self._process is None:
            return
        self._waiting += _line(record)
        self._send()
        if len(self._waiting) > MOST_WAITING:
            self._disable("it takes no more records")

    def show(self, step: int, files: Mapping[str, Path]) -> None:
        """Pictures (.png) and sounds (.mp3, .wav) under their names; they are read by the process."""
        self._hand_over({"media": {name: str(path.absolute()) for name, path in files.items()}, "step": step})

    def artifact(self, name: str, files: Mapping[str, Path], about: Mapping[str, Any]) -> None:
        """Files and folders under their names, as one artifact of type `model` with the metadata `about`."""
        listed = {key: str(path.absolute()) for key, path in files.items()}
        self._hand_over({"artifact": name, "files": listed, "about": dict(about)})

    def close(self, seconds: float = LAST_SECONDS) -> None:
        """Hand over what waits, and let it finish; past `seconds` it is ended."""
        until = time.monotonic() + seconds
        self._hand_over({"finish": seconds})
        while self._process is not None and self._waiting and time.monotonic() < until:
            select.select([], [self._process.stdin], [], 0.1)
            self._send()
        if self._process is None:
            return
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.1, until - time.monotonic()))
        self._read_answers()
        code = self._process.poll() if self._process is not None else 0
        if code != 0:
            self._disable(f"it was not done {seconds:.0f} s after the run" if code is None else "its process ended")
        self._end()

    def _send(self) -> None:
        self._read_answers()
        try:
            while self._process is not None and self._waiting:
                del self._waiting[: os.write(self._process.stdin.fileno(), self._waiting[:65536])]
        except BlockingIOError:
            return  # it is slow: later
        except BrokenPipeError:
            self._process.wait(5)
            self._read_answers()
            self._disable("its process ended")

    def _read_answers(self) -> None:
        if self._process is None or self._process.stdout.closed:
            return
        with contextlib.suppress(BlockingIOError):
            while heard := os.read(self._process.stdout.fileno(), 65536):
                self._received += heard
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "failed" in answer:
                self._disable(answer["failed"])
                return
            self.say(f"W&B: {answer['url']}")

    def _disable(self, why: str) -> None:
        if self._process is not None:
            self._end()
            self.say(f"W&B failed and is off for the rest of the run ({why}); metrics.jsonl holds everything.")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        self._process = None
        self._waiting.clear()


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


# -- the process ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Carry records until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the training is asked to stop, and closes our input when it has
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive it
    tell = os.dup(1)
    os.dup2(2, 1)  # what wandb prints is not an answer
    try:
        options = json.loads(sys.stdin.readline())
        import wandb

        run = wandb.init(**options)
        if getattr(run, "url", None):
            os.write(tell, _line({"url": run.url}))
        patience = LAST_SECONDS
        for line in sys.stdin:
            record = json.loads(line)
            patience = record.get("finish", patience)
            _carry(wandb, run, record)
        signal.alarm(int(patience) + 5)  # our caller is gone, or will end us: never linger
        run.finish()
    except Exception as error:  # noqa: BLE001 - a tracker may raise anything; it is reported as the reason
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        with contextlib.suppress(OSError):
            os.write(tell, _line({"failed": reason}))
        os._exit(1)
    os._exit(0)  # nothing that wandb left behind may wait


def _carry(wandb: Any, run: Any, record: Mapping[str, Any]) -> None:
    if "values" in record:
        run.log(record["values"], step=record["step"])
    elif "media" in record:
        # Without a step: the run may be beyond the step that is shown, and W&B drops what comes late.
        caption = f"step {record['step']}"
        kinds = {name: wandb.Image if path.endswith(".png") else wandb.Audio for name, path in record["media"].items()}
        run.log({name: kinds[name](path, caption=caption) for name, path in record["media"].items()})
    elif "artifact" in record:
        artifact = wandb.Artifact(record["artifact"], type="model", metadata=record["about"])
        for name, path in record["files"].items():
            (artifact.add_dir if os.path.isdir(path) else artifact.add_file)(path, name=name)  # noqa: PTH112
        run.log_artifact(artifact)


if __name__ == "__main__":
    main()
