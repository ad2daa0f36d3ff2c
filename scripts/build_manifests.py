#!/usr/bin/env python3
"""Build the training manifests from folders of recordings and scores.

python scripts/build_manifests.py --audio-root DIR --midi-root DIR [--out-dir data/manifests] [--generate-clouds]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from training.errors import AthanorError  # noqa: E402 - after the path is set
from training.workspace import Workspace  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio-root", type=Path, metavar="DIR", help="recordings: wav mp3 flac ogg m4a aac")
    parser.add_argument("--midi-root", type=Path, metavar="DIR", help="scores: mid midi")
    parser.add_argument("--out-dir", type=Path, metavar="DIR", help="default: data/manifests of the project")
    parser.add_argument("--val-split", type=float, default=0.05, metavar="SHARE", help="of songs held out (0.05)")
    parser.add_argument("--seed", type=int, default=42, help="of the split (42)")
    parser.add_argument("--generate-clouds", action="store_true", help="draw each song's target cloud ahead of time")
    parser.add_argument("--clouds-dir", type=Path, metavar="DIR", help="default: data/clouds of the project")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="CSV, JSON or JSONL: relative path -> emotion word or vector"
    )
    return parser.parse_args()


def main() -> int:
    given = arguments()
    from training.stages.prepare import prepare  # --help must not wait for it

    try:
        prepare(
            Workspace(),
            given.audio_root,
            given.midi_root,
            val_split=given.val_split,
            seed=given.seed,
            generate_clouds=given.generate_clouds,
            out_dir=given.out_dir,
            clouds_dir=given.clouds_dir,
            labels_file=given.labels,
        )
    except AthanorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted; what was decoded is kept. Run the same command again.", file=sys.stderr)
        return 75
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
