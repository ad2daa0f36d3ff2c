"""Export by hand: `python export_models.py --all`, or one model from a checkpoint of your choice."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training.cli import main
from training.threads import configure


def commands() -> list[list[str]]:
    """The arguments of one `export` call for each requested family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every family, from its best checkpoint")
    parser.add_argument("--spectocloud", type=Path, metavar="CKPT", help="Spectocloud from this checkpoint")
    parser.add_argument("--midi-generator", type=Path, metavar="CKPT", help="the MIDI generator from this checkpoint")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="default: exports/ under --out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: the project's)")
    options = parser.parse_args()
    chosen = {"spectocloud": options.spectocloud, "midi_generator": options.midi_generator}
    if not options.all and not any(chosen.values()):
        parser.error("name what to export: --all, --spectocloud CKPT or --midi-generator CKPT")
    folders = [f"--output-dir={options.output_dir}"] if options.output_dir else []
    folders += [f"--out={options.out}"] if options.out else []
    families = [family for family, checkpoint in chosen.items() if checkpoint or options.all]
    return [
        ["export", family, *folders, *([f"--checkpoint={chosen[family]}"] if chosen[family] else [])]
        for family in families
    ]


if __name__ == "__main__":
    configure()  # no import above loads numpy or torch
    sys.exit(next((code for code in map(main, commands()) if code), 0))
