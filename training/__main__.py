"""`python -m training VERB`."""

import signal
import sys

from training.cli import main
from training.engine.signals import STOPS

if __name__ == "__main__":
    code = main()
    for number in STOPS:  # all is done and said: while torch is taken down, nothing may change the exit code any more
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
