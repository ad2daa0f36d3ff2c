#!/usr/bin/env python3
"""Is a training in this container alive? Exit 0: it makes progress, or nothing trains here. Exit 1: it hangs.

Every training process touches its own file after each step and each held-out batch
(training/engine/process/heartbeat.py). A process that is there and has not done so for ATHANOR_HEALTH_SECONDS (default
900: longer than a collective's own limit of ten minutes, and than compiling a model for a new shape) hangs. Standard
library only, and no import of the package: this runs every minute.
"""

import os
import sys
import time
from pathlib import Path


def main() -> int:
    folder = Path(os.environ.get("ATHANOR_HEARTBEAT", "/tmp/athanor-heartbeat"))
    allowed = float(os.environ.get("ATHANOR_HEALTH_SECONDS", "900"))
    hung, alive = [], 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not Path("/proc", path.name).exists():  # killed with -9, which its exit code shows
            continue
        try:
            silent = time.time() - path.stat().st_mtime
        except FileNotFoundError:  # it has just ended
            continue
        alive += 1
        if silent > allowed:
            hung.append(f"process {path.name} has made no step for {silent:.0f} s (allowed: {allowed:.0f})")
    print("; ".join(hung) or (f"{alive} training process(es) make progress" if alive else "no training runs"))
    return 1 if hung else 0


if __name__ == "__main__":
    sys.exit(main())
