"""Verbs and their flags: names, defaults, what `--help` says. What they do is cli.py's."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from training.budget.limit import amount
from training.domain import PRESETS
from training.registry import families
from training.workspace import PROJECT

VAL_SPLIT, DEMO_VAL_SPLIT = 0.1, 0.2  # shares held out


def parser_of(runs: Mapping[str, Callable[[argparse.Namespace], None]]) -> argparse.ArgumentParser:
    """The parser of `python -m training`; what it gives has `run`, the function of `runs` for the verb."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Folders of audio and MIDI in; trained, verified, exported models out.",
        epilog="Exit codes: 0 done, 2 usage, 3 data refused, 4 export differs, 5 training failed, 6 environment, "
        "75 interrupted with everything saved.",
    )
    known = families()
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    roots = argparse.ArgumentParser(add_help=False)
    roots.add_argument("--audio-root", type=_folder, metavar="DIR", help="audio files")
    roots.add_argument("--midi-root", type=_folder, metavar="DIR", help="MIDI files")
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument(
        "--out", type=Path, default=Path(os.environ.get("ATHANOR_OUT") or PROJECT), metavar="DIR",
        help="where everything is written (default: ATHANOR_OUT, or the project's folder)",
    )  # fmt: skip
    money = argparse.ArgumentParser(add_help=False)
    limits = money.add_argument_group("the limit of the whole job: all stages, all restarts (runs/budget.json)")
    limits.add_argument("--max-hours", type=amount, metavar="H")
    limits.add_argument("--budget-usd", type=amount, metavar="X")
    limits.add_argument(
        "--price-per-hour", type=amount, metavar="Y",
        help="USD for all that is rented (default: by the GPU's name, from cuda_session/prices.yaml)",
    )  # fmt: skip
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if one works")

    verb = verbs.add_parser("doctor", parents=[roots, out, device, money], help="look at this host: what is missing")
    verb.add_argument("--gpus", type=int, metavar="N", help="how many GPUs the run is going to use")

    verb = verbs.add_parser("prepare", parents=[roots, out, money], help="scan, pair, label, split and encode a corpus")
    add_manifest_options(verb)

    verb = verbs.add_parser("train", parents=[roots, out, device, money], help="train one model family, or continue")
    verb.add_argument("family", choices=known)
    add_train_options(verb)
    _add_persist(verb, required=False)

    verb = verbs.add_parser(
        "estimate", parents=[roots, out, device, money], help="what a training would take, by a few of its real steps"
    )
    verb.add_argument("family", choices=known)
    add_train_options(verb)

    verb = verbs.add_parser(
        "prove-resume",
        parents=[roots, out, device],
        help="kill a short run again and again; compare it with a straight one",
    )
    verb.add_argument("family", choices=known)
    verb.add_argument("--steps", type=_count, default=30, metavar="N", help="of both runs (default: 30)")
    verb.add_argument("--kills", type=_count, default=3, metavar="K", help="kill -9, at random moments (default: 3)")
    verb.add_argument("--ranks", type=_count, default=1, metavar="R", help="processes that train together (default: 1)")
    verb.add_argument("--kill-seed", type=int, metavar="N", help="the same moments once more (default: others)")
    add_train_options(verb)

    verb = verbs.add_parser("evaluate", parents=[roots, out, device, money], help="held-out metrics beside baselines")
    verb.add_argument("family", choices=known)
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the family's best.pt")
    verb.add_argument(
        "--rival-steps", type=_share, default=0.2, metavar="SHARE",
        help="of the model's own steps, for models trained only to be compared with it (default: 0.2, going on from "
        "its weights; 1: as long as it, from the start)",
    )  # fmt: skip

    verb = verbs.add_parser("export", parents=[roots, out, money], help="write ONNX, int8, CoreML, weights, goldens")
    verb.add_argument("families", nargs="*", metavar="FAMILY", help=f"{', '.join(known)} (default: all)")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: each family's best.pt")
    verb.add_argument("--output-dir", type=Path, metavar="DIR", help="default: exports/ under --out")

    verb = verbs.add_parser("verify", parents=[money], help="prove exported files against golden files and receipt")
    verb.add_argument("folder", type=Path, metavar="DIR", help="a folder that `export` wrote")

    verb = verbs.add_parser("restore", parents=[out], help="bring back what an earlier host left in a second place")
    _add_persist(verb, required=True)

    verb = verbs.add_parser("persist", parents=[out], help="copy what matters to a second place, and verify it")
    _add_persist(verb, required=True)

    verb = verbs.add_parser("watch", parents=[out], help="how the job stands: progress, losses, budget, GPUs")
    verb.add_argument("--once", action="store_true", help="tell it one time, as in a pipe")

    verb = verbs.add_parser(
        "report", parents=[out], help="write exports/report.html and the model card anew, from what is there"
    )

    verb = verbs.add_parser("budget", parents=[out], help="what the job has used, by stage, and what is left")
    verb.add_argument("--done", action="store_true", help="the job is over: what is started next is another one's")
    for name, verb in verbs.choices.items():
        verb.set_defaults(run=runs[name])
    return parser


def add_manifest_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `prepare` that scripts/build_manifests.py shares."""
    parser.add_argument(
        "--val-split", type=float, metavar="SHARE",
        help=f"held-out share of the songs (default: {VAL_SPLIT:g}; {DEMO_VAL_SPLIT:g} of the demo corpus)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="of the split (default: 42)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="emotions by hand: CSV, JSON or JSONL")
    parser.add_argument("--generate-clouds", action="store_true", help="also write each song's target cloud as .npy")
    parser.add_argument("--out-dir", type=Path, metavar="DIR", help="of the manifests (default: data/manifests)")
    parser.add_argument("--clouds-dir", type=Path, metavar="DIR", help="of the clouds (default: data/clouds)")
    parser.add_argument("--audit", action="store_true", help="list labels that the notes speak against (audit.json)")
    hosts = parser.add_mutually_exclusive_group()
    hosts.add_argument("--shard", metavar="I/N", help="only decode the I-th of N shares; then --merge N on one host")
    hosts.add_argument("--merge", type=_count, metavar="N", help="put N shares together first, then prepare as usual")
    hosts.add_argument("--ray", metavar="ADDRESS", help="a share for every node of this Ray cluster, then --merge")


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `train` that the doors in cuda_session/ share."""
    parser.add_argument("--preset", choices=PRESETS, help="default: full; demo on the demo corpus")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file of your own, instead of a preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--resume", choices=("auto", "never"), default="auto", help="continue a run that is there")
    parser.add_argument(
        "--families-left", type=_count, default=1, metavar="N",
        help="how many families, this one included, share what the limit leaves for training (default: 1)",
    )  # fmt: skip


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 up")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share above 0, up to 1")
    return value


def _add_persist(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--persist", type=_absolute, metavar="DIR", required=required,
        help="a second place for what is saved, which outlives this host; it may be slow, or a network drive",
    )  # fmt: skip


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is not a folder")
    return path.absolute()
