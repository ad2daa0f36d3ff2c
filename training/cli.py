"""Verbs and flags; what they do is in stages/. torch is imported by the stage that needs it, never here."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from training.budget import book as books
from training.budget.account import Account, counted, ledger_path, table
from training.budget.ledger import Seen
from training.budget.limit import Limit, amount, limit_of
from training.console import mute_what_is_gone
from training.engine.heartbeat import note_crash
from training.engine.signals import listen, stopped
from training.errors import AthanorError, HostError, Interrupted, UsageError
from training.models.registry import FAMILIES, PRESETS
from training.workspace import PROJECT, Workspace

VAL_SPLIT, DEMO_VAL_SPLIT = 0.1, 0.2  # shares held out


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (training/errors.py)."""
    options = _parser().parse_args(arguments)
    before = listen()
    try:
        code = _run(options)
    except Interrupted as error:  # it came as the last words were said
        code = error.exit_code
    for number, handler in before.items():
        signal.signal(number, handler)
    mute_what_is_gone()  # else the interpreter's last flush would fail, and change the code
    return code


def _run(options: argparse.Namespace) -> int:
    try:
        options.run(options)
        return 0
    except (AthanorError, Interrupted) as error:
        end: AthanorError | Interrupted | None = stopped(error) or error
    except Exception as error:
        end = stopped(error)
        if end is None:
            note_crash(error)
            if not isinstance(error, OSError) or not mute_what_is_gone():
                raise
            return 1  # nobody reads what it says (`| head`), and there is nobody left to tell
    mute_what_is_gone()
    sys.stdout.flush()
    print(f"{'interrupted' if isinstance(end, Interrupted) else 'error'}: {end}", file=sys.stderr)
    return end.exit_code


# -- verbs ---------------------------------------------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> None:
    with _counted(options, "prepare"):
        _prepare_counted(options)


def _prepare_counted(options: argparse.Namespace) -> None:
    from training.music.composing.demo import make_demo_corpus
    from training.stages.prepare import prepare
    from training.stages.summary import summary_of

    workspace = Workspace(options.out)
    audio_root, midi_root, val_split = options.audio_root, options.midi_root, options.val_split
    if audio_root is None and midi_root is None:
        if options.shard or options.merge or options.ray:
            raise UsageError("--shard, --merge and --ray need --midi-root (and --audio-root): the folders to prepare.")
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
    merge = options.merge
    if options.shard:
        if options.audit:
            raise UsageError("--audit looks at whole corpora: give it to the run with --merge, not to a --shard.")
        from training.stages.shards import prepare_shard, shard_of

        prepare_shard(workspace, audio_root, midi_root, shard_of(options.shard), labels_file=options.labels)
        return
    if options.ray:
        from training.stages.cluster import prepare_on_ray

        merge = prepare_on_ray(options.ray, workspace, audio_root, midi_root, labels_file=options.labels)
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
        merge=merge,
    )
    if options.audit:
        from training.stages.audit import audit

        audit(workspace, options.out_dir, midi_root=midi_root)


def _train(options: argparse.Namespace) -> None:
    from training.stages.train import train

    workspace = Workspace(options.out)
    recipe = _recipe(options, workspace)
    with _counted(options, "train", [options.family], fresh=options.resume == "never") as account:
        left, limit = _allowance(options, account)
        done = train(
            recipe,
            workspace,
            device=options.device,
            resume=options.resume,
            audio_root=options.audio_root,
            midi_root=options.midi_root,
            left=left,
            limit=limit,
            persist=options.persist,
        )
        from training.engine.state import OUT_OF_BUDGET

        if account is not None and done.finished == OUT_OF_BUDGET:
            account.ledger.note_ran_out()
    if account is not None:
        monitor = recipe.settings.training.early_stopping.monitor
        print(
            f"{recipe.title} {'was trained before' if done.already else 'is trained'}: {done.step} steps, {done.epoch} "
            f"epochs, {done.seconds:.0f} s ({done.finished}). Best {monitor} {done.metrics[monitor]:.4g}: "
            f"{workspace.relative(done.best)}; logs: {workspace.relative(done.run)}"
        )
        if not done.already:
            _refresh_report(workspace)


def _estimate(options: argparse.Namespace) -> None:
    from training.stages.estimate import estimate, show

    workspace = Workspace(options.out)
    account = Account(workspace, _limit(options), Seen(ledger_path(workspace)))
    recipe = _recipe(options, workspace)
    told = estimate(
        recipe,
        workspace,
        device=options.device,
        resume=options.resume,
        audio_root=options.audio_root,
        midi_root=options.midi_root,
        ending=lambda millions: account.kept_back([options.family], **{options.family: millions}),
    )
    if told is not None:
        others = [name for name in FAMILIES if name != options.family]
        show(told, account, options.family, options.families_left, others)


def _prove_resume(options: argparse.Namespace) -> None:
    from training.stages.prove_resume import prove_resume

    named = {
        "--preset": options.preset,
        "--config": options.config,
        "--epochs": options.epochs,
        "--seed": options.seed,
        "--device": options.device,
        "--audio-root": options.audio_root,
        "--midi-root": options.midi_root,
    }
    arguments = [f"{flag}={value}" for flag, value in named.items() if value is not None]
    arguments += [f"--set={assignment}" for assignment in options.set]
    prove_resume(
        options.family,
        Workspace(options.out),
        arguments,
        steps=options.steps,
        kills=options.kills,
        ranks=options.ranks,
        seed=options.kill_seed,
    )


def _allowance(options: argparse.Namespace, account: Account | None):
    """(seconds that this training may still use, seconds of the whole job), or (None, None) without a limit."""
    if options.max_hours is None and options.budget_usd is None:
        return None, None
    if account is None:  # the first rank counts for all
        return (lambda: math.inf), math.inf
    others = [name for name in FAMILIES if name != options.family]
    left = account.training_left(options.family, options.families_left, others)
    account.require_time(left(), [*FAMILIES])
    return left, round(account.seconds, 1)  # it is recorded and compared: no noise in its last digits


def _recipe(options: argparse.Namespace, workspace: Workspace):
    from training.models.registry import load_recipe
    from training.stages.summary import summary_of

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

    with _counted(options, "evaluate", [options.family]):
        evaluate(
            options.family,
            Workspace(options.out),
            checkpoint=options.checkpoint,
            device=options.device,
            audio_root=options.audio_root,
            midi_root=options.midi_root,
            share=options.rival_steps,
        )
    _refresh_report(Workspace(options.out))


def _export(options: argparse.Namespace) -> None:
    from training.stages.export import export

    workspace = Workspace(options.out)
    checkpoints = dict.fromkeys(options.families or FAMILIES)
    if options.checkpoint is not None:
        if len(options.families) != 1:
            raise UsageError("--checkpoint goes with exactly one family.")
        checkpoints[options.families[0]] = options.checkpoint
    with _counted(options, "export", list(checkpoints)) as account:
        export(
            checkpoints,
            workspace,
            folder=options.output_dir,
            audio_root=options.audio_root,
            midi_root=options.midi_root,
            cost=account.cost(list(checkpoints)) if account else None,
        )
    page = _refresh_report(workspace)
    if page is not None:
        print(f"Report: {workspace.relative(page)}")


def _verify(options: argparse.Namespace) -> None:
    from training.stages.verify import verify

    options.out = options.folder.absolute().parent
    if not ledger_path(Workspace(options.out)).exists():  # somebody else's exports: nothing here is counted
        verify(options.folder)
        return
    families = [family for family in FAMILIES if any(Workspace(options.out).checkpoints(family).glob("*.pt"))]
    with _counted(options, "verify", families):
        verify(options.folder)
    _refresh_report(Workspace(options.out))


def _budget(options: argparse.Namespace) -> None:
    path = ledger_path(Workspace(options.out))
    try:
        book = books.close(path) if options.done else books.read(path)
    except (OSError, ValueError) as error:
        raise HostError(f"{path} cannot be read: {error}. Move it away, and counting begins anew.") from None
    print(table(book or books.Book()))
    if options.done:
        _refresh_report(Workspace(options.out))


def _report(options: argparse.Namespace) -> None:
    from training.report.card import write_card
    from training.report.page import write_report

    workspace = Workspace(options.out)
    for path in (write_card(workspace), write_report(workspace)):
        if path is not None:
            print(f"Written: {workspace.relative(path)}")


def _watch(options: argparse.Namespace) -> None:
    from training.report.watch import watch

    watch(Workspace(options.out), once=options.once)


def _refresh_report(workspace: Workspace) -> Path | None:
    """The page tells of what was just done. No stage fails because of it."""
    from training.report.page import refresh

    return refresh(workspace)


def _restore(options: argparse.Namespace) -> None:
    from training.stages.persist import restore

    restore(Workspace(options.out), options.persist)


def _persist(options: argparse.Namespace) -> None:
    from training.stages.persist import persist

    persist(Workspace(options.out), options.persist)


def _doctor(options: argparse.Namespace) -> None:
    from training.stages.doctor import doctor

    _limit(options)
    doctor(
        Workspace(options.out),
        audio_root=options.audio_root,
        midi_root=options.midi_root,
        device=options.device,
        gpus=options.gpus,
    )


# -- what is counted -----------------------------------------------------------------------------------------------


def _limit(options: argparse.Namespace) -> Limit:
    return limit_of(options.max_hours, options.budget_usd, options.price_per_hour)


@contextmanager
def _counted(
    options: argparse.Namespace, stage: str, families: Sequence[str] = (), *, fresh: bool = False
) -> Iterator[Account | None]:
    """The stage's session in the ledger; None on all ranks but the first, which counts for all."""
    if os.environ.get("RANK", "0") != "0":
        yield None
        return
    with counted(Workspace(options.out), stage, families, _limit(options), fresh=fresh) as account:
        yield account


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
    verb.set_defaults(run=_doctor)

    verb = verbs.add_parser("prepare", parents=[roots, out, money], help="scan, pair, label, split and encode a corpus")
    add_manifest_options(verb)
    verb.set_defaults(run=_prepare)

    verb = verbs.add_parser("train", parents=[roots, out, device, money], help="train one model family, or continue")
    verb.add_argument("family", choices=FAMILIES)
    add_train_options(verb)
    _add_persist(verb, required=False)
    verb.set_defaults(run=_train)

    verb = verbs.add_parser(
        "estimate", parents=[roots, out, device, money], help="what a training would take, by a few of its real steps"
    )
    verb.add_argument("family", choices=FAMILIES)
    add_train_options(verb)
    verb.set_defaults(run=_estimate)

    verb = verbs.add_parser(
        "prove-resume",
        parents=[roots, out, device],
        help="kill a short run again and again; compare it with a straight one",
    )
    verb.add_argument("family", choices=FAMILIES)
    verb.add_argument("--steps", type=_count, default=30, metavar="N", help="of both runs (default: 30)")
    verb.add_argument("--kills", type=_count, default=3, metavar="K", help="kill -9, at random moments (default: 3)")
    verb.add_argument("--ranks", type=_count, default=1, metavar="R", help="processes that train together (default: 1)")
    verb.add_argument("--kill-seed", type=int, metavar="N", help="the same moments once more (default: others)")
    add_train_options(verb)
    verb.set_defaults(run=_prove_resume)

    verb = verbs.add_parser("evaluate", parents=[roots, out, device, money], help="held-out metrics beside baselines")
    verb.add_argument("family", choices=FAMILIES)
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the family's best.pt")
    verb.add_argument(
        "--rival-steps", type=_share, default=0.2, metavar="SHARE",
        help="of the model's own steps, for models trained only to be compared with it (default: 0.2, going on from "
        "its weights; 1: as long as it, from the start)",
    )  # fmt: skip
    verb.set_defaults(run=_evaluate)

    verb = verbs.add_parser("export", parents=[roots, out, money], help="write ONNX, int8, CoreML, weights, goldens")
    verb.add_argument("families", nargs="*", metavar="FAMILY", help=f"{', '.join(FAMILIES)} (default: all)")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: each family's best.pt")
    verb.add_argument("--output-dir", type=Path, metavar="DIR", help="default: exports/ under --out")
    verb.set_defaults(run=_export)

    verb = verbs.add_parser("verify", parents=[money], help="prove exported files against golden files and receipt")
    verb.add_argument("folder", type=Path, metavar="DIR", help="a folder that `export` wrote")
    verb.set_defaults(run=_verify)

    verb = verbs.add_parser("restore", parents=[out], help="bring back what an earlier host left in a second place")
    _add_persist(verb, required=True)
    verb.set_defaults(run=_restore)

    verb = verbs.add_parser("persist", parents=[out], help="copy what matters to a second place, and verify it")
    _add_persist(verb, required=True)
    verb.set_defaults(run=_persist)

    verb = verbs.add_parser("watch", parents=[out], help="how the job stands: progress, losses, budget, GPUs")
    verb.add_argument("--once", action="store_true", help="tell it one time, as in a pipe")
    verb.set_defaults(run=_watch)

    verb = verbs.add_parser(
        "report", parents=[out], help="write exports/report.html and the model card anew, from what is there"
    )
    verb.set_defaults(run=_report)

    verb = verbs.add_parser("budget", parents=[out], help="what the job has used, by stage, and what is left")
    verb.add_argument("--done", action="store_true", help="the job is over: what is started next is another one's")
    verb.set_defaults(run=_budget)
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
