"""The functions of training/colab_setup.py, for notebooks that are opened from this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training.colab_setup import *  # noqa: F403
