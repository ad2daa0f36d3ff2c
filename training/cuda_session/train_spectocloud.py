"""Train Spectocloud by hand, alone or under torchrun; --help lists the flags."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training.cli import train_door

if __name__ == "__main__":
    sys.exit(train_door("spectocloud", Path(__file__).resolve().parent))
