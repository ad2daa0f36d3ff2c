"""The program of each rank: `python -m tests.on_ranks JSON` (ranks.py). JSON is a list of commands (lists of words),
which are done one after the other; it ends with the exit code of the first that fails."""

import json
import sys

from training import cli

for words in json.loads(sys.argv[1]):
    code = cli.main(words)
    if code:
        sys.exit(code)
