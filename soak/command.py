"""`python -m training`, with the mutant that the harness is hunting (if any) put in: what `harness.command` starts."""

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
