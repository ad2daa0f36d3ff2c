#!/usr/bin/env python3
"""Build the training manifests from folders of recordings and scores: `python -m training prepare` as a script.

python scripts/build_manifests.py --audio-root DIR --midi-root DIR [--out-dir data/manifests] [--generate-clouds] ...
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.cli import main


def run(arguments: list[str]) -> int:
    """Run `prepare`; returns the exit code. The folders must be named: only the main job makes a demo corpus."""
    named = {argument.partition("=")[0] for argument in arguments}
    if not named & {"--audio-root", "--midi-root", "--help", "-h"}:
        print("error: name the folders: --audio-root DIR --midi-root DIR (--help lists all flags)", file=sys.stderr)
        return 2
    return main(["prepare", *arguments])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
