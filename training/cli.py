"""Verbs and flags; what they do is in stages/. torch is imported by the stage that needs it, never here."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from training.errors import AthanorError, Interrupted, UsageError
from training.models.registry import FAMILIES, PRESETS
from training.workspace import PROJECT, Workspace

VAL_SPLIT, DEMO_VAL_SPLIT = 0.1, 0.2  # shares held out


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (training/errors.py)."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        options.run(options)
    except AthanorError as error:
        sys.stdout.flush()
        label = "interrupted" if isinstance(error, Interrupted) else "error"
        print(f"{label}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # whoever read our output has gone (`| head`); there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _stop(number: int, _frame: object) -> None:
    """SIGTERM or SIGINT outside of training: the stages write atomically, so stopping anywhere leaves what was done.
    A second signal ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    raise Interrupted(f"{signal.Signals(number).name} received; what was finished is kept. Run the same command again.")


# -- verbs ---------------------------------------------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> None:
    from training.music.composing.demo import make_demo_corpus
    from training.stages.prepare import prepare, summary_of

    workspace = Workspace(options.out)
    audio_root, midi_root, val_split = options.audio_root, options.midi_root, options.val_split
    if audio_root is None and midi_root is None:
        before = summary_of(workspace)
        if before is not None and not before["synthetic"]:
            raise UsageError(
                f"{workspace.manifests} holds manifests of real music; without --audio-root and --midi-root the demo "
                "corpus would replace them. Name the folders again, use --skip-manifests, or choose another --out."
            )
        print(f"No data was named: composing the demo corpus in {workspace.relative(workspace.demo_corpus)}")
        print("  synthetic: true (whatever is trained on it can do little, and says so)")
        audio_root, midi_root = make_demo_corpus(workspace.demo_corpus)
        val_split = DEMO_VAL_SPLIT if val_split is None else val_split
    prepare(
        workspace,
        audio_root,
        midi_root,
        val_split=VAL_SPLIT if val_split is None else val_split,
        seed=options.seed,
        labels_file=options.labels,
        generate_clouds=options.generate_clouds,
        out_dir=options.out_dir,
        clouds_dir=options.clouds_dir,
    )


def _train(options: argparse.Namespace) -> None:
    from training.stages.train import train

    workspace = Workspace(options.out)
    recipe = _recipe(options, workspace)
    done = train(
        recipe,
        workspace,
        device=options.device,
        resume=options.resume,
        audio_root=options.audio_root,
        midi_root=options.midi_root,
    )
    if os.environ.get("RANK", "0") == "0":
        monitor = recipe.settings.training.early_stopping.monitor
        print(
            f"{recipe.title} {'was trained before' if done.already else 'is trained'}: {done.step} steps, {done.epoch} "
            f"epochs, {done.seconds:.0f} s ({done.finished}). Best {monitor} {done.metrics[monitor]:.4g}: "
            f"{workspace.relative(done.best)}; logs: {workspace.relative(done.run)}"
        )


def _recipe(options: argparse.Namespace, workspace: Workspace):
    from training.models.registry import load_recipe
    from training.stages.prepare import summary_of

    preset = options.preset
    if options.config is None and preset is None:
        summary = summary_of(workspace)
        preset = "demo" if summary is not None and summary["synthetic"] else "full"
        print(f"Preset: {preset}")
    overrides = list(options.set)
    if options.seed is not None:
        overrides.append(f"seed={options.seed}")
    if options.epochs is not None:
        least = load_recipe(options.family, preset or "full", options.config, overrides).settings.training.min_epochs
        # a short run asked for by hand is not refused for a configuration's longer min_epochs
        overrides += [f"training.epochs={options.epochs}", f"training.min_epochs={min(least, options.epochs)}"]
    return load_recipe(options.family, preset or "full", options.config, overrides)


def _evaluate(options: argparse.Namespace) -> None:
    from training.stages.evaluate import evaluate

    evaluate(
        options.family,
        Workspace(options.out),
        checkpoint=options.checkpoint,
        device=options.device,
        audio_root=options.audio_root,
        midi_root=options.midi_root,
    )


def _export(options: argparse.Namespace) -> None:
    from training.stages.export import export

    workspace = Workspace(options.out)
    checkpoints = dict.fromkeys(options.families or FAMILIES)
    if options.checkpoint is not None:
        if len(options.families) != 1:
            raise UsageError("--checkpoint goes with exactly one family.")
        checkpoints[options.families[0]] = options.checkpoint
    export(
        checkpoints,
        workspace,
        folder=options.output_dir,
        audio_root=options.audio_root,
        midi_root=options.midi_root,
    )


def _verify(options: argparse.Namespace) -> None:
    from training.stages.verify import verify

    verify(options.folder)


def _doctor(options: argparse.Namespace) -> None:
    from training.stages.doctor import doctor

    doctor(
        Workspace(options.out),
        audio_root=options.audio_root,
        midi_root=options.midi_root,
        device=options.device,
        gpus=options.gpus,
    )


# -- flags ---------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Folders of audio and MIDI in; trained, verified, exported models out.",
        epilog="Exit codes: 0 done, 2 usage, 3 data refused, 4 export differs, 5 training failed, 6 environment, "
        "75 interrupted with everything saved.",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    roots = argparse.ArgumentParser(add_help=False)
    roots.add_argument("--audio-root", type=_folder, metavar="DIR", help="audio files")
    roots.add_argument("--midi-root", type=_folder, metavar="DIR", help="MIDI files")
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument(
        "--out", type=Path, default=Path(os.environ.get("ATHANOR_OUT") or PROJECT), metavar="DIR",
        help="where everything is written (default: ATHANOR_OUT, or the project's folder)",
    )  # fmt: skip
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if one works")

    verb = verbs.add_parser("doctor", parents=[roots, out, device], help="look at this host; say what is missing")
    verb.add_argument("--gpus", type=int, metavar="N", help="how many GPUs the run is going to use")
    verb.set_defaults(run=_doctor)

    verb = verbs.add_parser("prepare", parents=[roots, out], help="scan, pair, label, split and encode a corpus")
    add_manifest_options(verb)
    verb.set_defaults(run=_prepare)

    verb = verbs.add_parser("train", parents=[roots, out, device], help="train one model family, or continue")
    verb.add_argument("family", choices=FAMILIES)
    add_train_options(verb)
    verb.set_defaults(run=_train)

    verb = verbs.add_parser("evaluate", parents=[roots, out, device], help="held-out metrics beside their baselines")
    verb.add_argument("family", choices=FAMILIES)
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the family's best.pt")
    verb.set_defaults(run=_evaluate)

    verb = verbs.add_parser("export", parents=[roots, out], help="write ONNX, int8, CoreML, weights, golden files")
    verb.add_argument("families", nargs="*", metavar="FAMILY", help=f"{', '.join(FAMILIES)} (default: all)")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: each family's best.pt")
    verb.add_argument("--output-dir", type=Path, metavar="DIR", help="default: exports/ under --out")
    verb.set_defaults(run=_export)

    verb = verbs.add_parser("verify", help="prove exported files against their golden files and receipt")
    verb.add_argument("folder", type=Path, metavar="DIR", help="a folder that `export` wrote")
    verb.set_defaults(run=_verify)
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


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `train` that the doors in cuda_session/ share."""
    parser.add_argument("--preset", choices=PRESETS, help="default: full; demo on the demo corpus")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file of your own, instead of a preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--resume", choices=("auto", "never"), default="auto", help="continue a run that is there")


def train_door(family: str, folder: Path) -> int:
    """`train` for one family, as a script of its own; a --config that is not found is looked up in `folder`."""
    arguments = sys.argv[1:]
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config" and (equals or index + 1 < len(arguments)):
            at, path = (index, Path(value)) if equals else (index + 1, Path(arguments[index + 1]))
            if not path.exists() and (folder / path).exists():
                arguments[at] = f"--config={folder / path}" if equals else str(folder / path)
    return main(["train", family, *arguments])


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is not a folder")
    return path.absolute()
