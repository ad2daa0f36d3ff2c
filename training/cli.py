"""What each verb does with its flags (flags.py), by the stages. torch is imported by the stage that needs it."""

from __future__ import annotations

import argparse
import json
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
from training.budget.limit import Limit, limit_of
from training.console import mute_what_is_gone
from training.domain import Job
from training.engine.process.heartbeat import note_crash
from training.engine.process.signals import listen, stopped
from training.errors import AthanorError, HostError, Interrupted, UsageError
from training.flags import data_options, parser_of
from training.registry import domains, require_one_model
from training.stages.run_names import exported, left_out, others, require_trained, trained_runs
from training.workspace import Workspace


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (training/errors.py)."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser_of(VERBS, words).parse_args(words)
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
    from training.stages.prepare import prepare

    common = {name: getattr(options, name) for name in ("val_split", "shard", "merge", "ray")}
    prepare(options.of, Job(Workspace(options.out), data_options(options) | common, options.seed))


def _train(options: argparse.Namespace) -> None:
    from training.engine.loop.progress import OUT_OF_BUDGET
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
            options=data_options(options),
            left=left,
            limit=limit,
            persist=options.persist,
        )
        if account is not None and done.finished == OUT_OF_BUDGET:
            account.ledger.note_ran_out()
    if account is not None:
        monitor = recipe.settings.training.early_stopping.monitor
        print(
            f"{recipe.title} {'was trained before' if done.already else 'is trained'}: {done.step} steps, {done.epoch} "
            f"epochs, {done.seconds:.0f} s ({done.finished}). Best {monitor} {done.metrics[monitor]:.4g}: "
            f"{workspace.relative(done.best)}; logs: {workspace.relative(done.run)}"
        )
        if done.finished == OUT_OF_BUDGET:
            print("To train further from here: the same command with a larger --max-hours or --budget-usd.")
        if not done.already:
            _refresh_report(workspace)


def _estimate(options: argparse.Namespace) -> None:
    from training.stages.estimate import estimate, show

    workspace = Workspace(options.out)
    account = Account(workspace, _limit(options), Seen(ledger_path(workspace)))
    recipe = _recipe(options, workspace)
    found = estimate(
        recipe,
        workspace,
        device=options.device,
        resume=options.resume,
        options=data_options(options),
        ending=lambda millions: account.kept_back([options.family], **{options.family: millions}),
    )
    if found is not None:
        rest = others(options.of, workspace, options.family)
        show(found, account, options.family, options.families_left, rest)


def _prove_resume(options: argparse.Namespace) -> None:
    require_one_model(options.family)
    from training.stages.prove_resume import prove_resume

    named = {
        "--preset": options.preset,
        "--config": options.config,
        "--epochs": options.epochs,
        "--seed": options.seed,
        "--device": options.device,
    }
    named |= {option.flag: value for option in options.of.options
              if (value := getattr(options, option.attribute, None)) is not None and option.kind != "flag"}  # fmt: skip
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
    rest = others(options.of, account.workspace, options.family)
    left = account.training_left(options.family, options.families_left, rest)
    account.require_time(left(), [options.family, *rest])
    return left, round(account.seconds, 1)  # it is recorded and compared: no noise in its last digits


def _recipe(options: argparse.Namespace, workspace: Workspace):
    from training.data.summary import summary_of
    from training.registry import load_recipe

    require_one_model(options.family)
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

    require_one_model(options.family)

    with _counted(options, "evaluate", [options.family]):
        evaluate(
            options.family,
            Workspace(options.out),
            checkpoint=options.checkpoint,
            device=options.device,
            options=data_options(options),
            share=options.baseline_steps,
            test=options.test,
        )
    _refresh_report(Workspace(options.out))


def _export(options: argparse.Namespace) -> None:
    from training.stages.export import export

    workspace = Workspace(options.out)
    checkpoints = dict.fromkeys(exported(options.of, options.families, workspace))
    if not options.families:
        require_trained(checkpoints, workspace)
    if options.checkpoint is not None:
        if len(checkpoints) != 1 or not options.families:
            raise UsageError("--checkpoint goes with exactly one family.")
        checkpoints[next(iter(checkpoints))] = options.checkpoint
    with _counted(options, "export", list(checkpoints)) as account:
        export(
            checkpoints,
            workspace,
            folder=options.output_dir,
            options=data_options(options),
            cost=account.cost(list(checkpoints)) if account else None,
        )
    for note in left_out(options.of, workspace, checkpoints):
        print(f"NOTE: {note}")
    page = _refresh_report(workspace)
    if page is not None:
        print(f"Report: {workspace.relative(page)}")


def _verify(options: argparse.Namespace) -> None:
    from training.stages.verify import verify

    options.out = options.folder.absolute().parent
    if not ledger_path(Workspace(options.out)).exists():  # somebody else's exports: nothing here is counted
        verify(options.folder)
        return
    trained = trained_runs(Workspace(options.out))
    with _counted(options, "verify", trained):
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
        Workspace(options.out), options.of, data_options(options), device=options.device, gpus=options.gpus
    )  # fmt: skip


def _each(options: argparse.Namespace) -> None:
    from training.stages.fan_out import each

    words, left = list(options.words), 1
    if "--families-left" in words:
        at = words.index("--families-left")
        left = int(words[at + 1])
        del words[at : at + 2]
    if "--out" in words:  # of the verb: the same folder
        at = words.index("--out")
        options.out = Path(words[at + 1])
        del words[at : at + 2]
    each(
        options.of, options.family, Workspace(options.out), options.verb, words, at_once=options.at_once,
        others_left=left - 1,
    )  # fmt: skip


def _node(options: argparse.Namespace) -> None:
    from training.stages.nodes import run_nodes

    known = data_options(options)
    job = Job(Workspace(options.out), known, options.seed)
    words = ["--out", str(options.out), "--seed", str(options.seed), "--domain", options.of.word]
    for option in options.of.options:
        value = known[option.attribute]
        if value is not None and "node" in option.verbs:
            words += [option.flag] if option.kind == "flag" else [option.flag, str(value)]
    with _counted(options, "node"):
        run_nodes(options.of, options.nodes, job, words, at_once=options.at_once, ray=options.ray)
    _refresh_report(Workspace(options.out))


def _plan(options: argparse.Namespace) -> None:
    from training.runner.options import help_of, parse
    from training.runner.plan import plan_of

    command = parse(options.words, domains(), checking=not {"--help", "-h"} & set(options.words))
    print(help_of(command.domain, domains()) if command.help else json.dumps(plan_of(command).plain(), indent=1))


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


# -- doors ---------------------------------------------------------------------------------------------------------

VERBS = {
    "plan": _plan,
    "doctor": _doctor,
    "prepare": _prepare,
    "train": _train,
    "estimate": _estimate,
    "prove-resume": _prove_resume,
    "each": _each,
    "node": _node,
    "evaluate": _evaluate,
    "export": _export,
    "verify": _verify,
    "restore": _restore,
    "persist": _persist,
    "watch": _watch,
    "report": _report,
    "budget": _budget,
}


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
