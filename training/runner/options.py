"""Parses the command line of train_cuda.sh, `[WORD] [options]`, into a Command. Uses the standard library only, and is
quick to import."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.objects.address import Address, is_url
from training.domain import PRESETS, Domain
from training.errors import HostError, UsageError
from training.option import Option
from training.runner.fetched import Fetched, PublishedShards, add_shards, given, parts_of, shards_of
from training.runner.parser import Formatter, Parser, wrapped
from training.runner.unknown import unknown_domain, unknown_word
from training.runner.values import (
    absolute,
    amount,
    assignment,
    count,
    default_out,
    moment,
    number,
    second_place,
    text,
)
from training.wandb_address import WandbRun

JOB = "ATHANOR_JOB"  # environment variable: the domain's word, if the command gives none
PARTS = ("prepare", "train", "export")  # of a job, for --only
ONLY = "only"

ABOUT = """\
Prepares the data, trains its model families, exports them, and verifies every exported file. Without data options it
trains on small demo data that it makes itself (all results say so). Running the same command again continues where it
stopped."""

CODES = """\
A training that crashed, hung or was killed is started again and continues from its newest checkpoint: after 5, 15, 45
and 120 s, at most 4 times without progress (ATHANOR_RESTARTS, ATHANOR_RESTART_PAUSES), never for an error that would
repeat.
The first Ctrl-C or SIGTERM saves and stops; a second one ends everything at once.

Exit codes: 0 all done and verified, 2 wrong usage or configuration, 3 data refused, 4 an export is missing or differs,
5 training failed, 6 the environment (no GPU, no disk, folder in use), 75 interrupted with everything saved: run the
same command again.

Environment variables can be used instead of options, for pods and Compose:
{variables}.
docs/docker.md lists the variables of Docker mode."""


@dataclass(frozen=True)
class Command:
    """The options of one call of the runner. Paths are absolute."""

    domain: Domain
    options: Mapping[str, Any]  # the domain's, by attribute
    out: str
    preset: str | None = None
    epochs: int | None = None
    seed: int | None = None
    set: tuple[tuple[str | None, str], ...] = ()  # (family or None: each, KEY=VALUE)
    resume: str | None = None
    cpu: bool = False
    gpus: int | None = None
    mode: str = ""  # docker, native, or "": Docker if an engine is running, else native
    nnodes: int | None = None
    node_rank: int | None = None
    master_addr: str | None = None
    master_port: int = 29500
    ray: str | None = None
    skip_build: bool = False
    skip: frozenset[str] = frozenset()  # names of nodes
    only: str | None = None
    max_hours: str | None = None
    budget_usd: str | None = None
    price_per_hour: str | None = None
    estimate: bool = False
    persist: str | None = None
    fetched: tuple[Fetched, ...] = ()
    shards: PublishedShards | None = None  # instead of preparing data
    session_ends: int | None = None  # when this host ends, in seconds since 1970
    wandb: str | None = None  # a project of Weights & Biases
    from_wandb: tuple[WandbRun, ...] = ()  # runs of Weights & Biases, whose trained models are used
    dry_run: bool = False
    help: bool = False

    @property
    def uses_store(self) -> bool:
        """Whether it needs the client of object stores."""
        return bool(self.fetched or self.shards) or (self.persist is not None and is_url(self.persist))

    @property
    def money(self) -> list[str]:
        """The options of the budget, as they are passed to the stages."""
        named = {
            "--max-hours": self.max_hours,
            "--budget-usd": self.budget_usd,
            "--price-per-hour": self.price_per_hour,
        }
        return [word for flag, value in named.items() if value for word in (flag, value)]


def parse(words: Sequence[str], known: Mapping[str, Domain], *, checking: bool = True) -> Command:
    """Parse a command. `checking`: whether named folders must exist (false in a container where they are not mounted
    yet). Raises UsageError, HostError for a folder that cannot be reached."""
    given = list(words)
    word = os.environ.get(JOB) or next(iter(known))
    if given and not given[0].startswith("-"):
        word = given.pop(0)
    if word not in known:
        raise UsageError(unknown_domain(word, known))
    domain = known[word]
    parser = parser_of(domain)
    parsed, unknown = parser.parse_known_args(given)
    if unknown:
        raise UsageError(unknown_word(unknown, domain, parser.flags(), known))
    values = vars(parsed)
    out = absolute(values.pop("out") or os.environ.get("ATHANOR_OUT") or default_out())
    fetched: list[Fetched] = []
    values["shards"] = shards_of(domain, values)
    values |= parts_of(domain, values)
    options = {option.attribute: _value(option, values.pop(option.attribute), checking, out, fetched)
               for option in domain.options if option.runner and option.name != ONLY}  # fmt: skip
    for option in domain.options:
        options.setdefault(option.attribute, None)
    skip = {name for name in names_of(domain) if values.pop(_skip_attribute(name), False)}
    skip |= set(values.pop("skip") or ())
    if values[ONLY] is not None and values[ONLY] not in PARTS:
        if _has_only(domain) and not {name.strip() for name in values[ONLY].split(",")} & {*_families(domain)}:
            options[ONLY] = values[ONLY]
        else:
            skip |= _other_families(domain, values[ONLY])
        values[ONLY] = None
    persist = values.pop("persist") or os.environ.get("ATHANOR_PERSIST") or None
    if persist is not None:
        persist = str(Address.parse(persist)) if is_url(persist) else second_place(absolute(persist), checking)
    for family, setting in values["set"]:
        if family not in (None, *_families(domain)):
            raise UsageError(f"--set {family}:{setting}: {domain.word} has no model {family}, but "
                             f"{', '.join(_families(domain))}.")  # fmt: skip
    values["set"] = (*_wandb(values["wandb"]), *values["set"])
    values["from_wandb"] = tuple(map(WandbRun.parse, values["from_wandb"]))
    values["session_ends"] = moment(values["session_ends"] or os.environ.get("ATHANOR_SESSION_ENDS") or None)
    for name in ("max_hours", "budget_usd", "price_per_hour"):
        values[name] = amount(name, values[name] or os.environ.get(f"ATHANOR_{name.upper()}") or None)
    command = Command(domain=domain, options=options, out=out, persist=persist, skip=frozenset(skip),
                      fetched=tuple(fetched), **values)  # fmt: skip
    _check_together(command)
    return command


def parser_of(domain: Domain) -> Parser:
    """The parser for commands about one domain."""
    parser = Parser(
        prog=f"./train_cuda.sh {domain.word}", add_help=False, allow_abbrev=False,
        description=f"{domain.sentence}\n\n{ABOUT}", epilog=CODES.format(variables=wrapped(variables(domain))),
        usage=argparse.SUPPRESS, formatter_class=Formatter,
    )  # fmt: skip
    group = parser.add_argument_group("data", "paths may be URLs (s3://, gs://, az://): they are fetched first")
    for option in domain.options:
        if option.runner and option.name != ONLY:
            add_option(group, option)
    add_shards(group)
    group = parser.add_argument_group("run")
    group.add_argument("--out", metavar="DIR", type=text, help="where everything is written (default: this folder)")
    group.add_argument(
        "--preset", choices=PRESETS,
        help="full: a 24 GB GPU (default); small: half an hour on two cores; demo: minutes (default on demo data); "
        "debug: seconds, learns nothing",
    )  # fmt: skip
    group.add_argument("--epochs", type=count(1), metavar="N", help="train each model for N epochs")
    group.add_argument(
        "--seed", type=count(0), metavar="N", help="seed of the split, the data order and the weights (default: 42)"
    )
    group.add_argument(
        "--set", action="append", default=[], type=assignment, metavar="[MODEL:]KEY=VALUE",
        help="change one setting of each model, or of MODEL alone; may be repeated. training/cuda_session/ has a file "
        "of all settings for each model",
    )  # fmt: skip
    group.add_argument(
        "--resume", choices=("auto", "never"),
        help="auto: continue an interrupted run (default); never: start a new one, the old one is kept aside",
    )  # fmt: skip
    group.add_argument("--cpu", action="store_true", help="do not use a GPU")
    group.add_argument("--gpus", type=count(1), metavar="N", help="use N GPUs of this host (fails if there are fewer)")
    group.add_argument(
        "--wandb", metavar="PROJECT", type=text,
        help="log to this project of Weights & Biases (key: WANDB_API_KEY; WANDB_MODE=offline: on this disk only)",
    )  # fmt: skip
    group.add_argument(
        "--from-wandb", action="append", default=[], metavar="RUN", type=text,
        help="use the trained model of this run of Weights & Biases, ENTITY/PROJECT/RUN, where none newer is here; may "
        "be repeated. RUN@SHA256: only if its checkpoint has this SHA-256",
    )  # fmt: skip
    mode = group.add_mutually_exclusive_group()
    where = (
        "(default: Docker where an engine answers; inside a container, or with ATHANOR_PYTHON or ATHANOR_VENV, native)"
    )
    mode.add_argument("--docker", dest="mode", action="store_const", const="docker", default="", help="in containers")
    mode.add_argument(
        "--native", dest="mode", action="store_const", const="native", help=f"in an environment of this host {where}"
    )
    _add_hosts(parser)
    _add_left_out(parser, domain)
    _add_money(parser)
    group = parser.add_argument_group("hosts that may be lost")
    group.add_argument(
        "--persist", metavar="DIR|URL", type=text,
        help="keep verified copies of all that matters in DIR, which may be slow or a network drive, or in an object "
        "store (s3://BUCKET/PREFIX, gs://..., az://...: docs/object-stores.md); a new host continues from there",
    )  # fmt: skip
    group.add_argument(
        "--session-ends", metavar="TIME", type=text,
        help="when this host will be taken away (18:30, or with a date: 2026-12-01T18:30): what runs then saves and "
        "stops, is copied to --persist, and this command ends with 75. Name a time some minutes earlier",
    )  # fmt: skip
    group = parser.add_argument_group("other")
    group.add_argument("--dry-run", action="store_true", help="print the exact commands, run nothing")
    group.add_argument("--help", "-h", action="store_true", help="this text")
    return parser


def help_of(domain: Domain, known: Mapping[str, Domain]) -> str:
    """The text of --help."""
    words = "\n".join(f"  {one.word:<8} {one.sentence}" for one in known.values())
    parts = (
        "Usage: ./train_cuda.sh [WORD] [options]", f"For example: {domain.demo_text().next}",
        f"WORD, default {next(iter(known))} (or {JOB}):\n{words}", parser_of(domain).format_help(),
    )  # fmt: skip
    return "\n\n".join(parts)


def _add_hosts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several hosts (docs/rented-hosts.md); the same command on each, but --node-rank")
    group.add_argument("--nnodes", type=count(1), metavar="N", help="how many hosts train together")
    group.add_argument(
        "--node-rank", type=count(0), metavar="K", help="which one this is; 0 also evaluates and exports"
    )
    group.add_argument("--master-addr", metavar="HOST", type=text, help="where the host of rank 0 is reached")
    group.add_argument("--master-port", type=count(1), default=29500, metavar="PORT", help="(default: 29500)")
    group.add_argument(
        "--ray", metavar="ADDRESS", type=text, help="prepare, and run a domain's nodes, on a Ray cluster"
    )


def _add_left_out(parser: argparse.ArgumentParser, domain: Domain) -> None:
    group = parser.add_argument_group("leave out a stage")
    group.add_argument("--skip-build", action="store_true", help="use the image or the environment as it is")
    names = names_of(domain)
    for name, flag in names.items():
        group.add_argument(flag, dest=_skip_attribute(name), action="store_true", help=argparse.SUPPRESS)
    group.add_argument(
        "--skip", action="append", choices=tuple(names), metavar="NODE",
        help=f"one of {', '.join(names)} (also: {' '.join(names.values())})",
    )  # fmt: skip
    group.add_argument(
        "--only", metavar="PART|A,B", type=text,
        help=f"only this part of the job ({', '.join(PARTS)}), as Compose's services do; or only these models, and "
        "those that combine several of them"
        + "".join(f"; or {one.help}" for one in domain.options if one.name == ONLY),
    )  # fmt: skip


def _add_money(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what it may cost, counted over all stages and restarts of a job (runs/budget.json); it ends in verified "
        "exports"
    )
    group.add_argument("--max-hours", metavar="H", type=text, help="end within H hours")
    group.add_argument(
        "--budget-usd", metavar="X", type=text, help="end before X dollars are spent; the stricter counts"
    )
    group.add_argument(
        "--price-per-hour", metavar="Y", type=text,
        help="what an hour costs, all GPUs and hosts together (default: by the GPU's name)",
    )  # fmt: skip
    group.add_argument(
        "--estimate", action="store_true",
        help="prepare, time a few real steps of each model, print hours and cost, and end without training",
    )  # fmt: skip


def add_option(group: Any, option: Option) -> None:
    """Add an option of a domain, with the type of its value."""
    about = option.help + (f" (or {option.environment})" if option.environment else "")
    if option.kind == "flag":
        group.add_argument(option.flag, dest=option.attribute, action="store_true", default=None, help=about)
    elif option.kind == "choice":
        group.add_argument(option.flag, dest=option.attribute, choices=option.choices, help=about)
    else:
        kind = option.without_label(number if option.kind == "number" else text)
        group.add_argument(option.flag, dest=option.attribute, type=kind, metavar=option.placeholder, help=about)


def names_of(domain: Domain) -> dict[str, str]:
    """Part of a job that a command can leave out (prepare, a family, a node, export) -> the flag for it."""
    families = {facts.name: facts.skip for facts in domain.families}
    nodes = {node.name: f"--skip-{node.name}" for node in domain.nodes()}
    return {"prepare": "--skip-manifests", **families, **nodes, "export": "--skip-export"}


def variables(domain: Domain) -> list[str]:
    """The environment variables that can be used instead of options."""
    own = [option.environment for option in domain.options if option.environment and option.runner]
    common = ("OUT", "PERSIST", "SESSION_ENDS", "MAX_HOURS", "BUDGET_USD", "PRICE_PER_HOUR", "JOB")
    return [*own, *(f"ATHANOR_{name}" for name in common)]


# -- values --------------------------------------------------------------------------------------------------------


def _families(domain: Domain) -> list[str]:
    return [facts.name for facts in domain.families]


def _has_only(domain: Domain) -> bool:
    """Whether the domain has an option `only` too, for a part of its data: it gets values that name no family."""
    return any(option.name == ONLY for option in domain.options)


def _other_families(domain: Domain, only: str) -> set[str]:
    """The families that --only leaves out. Raises UsageError for an unknown name."""
    wanted = {name.strip() for name in only.split(",")}
    known = _families(domain)
    if unknown := sorted(wanted - {*known}):
        raise UsageError(
            f"--only {only}: there is no {unknown[0]}. It is one part of the job ({', '.join(PARTS)}) or models: "
            f"{', '.join(known)}."
        )
    combined = {facts.name for facts in domain.families if len(wanted & {*facts.uses}) > 1}
    return {*known} - wanted - combined


def _wandb(project: str | None) -> tuple[tuple[None, str], ...]:
    """The settings that log to a project."""
    mode = "offline" if os.environ.get("WANDB_MODE") == "offline" else "online"
    return () if project is None else ((None, f"logging.wandb={mode}"), (None, f"logging.wandb_project={project}"))


def _skip_attribute(name: str) -> str:
    return f"skip {name}"


def _value(option: Option, value: Any, checking: bool, out: str, fetched: list[Fetched]) -> Any:
    if value is None:
        value = given(option, {})
        if value is not None and option.kind == "number":
            value = number(value)
    if value is None or not option.mounted:
        return option.default if value is None else value
    if is_url(value) and option.parts:
        return option.default  # see parts_of
    if is_url(value):
        fetched.append(Fetched.of(option, Address.parse(value), out))
        return fetched[-1].path
    value = absolute(value)
    if checking:
        try:
            is_one = {"folder": Path(value).is_dir(), "file": Path(value).is_file()}
            there = any(is_one.values()) if option.kind == "path" else is_one[option.kind]
        except PermissionError:
            raise HostError(
                f"{option.flag} '{value}' cannot be reached: uid {os.geteuid()} may not enter a folder above it. Make "
                "it accessible: chmod a+rX on each of them."
            ) from None
        if not there:
            gone = " (a link to something that is not there)" if Path(value).is_symlink() else ""
            wanted = "file or folder" if option.kind == "path" else option.kind
            raise UsageError(f"{option.flag} '{value}' is not a {wanted}{gone}.")
    return value


def _check_together(command: Command) -> None:
    if command.cpu and command.gpus is not None:
        raise UsageError("--cpu and --gpus exclude each other.")
    if command.nnodes is not None:
        if command.node_rank is None or command.master_addr is None:
            raise UsageError("--nnodes needs --node-rank and --master-addr.")
        if command.node_rank >= command.nnodes:
            raise UsageError(
                f"--node-rank counts from 0: with --nnodes {command.nnodes} it is at most {command.nnodes - 1}."
            )
    elif command.node_rank is not None or command.master_addr is not None:
        raise UsageError("--node-rank and --master-addr go with --nnodes.")
