"""How well `prepare --audit` finds swapped labels: `label_audit.py [MIDI_FOLDER ...]`.

A MIDI_FOLDER has one folder per emotion (benchmarks/music/real_music.py makes such ones); without any, the 60 pieces of
the demo corpus are composed. Labels are swapped at random, DRAWS times. Precision is the share of the listed songs
whose label was swapped, recall the share of the swapped ones that are listed. The last column is the number of listed
songs without swaps. Prints a Markdown table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from training.domains.music.composing.compose import compose
from training.domains.music.corpora import audit
from training.domains.music.emotion import BASES, label_for
from training.domains.music.midi import style, tokens

DRAWS = 20
SHARES = (0.05, 0.1, 0.25)  # of the labels, swapped
PIECES = 60


def styles(root: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Ids, emotions and styles of the MIDI files below `root`."""
    paths = sorted(root.rglob("*.mid"))
    ids = [str(path.relative_to(root)) for path in paths]
    measured = [style.measure(tokens.TOKENS.function(path)["ids"]) for path in paths]
    return ids, [label_for(name).emotion for name in ids], np.stack(measured)


def demo(root: Path) -> None:
    for n in range(PIECES):
        emotion, index = BASES[n % len(BASES)], n // len(BASES)
        (root / emotion).mkdir(exist_ok=True)
        compose(emotion, 42, index).write(root / emotion / f"{index}.mid")


def found(ids: list[str], labels: list[str], measured: np.ndarray, share: float) -> tuple[int, float, float]:
    """(labels swapped, precision, recall), over all draws."""
    names, count = sorted(set(labels)), max(1, round(share * len(ids)))
    right = listed = 0
    for seed in range(DRAWS):
        random, given = np.random.default_rng(seed), list(labels)
        wrong = random.choice(len(ids), count, replace=False)
        for song in wrong:
            given[song] = random.choice([name for name in names if name != labels[song]])
        suspects = {suspect.song for suspect in audit.suspects(ids, given, measured)}
        right, listed = right + len(suspects & {ids[song] for song in wrong}), listed + len(suspects)
    return count, right / max(1, listed), right / (DRAWS * count)


def main(folders: list[str]) -> int:
    print("| corpus | songs | swapped | precision | recall | listed without swaps |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        if not folders:
            demo(Path(made))
        for folder in folders or [made]:
            ids, labels, measured = styles(Path(folder))
            as_it_is = len(audit.suspects(ids, labels, measured))
            for share in SHARES:
                count, precision, recall = found(ids, labels, measured, share)
                name = Path(folder).parent.name if folders else "demo"
                print(f"| {name} | {len(ids)} | {count} | {precision:.0%} | {recall:.0%} | {as_it_is} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
