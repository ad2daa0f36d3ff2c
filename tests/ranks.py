"""Two ranks, with the variables that torchrun sets, in processes that have imported everything (warm.py).

torchrun itself, which imports torch three times for two ranks, is started by tests/test_training.py, and by those of
training/runner/launch.py."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from torch.distributed import TCPStore


def two_ranks(python: Path, folder: Path, module: str, *words: str, seconds: float = 240) -> str:
    """Run `python -m MODULE WORDS` as two ranks; returns what they printed, that of rank 0 first. It is kept in
    `folder`. Fails if a rank does, or if they take longer than `seconds`."""
    folder.mkdir(parents=True, exist_ok=True)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent holds it
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port,
              "TORCHELASTIC_USE_AGENT_STORE": True, "OMP_NUM_THREADS": 1}  # fmt: skip
    printed = [folder / f"printed{rank}.txt" for rank in (0, 1)]
    ranks = []
    deadline = time.monotonic() + seconds
    try:
        for rank, file in enumerate(printed):
            own = shared | {"RANK": rank, "LOCAL_RANK": rank}
            with file.open("wb") as output:
                ranks.append(
                    subprocess.Popen(
                        [python, "-m", module, *words], stdout=output, stderr=output,
                        env=os.environ | {name: str(value) for name, value in own.items()},
                    )
                )  # fmt: skip
        # one that fails leaves the other waiting for it
        while any(rank.poll() is None for rank in ranks) and not any(rank.returncode for rank in ranks):
            assert time.monotonic() < deadline, f"not done in {seconds:.0f} s: {[file.read_text() for file in printed]}"
            time.sleep(0.02)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    texts = [file.read_text() for file in printed]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(texts)
    return "".join(texts)
