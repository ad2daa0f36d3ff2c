"""The program of each rank: `python -m torch.distributed.run --nproc_per_node=2 tests/on_ranks.py JSON`. JSON is a list
of commands (lists of words), which are done one after the other; it ends with the exit code of the first that fails."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from training import cli

for words in json.loads(sys.argv[1]):
    code = cli.main(words)
    if code:
        sys.exit(code)
