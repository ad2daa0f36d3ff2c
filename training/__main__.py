"""`python -m training VERB`."""

import atexit
import os
import signal
import sys

from training.cli import main
from training.engine.process.signals import STOPS
from training.threads import configure

if __name__ == "__main__":
    configure()  # no import above loads numpy or torch
    code = main()
    for number in STOPS:  # everything is done and printed: nothing may change the exit code now
        signal.signal(number, signal.SIG_IGN)
    # A process that sent a request to stop waits for the end of this one, and finalizing torch object by object takes
    # seconds. So only the registered exit functions run.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
