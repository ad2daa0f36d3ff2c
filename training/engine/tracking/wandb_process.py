"""Records to Weights & Biases, sent by a separate process: if it hangs or crashes, training continues.

`WandbProcess` runs this file as a script, which imports nothing of the package. It reads JSON lines from stdin, of
which the first holds the arguments of `wandb.init`, and writes JSON lines to stdout: the URL of the run, and the reason
if it fails.
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

MOST_WAITING = 16 << 20  # bytes of records that may wait for a process which reads none
LAST_SECONDS = 10.0  # a run that has ended waits at most so long for the process


class WandbProcess:
    """The process as seen by the training. No method but `close` waits, and none raises.

    `options`: arguments of wandb.init. `say`: logs a line.
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
        """Log the scalars of a step."""
        self._hand_over({"step": step, "values": dict(numbers)})

    def _hand_over(self, record: Mapping[str, Any]) -> None:
        if self._process is None:
            return
        self._waiting += _line(record)
        self._send()
        if len(self._waiting) > MOST_WAITING:
            self._disable("it takes no more records")

    def show(self, step: int, files: Mapping[str, Path]) -> None:
        """Log images (.png) and sounds (.mp3, .wav) under their names. The process reads the files."""
        self._hand_over({"media": {name: str(path.absolute()) for name, path in files.items()}, "step": step})

    def artifact(self, name: str, files: Mapping[str, Path], about: Mapping[str, Any], kind: str = "model") -> None:
        """Log files and folders under their names, as one artifact of type `kind` with the metadata `about`."""
        listed = {key: str(path.absolute()) for key, path in files.items()}
        self._hand_over({"artifact": name, "kind": kind, "files": listed, "about": dict(about)})

    def close(self, seconds: float = LAST_SECONDS) -> None:
        """Send the waiting records, and let the process finish; kill it after `seconds`."""
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
            return  # the pipe is full; sent later
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
    """Pass records to wandb until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the training, which closes our stdin when it ends
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the training
    answers = os.dup(1)
    os.dup2(2, 1)  # wandb prints to stdout, which must hold our JSON lines only
    try:
        options = json.loads(sys.stdin.readline())
        import wandb

        run = wandb.init(**options)
        if getattr(run, "url", None):
            os.write(answers, _line({"url": run.url}))
        patience = LAST_SECONDS
        for line in sys.stdin:
            record = json.loads(line)
            patience = record.get("finish", patience)
            _log(wandb, run, record)
        signal.alarm(int(patience) + 5)  # this process must end, even if the training is gone
        run.finish()
    except Exception as error:  # noqa: BLE001 - a tracker may raise anything; it is reported as the reason
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        with contextlib.suppress(OSError):
            os.write(answers, _line({"failed": reason}))
        os._exit(1)
    os._exit(0)  # without waiting for threads that wandb has started


def _log(wandb: Any, run: Any, record: Mapping[str, Any]) -> None:
    if "values" in record:
        run.log(record["values"], step=record["step"])
    elif "media" in record:
        # Without `step`: the run may have logged later steps, and W&B drops records of earlier ones.
        caption = f"step {record['step']}"
        kinds = {name: wandb.Image if path.endswith(".png") else wandb.Audio for name, path in record["media"].items()}
        run.log({name: kinds[name](path, caption=caption) for name, path in record["media"].items()})
    elif "artifact" in record:
        artifact = wandb.Artifact(record["artifact"], type=record["kind"], metadata=record["about"])
        for name, path in record["files"].items():
            (artifact.add_dir if os.path.isdir(path) else artifact.add_file)(path, name=name)  # noqa: PTH112
        run.log_artifact(artifact)


if __name__ == "__main__":
    main()
