"""The verbs and their flags: names, defaults, and the texts of `--help`. cli.py runs them.

The options of a domain (option.Option) are added to the verbs that take them. The domain of a command is determined
from its words: `--domain WORD`, else the domain of the family that it names, else the first of the registry.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.budget.limit import amount
from training.domain import PRESETS, Domain
from training.flag_values import KINDS, absolute, address, assignment, count, persist_target, run_name, share, wandb_run
from training.option import Option
from training.registry import domains, families, family_of
from training.workspace import PROJECT

COMMAND = "a command of a domain"  # the key of the function that runs those of `Domain.commands`
FAN_OUT = ("train", "evaluate")  # verbs that `each` runs for every item of a family


def domain_of(words: Sequence[str]) -> Domain:
    """The domain that a command line is about."""
    known = domains()
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--domain":
            value = value if equals else (words[at + 1] if at + 1 < len(words) else "")
            if value in known:
                return known[value]
    if len(words) > 1 and words[1] in known:  # `inspect WORD ...`, or a command of that domain
        named = {"inspect", *(command.name for command in known[words[1]].commands())}
        if words[0] in named:
            return known[words[1]]
    named = {family_of(word) for word in words if not word.startswith("-")}
    for domain in known.values():
        if any(facts.name in named for facts in domain.families):
            return domain
    return next(iter(known.values()))


class Verbs:
    """The parser of `python -m training`, for commands about one domain. Parsed options have `run`, the function of the
    verb, and `of`, the domain."""

    def __init__(self, runs: Mapping[str, Callable[[argparse.Namespace], None]], domain: Domain):
        self.domain = domain
        self.parser = argparse.ArgumentParser(
            prog="python -m training",
            description="One command a step of a job: data in; trained, verified, exported models out.",
            epilog="Exit codes: 0 done, 2 usage, 3 data refused, 4 export differs, 5 training failed, 6 environment, "
            "75 interrupted with everything saved.",
        )
        self.verbs = self.parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        self.out, self.device, self.money = _out(), _device(), _money()
        self._of_data()
        self._of_training()
        self._of_exports()
        self._of_jobs()
        self._of_domains()
        for name, verb in self.verbs.choices.items():
            verb.set_defaults(run=runs.get(name, runs[COMMAND]), of=domain)

    def _add(self, name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        verb = self.verbs.add_parser(name, parents=list(parents), help=text, description=_sentence(text))
        add_domain_options(verb, self.domain, name)
        return verb

    def _family(self, verb: argparse.ArgumentParser) -> None:
        verb.add_argument("family", type=run_name, metavar="FAMILY", help=f"{', '.join(families())}; or FAMILY/ITEM")

    def _of_data(self) -> None:
        verb = self._add("doctor", "check this host: what is missing", self.out, self.device, self.money)
        verb.add_argument("--gpus", type=int, metavar="N", help="how many GPUs the run is going to use")
        verb.add_argument("--json", action="store_true", help="as JSON, for programs")
        verb.add_argument("--preset", choices=PRESETS, help="of the trainings whose settings --set changes")
        verb.add_argument(
            "--set", action="append", default=[], type=assignment, metavar="MODEL:KEY=VALUE",
            help="check a setting that a training is going to change",
        )  # fmt: skip
        verb = self._add("prepare", "data in: manifests and stores", self.out, self.money)
        add_manifest_options(verb, self.domain)

        verb = self._add("fetch", "download data from an object store; an interrupted download continues")
        verb.add_argument("address", type=address, metavar="URL", help="s3://BUCKET/PREFIX, gs://... or az://...")
        verb.add_argument("folder", type=absolute, metavar="DIR")

        text = "write prepared data to an object store, for hosts whose disks do not hold it"
        verb = self._add("publish-shards", text, self.out)
        verb.add_argument("address", type=address, metavar="URL", help="s3://BUCKET/PREFIX, gs://... or az://...")
        verb = self._add("fetch-shards", "use data that was published; its shards are fetched while they are read",
                         self.out)  # fmt: skip
        verb.add_argument("address", type=address, metavar="URL", help="s3://BUCKET/PREFIX, gs://... or az://...")
        verb.add_argument(
            "--shards-gb", type=amount, metavar="GB",
            help="shards that may be on this disk at a time (default: half of what is free)",
        )  # fmt: skip

        verb = self._add("inspect", "show what is read from files of yours")
        verb.add_argument("word", choices=tuple(domains()), metavar="WORD", help=", ".join(domains()))
        verb.add_argument("files", nargs="+", type=Path, metavar="FILE")
        verb.add_argument("--json", action="store_true", help="as JSON, for programs")

    def _of_training(self) -> None:
        verb = self._add("train", "train one model family, or continue", self.out, self.device, self.money)
        self._family(verb)
        add_train_options(verb)
        _add_persist(verb, required=False)

        text = "estimate the time and cost of a training from a few of its real steps"
        verb = self._add("estimate", text, self.out, self.device, self.money)
        self._family(verb)
        add_train_options(verb)

        text = "kill a short run repeatedly; compare it with an uninterrupted one"
        verb = self._add("prove-resume", text, self.out, self.device)
        self._family(verb)
        verb.add_argument("--steps", type=count, default=30, metavar="N", help="steps of both runs (default: 30)")
        verb.add_argument(
            "--kills", type=count, default=3, metavar="K", help="number of kill -9 at random moments (default: 3)"
        )
        verb.add_argument(
            "--ranks", type=count, default=1, metavar="R", help="processes that train together (default: 1)"
        )
        verb.add_argument(
            "--kill-seed", type=int, metavar="N", help="seed for the kill times (default: another each time)"
        )
        add_train_options(verb)

        text = "held-out metrics, compared with baselines"
        verb = self._add("evaluate", text, self.out, self.device, self.money)
        self._family(verb)
        verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the family's best.pt")
        verb.add_argument("--test", action="store_true", help="open the sealed test split; each opening is recorded")
        verb.add_argument(
            "--baseline-steps", type=share, default=0.2, metavar="SHARE",
            help="of the model's own steps, for models trained only to be compared with it (default: 0.2, continuing "
            "from its weights; 1: as long as it, from the start)",
        )  # fmt: skip

        verb = self._add("each", "a verb for every item of a family that trains one model an item", self.out)
        verb.add_argument(
            "--at-once", type=count, default=1, metavar="N", help="how many run at a time, each with its own GPU"
        )
        verb.add_argument("verb", choices=FAN_OUT)
        verb.add_argument("family", type=run_name, metavar="FAMILY")
        verb.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="further options of the verb")

        verb = self._add(
            "node", "run nodes of a domain's plan, unless they are done", self.out, self.money, self.device
        )
        names = [node.name for node in self.domain.nodes()]
        verb.add_argument(
            "nodes",
            nargs="+",
            metavar="NODE",
            choices=names or None,
            help=", ".join(names) or f"{self.domain.word} has none",
        )
        verb.add_argument("--seed", type=int, default=42, metavar="N")
        verb.add_argument(
            "--at-once", type=count, default=1, metavar="N", help="how many run at a time, each with its own GPU"
        )
        verb.add_argument("--ray", metavar="ADDRESS", help="run independent nodes on the hosts of this Ray cluster")

    def _of_exports(self) -> None:
        known = [facts.name for facts in self.domain.families]
        verb = self._add("export", "write ONNX, int8, CoreML, weights, artefacts, goldens", self.out, self.money)
        verb.add_argument(
            "families", nargs="*", metavar="FAMILY", type=run_name, help=f"{', '.join(known)} (default: all)"
        )
        verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: each family's best.pt")
        verb.add_argument("--output-dir", type=Path, metavar="DIR", help="default: exports/ under --out")

        verb = self._add("verify", "check exported files against golden files and receipt", self.money)
        verb.add_argument("folder", type=Path, metavar="DIR", help="a folder that `export` wrote")

    def _of_jobs(self) -> None:
        verb = self._add("restore", "copy back what an earlier host saved in a second place", self.out)
        source = verb.add_mutually_exclusive_group(required=True)
        _add_persist(source, required=False)
        source.add_argument(
            "--from-wandb", type=wandb_run, metavar="RUN",
            help="a trained family from Weights & Biases: ENTITY/PROJECT/RUN, optionally @SHA256 of its checkpoint",
        )  # fmt: skip
        verb = self._add("persist", "copy what matters to a second place, and verify it", self.out)
        _add_persist(verb, required=True)
        verb = self._add("watch", "the state of the job: progress, losses, budget, GPUs", self.out)
        verb.add_argument("--once", action="store_true", help="print once and exit, as in a pipe")
        self._add("report", "write exports/report.html and the model card again, from what is there", self.out)
        verb = self._add("budget", "what the job has used, by stage, and what is left", self.out)
        verb.add_argument("--done", action="store_true", help="the job is over: the next run starts a new job")
        verb.add_argument("--json", action="store_true", help="hours used, and the limit, as JSON, for programs")
        text = "the job of a command as JSON: mounts and nodes"  # its words are all the runner's, also the first flag
        verb = self.verbs.add_parser("plan", help=text, add_help=False, prefix_chars="\0")
        verb.add_argument("words", nargs=argparse.REMAINDER, metavar="[WORD] ...", help="as after train_cuda.sh")

    def _of_domains(self) -> None:
        """The commands of all domains. One that several have takes the options of the domain that is named."""
        owners: dict[str, list[Domain]] = {}
        for domain in domains().values():
            for command in domain.commands():
                owners.setdefault(command.name, []).append(domain)
        for name, having in owners.items():
            owner = self.domain if self.domain in having else having[0]
            command = next(command for command in owner.commands() if command.name == name)
            parents = [self.device] if command.writes else [self.out, self.device]
            verb = self.verbs.add_parser(name, parents=parents, help=command.help,
                                         description=_sentence(command.help))  # fmt: skip
            if command.writes:
                verb.add_argument("--out", dest="written", type=Path, required=True, metavar="FILE",
                                  help=command.writes)  # fmt: skip
                _add_folder(verb, "--job", "the folder of the job whose models are used")
            verb.add_argument(
                "word", choices=[domain.word for domain in having], metavar="WORD",
                help=", ".join(domain.word for domain in having),
            )  # fmt: skip
            if command.words:
                verb.add_argument("words", nargs="+", metavar=command.words)
            for option in command.options:
                # under another name: the program's own attributes are `run`, `out` and others
                _add_option(verb, option, dest=attribute_of(option))
            verb.set_defaults(command=command, **({} if command.words else {"words": []}))


def parser_of(
    runs: Mapping[str, Callable[[argparse.Namespace], None]], words: Sequence[str]
) -> argparse.ArgumentParser:
    """The parser for the command line `words`."""
    return Verbs(runs, domain_of(words)).parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


# -- groups of options ---------------------------------------------------------------------------------------------


def add_domain_options(verb: argparse.ArgumentParser, domain: Domain, name: str) -> None:
    """The domain's options that the verb `name` takes, without those that all domains have there (--config)."""
    options = [option for option in domain.options if name in option.verbs and option.name not in _common(name)]
    if not options and name not in ("doctor", "prepare", "node", "export", "publish-shards", "fetch-shards"):
        return
    group = verb.add_argument_group(f"data ({domain.word})")
    if name != "inspect":  # whose first word is the domain
        group.add_argument(
            "--domain",
            choices=tuple(domains()),
            default=domain.word,
            help=f"default: that of the named model, else {next(iter(domains()))}",
        )
    for option in options:
        _add_option(group, option)


def attribute_of(option: Option) -> str:
    """The attribute of parsed options that holds the value of an option of a domain's command."""
    return f"option {option.attribute}"


def _add_option(group: Any, option: Option, **more: Any) -> None:
    if option.kind == "flag":
        group.add_argument(option.flag, action="store_true", default=option.default, help=option.help, **more)
    else:
        kind, choices = option.without_label(KINDS[option.kind]), option.choices or None
        group.add_argument(
            option.flag,
            type=kind,
            choices=choices,
            default=option.default,
            metavar=None if option.choices else option.placeholder,
            help=option.help,
            **more,
        )


def _common(verb: str) -> tuple[str, ...]:
    """Names of options that a verb has in every domain; a domain may declare them for the runner and other verbs."""
    return ("config",) if verb in ("train", "estimate", "prove-resume") else ()


def data_options(options: argparse.Namespace) -> dict[str, Any]:
    """The domain's options of a command by attribute; None for those that the verb does not take."""
    return {option.attribute: getattr(options, option.attribute, None) for option in options.of.options}


def _out() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(add_help=False)
    _add_folder(out, "--out", "where everything is written")
    return out


def _add_folder(parser: argparse.ArgumentParser, flag: str, about: str) -> None:
    """The folder of the job."""
    parser.add_argument(
        flag, dest="out", type=Path, default=Path(os.environ.get("ATHANOR_OUT") or PROJECT), metavar="DIR",
        help=f"{about} (default: ATHANOR_OUT, or the project's folder)",
    )  # fmt: skip


def _money() -> argparse.ArgumentParser:
    money = argparse.ArgumentParser(add_help=False)
    limits = money.add_argument_group("the limit of the job: all stages, all restarts (runs/budget.json)")
    limits.add_argument("--max-hours", type=amount, metavar="H")
    limits.add_argument("--budget-usd", type=amount, metavar="X")
    limits.add_argument(
        "--price-per-hour", type=amount, metavar="Y",
        help="USD for all that is rented (default: by the GPU's name, from cuda_session/prices.yaml)",
    )  # fmt: skip
    return money


def _device() -> argparse.ArgumentParser:
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if one works")
    return device


def add_manifest_options(parser: argparse.ArgumentParser, domain: Domain) -> None:
    """The flags of `prepare` that every domain has."""
    parser.add_argument(
        "--val-split", type=float, metavar="SHARE",
        help=f"held-out share of the {domain.unit.many} (default: {domain.val_split:g}; {domain.demo_val_split:g} of "
        "demo data)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="of the split (default: 42)")
    hosts = parser.add_mutually_exclusive_group()
    hosts.add_argument("--shard", metavar="I/N", help="only decode the I-th of N shares; then --merge N on one host")
    hosts.add_argument("--merge", type=count, metavar="N", help="put N shares together first, then prepare as usual")
    hosts.add_argument("--ray", metavar="ADDRESS", help="a share for every node of this Ray cluster, then --merge")


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `train`, which the scripts in cuda_session/ have too."""
    parser.add_argument("--preset", choices=PRESETS, help="default: full; demo on demo data")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file of your own, instead of a preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--resume", choices=("auto", "never"), default="auto", help="continue a run that is there")
    parser.add_argument(
        "--families-left", type=count, default=1, metavar="N",
        help="how many trainings, this one included, share what the limit leaves for training (default: 1)",
    )  # fmt: skip


def _add_persist(parser: Any, *, required: bool) -> None:
    parser.add_argument(
        "--persist", type=persist_target, metavar="DIR|URL", required=required,
        help="a second place for what is saved, which outlives this host: a folder, which may be slow, or a network "
        "drive; or s3://BUCKET/PREFIX, gs://..., az://... (docs/object-stores.md)",
    )  # fmt: skip
