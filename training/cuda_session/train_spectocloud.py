"""Train Spectocloud by hand, alone or under torchrun; --help lists the flags."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training.cuda_session.launching import train_script
from training.threads import configure

if __name__ == "__main__":
    configure()  # no import above loads numpy or torch
    sys.exit(train_script("spectocloud", Path(__file__).resolve().parent))
