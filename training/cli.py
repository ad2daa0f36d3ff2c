"""The command line `python -m training VERB`: calls the stage of each verb with its flags (flags.py). torch is imported
only by the stages that need it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from training import console
from training.budget import book as books
from training.budget.account import ledger_path, plain, table
from training.domain import Job
from training.engine.process.heartbeat import note_crash
from training.engine.process.signals import follow_parent, interrupt_on_signals, stopped
from training.errors import AthanorError, HostError, Interrupted, UsageError
from training.flags import COMMAND, attribute_of, data_options, parser_of
from training.registry import domain, domains, require_one_model
from training.stages.command_budget import allowance, command_limit, counted_stage, time_host
from training.stages.command_recipe import recipe_of
from training.stages.outputs import environment_error, require_out
from training.stages.run_names import exported, left_out, require_trained, trained_runs
from training.workspace import PROJECT, Workspace


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (training/errors.py)."""
    console.keep_console()
    words = sys.argv[1:] if arguments is None else arguments
    options = parser_of(VERBS, words).parse_args(words)
    before = interrupt_on_signals()
    try:
        code = _run(options)
    except Interrupted as error:  # a signal arrived while the last lines were printed
        code = error.exit_code
    for number, handler in before.items():
        signal.signal(number, handler)
    return code


def _run(options: argparse.Namespace) -> int:
    try:
        follow_parent()
        verb = next(verb for verb, run in VERBS.items() if run is options.run)
        require_out(verb, getattr(options, "out", None), getattr(options, "output_dir", None))
        options.run(options)
        return 0
    except (AthanorError, Interrupted) as error:
        end: AthanorError | Interrupted | None = stopped(error) or error
    except Exception as error:
        end = stopped(error) or environment_error(error)
        if end is None:
            note_crash(error)
            raise
    sys.stdout.flush()
    print(f"{'interrupted' if isinstance(end, Interrupted) else 'error'}: {end}", file=sys.stderr)
    return end.exit_code


# -- verbs ---------------------------------------------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> None:
    with counted_stage(options, "prepare"):
        _prepare_counted(options)


def _prepare_counted(options: argparse.Namespace) -> None:
    from training.stages.prepare import prepare

    common = {name: getattr(options, name) for name in ("val_split", "shard", "merge", "ray")}
    prepare(options.of, Job(Workspace(options.out), data_options(options) | common, options.seed))


def _fetch(options: argparse.Namespace) -> None:
    from training.stages.fetch import fetch

    fetch(options.address, options.folder)


def _publish_shards(options: argparse.Namespace) -> None:
    from training.stages.shared_shards import publish_shards

    publish_shards(options.of, Workspace(options.out), options.address)


def _fetch_shards(options: argparse.Namespace) -> None:
    from training.stages.shared_shards import fetch_shards

    fetch_shards(options.of, Workspace(options.out), options.address, options.shards_gb)


def _inspect(options: argparse.Namespace) -> None:
    from training.stages.inspect import inspect

    job = Job(Workspace(PROJECT), data_options(options), seed=0)
    inspect(options.of, job, options.files, as_json=options.json)


def _train(options: argparse.Namespace) -> None:
    from training.engine.loop.progress import OUT_OF_BUDGET, OUT_OF_TIME
    from training.stages.train import train

    workspace = Workspace(options.out)
    recipe = recipe_of(options, workspace)
    time_host(options, workspace)
    with counted_stage(options, "train", [options.family], fresh=options.resume == "never") as account:
        left, limit = allowance(options, account)
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
        if done.finished == OUT_OF_TIME:
            print("To train further from here: the same command with --set training.max_minutes=null, or a larger one.")
        if not done.already:
            _refresh_report(workspace)


def _estimate(options: argparse.Namespace) -> None:
    from training.stages.command_estimate import estimate_command

    estimate_command(options, data_options(options), recipe_of)


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


def _evaluate(options: argparse.Namespace) -> None:
    from training.stages.evaluate import evaluate

    require_one_model(options.family)

    with counted_stage(options, "evaluate", [options.family]):
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
    with counted_stage(options, "export", list(checkpoints)) as account:
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
    with counted_stage(options, "verify", trained):
        verify(options.folder)
    _refresh_report(Workspace(options.out))


def _budget(options: argparse.Namespace) -> None:
    path = ledger_path(Workspace(options.out))
    try:
        book = books.close(path) if options.done else books.read(path)
    except ValueError as error:
        raise HostError(f"{path} cannot be read: {error}. Move it away; time is then counted from zero.") from None
    print(json.dumps(plain(book or books.Book())) if options.json else table(book or books.Book()))
    _require_printed()
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
    """Write the report page again after a stage; returns its path, or None if that failed, which fails no stage."""
    from training.report.page import refresh

    return refresh(workspace)


def _restore(options: argparse.Namespace) -> None:
    if options.from_wandb is not None:
        from training.stages.from_wandb import restore_from_wandb

        restore_from_wandb(Workspace(options.out), options.from_wandb)
        return
    from training.stages.persist import restore

    restore(Workspace(options.out), options.persist)


def _persist(options: argparse.Namespace) -> None:
    from training.stages.persist import persist

    persist(Workspace(options.out), options.persist)


def _doctor(options: argparse.Namespace) -> None:
    from training.stages.check_settings import require_settings
    from training.stages.doctor import doctor

    command_limit(options)
    doctor(
        Workspace(options.out), options.of, data_options(options),
        device=options.device, gpus=options.gpus, as_json=options.json,
    )  # fmt: skip
    for family in dict.fromkeys(family for family, _ in options.set):
        require_settings(family, options.preset, [change for one, change in options.set if one == family])
    _require_printed()


def _each(options: argparse.Namespace) -> None:
    from training.stages.fan_out import each

    # of the verb's options, those that are this command's, too
    own = argparse.ArgumentParser(prog=f"python -m training each {options.verb}", add_help=False, allow_abbrev=False)
    own.add_argument("--families-left", type=int, default=1)
    own.add_argument("--out", type=Path, default=options.out)
    given, words = own.parse_known_args(options.words)
    options.out = given.out
    each(
        options.of, options.family, Workspace(options.out), options.verb, words, at_once=options.at_once,
        others_left=given.families_left - 1,
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
    with counted_stage(options, "node"):
        run_nodes(options.of, options.nodes, job, words, at_once=options.at_once, ray=options.ray)
    _refresh_report(Workspace(options.out))


def _command(options: argparse.Namespace) -> None:
    """A command of a domain."""
    from training.stages.domain_command import run_command

    given = {option.attribute: getattr(options, attribute_of(option)) for option in options.command.options}
    given |= {"out": options.written} if options.command.writes else {}
    run_command(domain(options.word), options.command, Workspace(options.out), given, options.device, options.words)


def _plan(options: argparse.Namespace) -> None:
    from training.runner.options import help_of, parse
    from training.runner.plan import plan_of

    command = parse(options.words, domains(), checking=not {"--help", "-h"} & set(options.words))
    print(help_of(command.domain, domains()) if command.help else json.dumps(plan_of(command).plain(), indent=1))
    _require_printed()


def _require_printed() -> None:
    """For verbs whose result is what they print. Raises HostError where a disk did not take it."""
    sys.stdout.flush()
    error = console.failure(1)
    if error is not None:
        raise HostError(f"The result was not written to standard output: {error.strerror}. Make room and run it again.")


# -- commands ------------------------------------------------------------------------------------------------------

VERBS = {
    "plan": _plan,
    "doctor": _doctor,
    "prepare": _prepare,
    "train": _train,
    "estimate": _estimate,
    "prove-resume": _prove_resume,
    "fetch": _fetch,
    "publish-shards": _publish_shards,
    "fetch-shards": _fetch_shards,
    "inspect": _inspect,
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
    COMMAND: _command,
}
