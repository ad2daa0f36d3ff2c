"""Decoders that fail as real ones do on broken files. They are in a separate module because workers import it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from training.errors import HostError


def double(number: int) -> int:
    return number * 2


def by_name(path: Path) -> dict[str, np.ndarray]:
    """Reads numbers from a file; if its content begins with the name of a fault, that fault is simulated."""
    text = Path(path).read_text()
    if text.startswith("hang"):
        time.sleep(600)
    elif text.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    elif text.startswith("eat"):
        hog = [np.ones(1 << 20) for _ in range(10_000)]  # 80 GB
        return {"hog": np.concatenate(hog)}
    elif text.startswith("bad"):
        raise ValueError("its header is damaged")
    elif text.startswith("odd"):
        raise KeyError("a decoder's own bug")
    elif text.startswith("need"):
        raise HostError("ffmpeg is missing; install it with: sudo apt-get install -y ffmpeg")
    return {"values": np.array([float(x) for x in text.split()], np.float32)}


def fault(kind: str):
    if kind == "hang with a child":
        child = subprocess.Popen(["sleep", "600"])
        Path(os.environ["CHILD_PID_FILE"]).write_text(str(child.pid))
        child.wait()
    if kind == "hang":
        time.sleep(600)
    if kind == "spin":
        while True:
            pass
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit":
        os._exit(7)
    if kind == "eat":
        return sum(len(b) for b in [bytearray(1 << 24) for _ in range(4000)])  # 64 GB
    if kind.startswith("take "):
        return len(bytearray(int(kind.split()[1]) * 2**20))
    if kind.startswith("doze "):
        time.sleep(float(kind.split()[1]))
    if kind == "big":
        return bytes(100_000_000)
    if kind == "noise":
        os.write(2, b"NOISE" * 10)
    return kind


def threads(_: int) -> str:
    return os.environ.get("OMP_NUM_THREADS", "unset")


def loaded(name: str) -> bool:
    import sys

    return name in sys.modules
