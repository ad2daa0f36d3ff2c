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
    for number in STOPS:  # all is done and said: nothing may change the exit code any more
        signal.signal(number, signal.SIG_IGN)
    # Whoever asked to stop waits for the end of this process, and to take down torch and what was loaded with it,
    # object by object, takes seconds. What asked to be told of the end is told; the rest goes with the process.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
