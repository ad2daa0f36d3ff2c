"""`python -m training` with the fault of the mutant under test, if any, applied; `harness.command` starts it."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

from soak.harness import MUTANT
from soak.listing import find_mutant
from training.cli import main

if __name__ == "__main__":
    wanted = os.environ.get(MUTANT)
    with find_mutant(wanted).fault() if wanted else nullcontext():
        sys.exit(main())
