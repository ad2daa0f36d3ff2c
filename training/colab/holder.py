"""Runs a command, and records its process number and exit code in a file: `holder.py FILE -- COMMAND...`

A kernel that is restarted can so find the job again, which is not its child any more. SIGTERM is passed on, once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    file, command = Path(arguments[0]), arguments[2:]
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if not stopped:
            stopped.append(number)
            process.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # until the process is there
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=_defaults)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    _write(file, {"pid": os.getpid(), "command": command})
    code = process.wait()
    _write(file, {"pid": os.getpid(), "command": command, "code": code if code >= 0 else 128 - code})
    return code


def _defaults() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _write(file: Path, content: dict) -> None:
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
