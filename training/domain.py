"""The interface of a domain: a folder under training/domains/ with all code that is specific to one kind of data.
docs/adding-a-domain.md describes it step by step.

Importing a domain's `domain.py` must be cheap (no torch, numpy or pandas), so that `--help` and `plan` are fast. Its
methods import what they need when they are called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from training.budget.ending import Ending
from training.errors import HostError, UsageError
from training.option import Option
from training.sampling_unit import UNIT, Unit

if TYPE_CHECKING:
    from training.config import Layer
    from training.data.schema import Schema
    from training.settings import RunSettings
    from training.workspace import Workspace

PRESETS = ("full", "small", "demo", "debug")

__all__ = ["PRESETS", "UNIT", "CardText", "Command", "DemoText", "Domain", "FamilyFacts", "Finding",
           "Job", "Node", "Request", "Section", "Unit"]  # fmt: skip


# -- families ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FamilyFacts:
    """Facts about a family that are needed without importing torch."""

    name: str  # folder name under checkpoints/ and runs/
    title: str  # for people
    recipe: str  # "module:Class", a Stepped or Fitted (training/recipe.py)
    config: Path  # the YAML of preset `full`
    presets: Mapping[str, Path]  # overlays: small, demo, debug -> YAML
    manifest: str  # manifests are <manifest>_train.jsonl and <manifest>_val.jsonl
    #: Path key of a manifest row -> (kind, version) of the encoder of the file under it; must match the recipe's
    #: `encoders`. A function, since importing an encoder may import numpy.
    encoders: Callable[[], Mapping[str, Any]] = dict
    row_checks: int = 1  # must match the recipe's
    needs: tuple[str, ...] = ()  # families of the domain that must be trained before
    uses: tuple[str, ...] = ()  # families of the domain that it uses, too, if they are trained
    short: str = ""  # for the flag --skip-<short>; default: the name with dashes
    checkpoint_bytes: int = 0  # of one checkpoint of preset `full`, for the check of free disk space
    export_bytes: int = 0  # of all its exports
    fan_out: bool = False  # one model per item (Domain.items): its runs are named <family>/<item>
    #: Verb (train, evaluate) -> modules beside the recipe's that every run imports there, and that start no thread when
    #: they are imported: the processes of a fan-out are forked from one that has them (stages/fork_server.py).
    imports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    millions: Mapping[str, float] = field(default_factory=dict)  # preset -> millions of parameters
    ending: Ending = field(default_factory=Ending)  # the time that evaluating, exporting and verifying takes

    @property
    def after(self) -> tuple[str, ...]:
        """The families that are trained before it, where they are trained at all."""
        return (*self.needs, *self.uses)

    @property
    def skip(self) -> str:
        """The runner's flag that skips it."""
        return f"--skip-{self.short or self.name.replace('_', '-')}"


# -- a job ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """The argument of a domain's methods: workspace, options and settings of a job."""

    workspace: Workspace
    options: Mapping[str, Any]  # the domain's options by attribute; absolute paths; None: not given
    seed: int = 42  # of the split and of demo data
    workers: int | None = None  # processes that decode files; None: one per available CPU
    say: Callable[[str], None] = print

    def path(self, attribute: str) -> Path | None:
        """The path of a folder or file option; None: not given."""
        value = self.options.get(attribute)
        return None if value is None else Path(value)


@dataclass(frozen=True)
class Request:
    """A command of the runner, while its plan is made: at this point no heavy module may be imported, and nothing but
    folder names may be read."""

    options: Mapping[str, Any]  # of the domain, by attribute
    families: tuple[str, ...]  # in the order in which they are trained, without skipped ones
    skip_prepare: bool = False
    notes: tuple[str, ...] = ()  # printed before the first step of the job

    def noting(self, text: str, **changes: Any) -> Request:
        """This request with an additional note and changed fields."""
        return replace(self, notes=(*self.notes, text), **changes)

    def without(self, family: str) -> tuple[str, ...]:
        """The families without one of them."""
        return tuple(name for name in self.families if name != family)


@dataclass(frozen=True)
class Node:
    """A plan node that a domain adds between training and export: stacking, out-of-fold predictions, a sealed test.

    It is done if its receipt (runs/nodes/<name>.json) matches the digests of its inputs, settings, code and outputs.
    The same command continues with the first node that is not done. `run` is "module:function", called with the Job.
    """

    name: str
    title: str  # for people: "Stack the families"
    run: str
    needs: tuple[str, ...] = ()  # families or nodes
    inputs: Callable[[Job], Sequence[Path]] = lambda job: ()  # files and folders that its outputs depend on
    outputs: Callable[[Job], Sequence[Path]] = lambda job: ()
    version: str = "1"  # increment it when its result changes for another reason than the domain's code
    gpu: bool = False  # whether it needs a GPU of which it is the only user


@dataclass(frozen=True)
class Command:
    """A command of a domain, for what people do with its models: `python -m training <name> <word> WORDS... [options]`.

    `run` is "module:function", called with a Job, whose options are those of the command and `device`, with the words,
    and with a function that loads a trained model by the name of its run; its result has `model` (as in
    EvaluationContext) and `recipe`. One that writes a file has `--out FILE` for it, in Job.options as "out", and the
    job's folder is named by `--job DIR`. An option with the name of one of the domain's changes the settings under
    which the model is loaded, as the domain's does. Two domains may have a command of the same name.
    """

    name: str  # "ask"
    help: str
    run: str
    words: str = ""  # the placeholder of its arguments: "QUESTION"; empty: it takes none
    options: tuple[Option, ...] = ()
    writes: str = ""  # what the file is that it writes: "the probabilities, as Parquet"; empty: it writes none


@dataclass(frozen=True)
class Finding:
    """One line of doctor's report. `state`: ok, note (it works, with a remark) or fails (a job would fail).
    `exit_code`: of what fails, as the stage would end that meets it later (errors.py)."""

    state: Literal["ok", "note", "fails"]
    about: str
    text: str
    do: str = ""
    exit_code: int = HostError.exit_code

    def __str__(self) -> str:
        mark = {"ok": "  ok   ", "note": "  note ", "fails": "  FAILS"}[self.state]
        return f"{mark} {self.about:<12} {self.text}" + (f"\n{'':21}-> {self.do}" if self.do else "")


@dataclass(frozen=True)
class Inspected:
    """What a domain reads from one file of the user. Values are text, whole numbers, floats, booleans or None."""

    kind: str  # what the file is, in a word or two
    facts: Mapping[str, Any]  # name -> value
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)  # title -> rows of the same columns
    remarks: tuple[str, ...] = ()  # what is changed, left out, or read differently by other programs


# -- the report ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A section of the report. `template`: a Jinja file of the domain that gets `facts`; its output is escaped, and the
    page adds a heading with `title`. `script`: a JavaScript file of the domain, added to the page once; it should
    define its names inside a function or block. `style`: a CSS file. The page's content security policy allows both by
    hash.

    `facts` may have JSON values, dataclasses and paths. `problems`: files that could not be read, and the reasons; they
    are listed at the top of the page."""

    name: str  # the id of its anchor: "listen"
    title: str  # its heading, also in the page's navigation
    template: Path
    facts: Mapping[str, Any]
    place: Literal["after verdict", "after results", "data"] = "after results"
    script: Path | None = None
    style: Path | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class DemoText:
    """What a job on demo data is for, in sentences for those who see it first. The console prints it when the demo data
    is made, `shows` before each verdict and `next` at the end; the report page shows it above the verdicts."""

    shows: str  # what it shows, and what its models cannot be used for
    gives: str  # what is there when it has ended
    next: str  # a command that names the user's own data


@dataclass(frozen=True)
class CardText:
    """A family's part of the model card."""

    about: str  # a sentence or two
    task: str  # a few words, for the index of the Hub: "question to SQL"
    limits: Sequence[str]


# -- the domain ----------------------------------------------------------------------------------------------------


class Domain(ABC):
    """What a domain implements. It is a singleton without state, named in registry.DOMAINS."""

    word: ClassVar[str]  # the runner's first argument: "market"
    title: ClassVar[str]  # "Market"
    sentence: ClassVar[str]  # its description in --help
    unit: ClassVar[Unit] = UNIT
    families: ClassVar[tuple[FamilyFacts, ...]]
    options: ClassVar[tuple[Option, ...]] = ()
    tags: ClassVar[tuple[str, ...]] = ()  # of the model card
    sealed_test: ClassVar[bool] = False  # whether a job opens the sealed test split once, after the evaluation
    data_words: ClassVar[str] = "data"  # what training data is called in the card: "one-minute bars"
    val_split: ClassVar[float] = 0.1  # default share of the units that is held out
    demo_val_split: ClassVar[float] = 0.2  # the same for the demo data

    def arrange(self, request: Request) -> Request:
        """Check the options of a command in combination, and apply what follows from them: options that imply others,
        families that cannot be trained with the given data. Raises UsageError (exit 2), HostError (exit 6)."""
        return request

    def given(self, options: Mapping[str, Any]) -> bool:
        """Whether the options name any data; if not, demo data is made."""
        return any(options.get(option.attribute) is not None for option in self.options if option.mounted)

    def settings(self, job: Job, family: str, settings: RunSettings) -> Mapping[str, Any]:
        """What options and workspace change in the settings of a training: sections with their keys. `settings`:
        those of the preset and the command line so far. It may make what the settings name (convert a base model).
        Raises UsageError, HostError."""
        return {}

    def config_layers(self, family: str, path: Path) -> Sequence[Layer]:
        """The layers of settings in a configuration file that the user names (--config), which replaces the presets. A
        domain may read files of other programs, and say in Layer.notes what becomes of them: a training prints that
        once. Raises UsageError."""
        from training.config import read_yaml

        return (read_yaml(path),)

    # data

    @abstractmethod
    def schema(self) -> Schema:
        """The schema of its manifest rows: keys, paths, spans, groups, checks."""

    @abstractmethod
    def demo(self, job: Job) -> Mapping[str, Any]:
        """Generate demo data in the workspace, marked as synthetic (data/identity.py); returns the options that name
        it. A second call does not generate it again."""

    @abstractmethod
    def prepare(self, job: Job) -> None:
        """Read the data; write manifests, stores, quarantine.jsonl and summary.json. A second call with the same data
        must change nothing. Raises DataError (no row to train on), UsageError (invalid options)."""

    def prepare_share(self, job: Job, number: int, of: int) -> str:
        """Decode the `number`-th of `of` shares of the data, on one of several hosts; returns a line about it.
        `prepare` with options["merge"] = `of` merges the shares. Raises UsageError if the domain does not support
        it."""
        raise UsageError(f"{self.title} does not prepare data on several hosts: leave out --shard, --merge and --ray.")

    def items(self, workspace: Workspace) -> tuple[str, ...]:
        """The items of families that fan out, known after `prepare`; there is one model for each."""
        return ()

    # checks

    def checks(self, job: Job) -> Iterator[Finding]:
        """Additional checks for doctor, such as programs that this data needs."""
        return iter(())

    def inspect(self, job: Job, path: Path) -> Inspected:
        """What this domain reads from a file, for `inspect`. Raises ValueError, with the reason, for a file that
        `prepare` would refuse; HostError."""
        raise UsageError(f"{self.title} has nothing to inspect: {self.word} does not support `inspect`.")

    def store_bytes(self, job: Job) -> int:
        """An estimate of the disk space that the stores of this data will take."""
        return 0

    def commands(self) -> tuple[Command, ...]:
        """Commands of the domain's own, beside those that all domains have."""
        return ()

    # the plan

    def nodes(self) -> tuple[Node, ...]:
        """The plan nodes between training and export."""
        return ()

    # the report

    def demo_text(self) -> DemoText:
        """What a job on the demo data is for. A domain that can say more of it returns its own words."""
        return DemoText(
            shows=(
                f"A program made its {self.data_words} by rules. It shows that every step works here, from data "
                f"to verified exports, and that the models learn something that held-out {self.unit.many} can measure. "
                "The models are small and hardly trained: the verdict is usually weak, or not learnt with --preset "
                "debug, and they are not worth using."
            ),
            gives="exports/ holds the models, each file compared with what was trained, a model card, and report.html.",
            next=self.own_data_command(),
        )

    def own_data_command(self) -> str:
        """The runner's command that names the user's own data, with placeholders."""
        named = [f"{option.flag} {option.placeholder}" for option in self.data_options()]
        return " ".join(["./train_cuda.sh", self.word, *(named or ["--help"])])

    def data_options(self) -> list[Option]:
        """The options that name data, as the runner and `prepare` take them."""
        return [option for option in self.options if option.mounted and option.runner and "prepare" in option.verbs]

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        """The domain's sections of the report, from the files of a job; those whose files do not exist yet are
        omitted."""
        return ()

    def card(self, family: str) -> CardText | None:
        """A family's part of the model card."""
        return None

    def facts(self, family: str) -> FamilyFacts:
        """The facts about a family of this domain."""
        return next(facts for facts in self.families if facts.name == family)
