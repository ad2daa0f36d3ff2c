"""A stand-in for `train` that copies a finished run: `python made_run.py MADE [FLAGS of train] --out DIR` copies
MADE/<name of DIR> to DIR. It imports no torch, so that a proof does not take seconds.

With MADE_HANGS, the first run in a folder named `killed` starts another process in a separate session, writes both
process numbers to MADE/pids and a step to its log, and waits to be killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

made, out = Path(sys.argv[1]), Path(sys.argv[sys.argv.index("--out") + 1])
pids = made / "pids"
if os.environ.get("MADE_HANGS") and out.name == "killed" and not pids.exists():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"], start_new_session=True)
    pids.write_text(f"{os.getpid()} {other.pid}")
    log = out / "runs" / "toy" / "one" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"kind": "train", "step": 99}\n')
    time.sleep(99)
shutil.rmtree(out / "runs", ignore_errors=True)
shutil.copytree(made / out.name, out, dirs_exist_ok=True)
