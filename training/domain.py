"""The contract between a domain and everything else: one folder under training/domains/ that holds all
that knows what is learnt. docs/adding-a-domain.md walks through it.

Importing a domain's `domain.py` is cheap: no torch, no numpy, no pandas, so that `--help` and `plan` stay quick. Its
methods import what they need when they are called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from training.budget.ending import Ending
from training.sampling_unit import UNIT, Unit

if TYPE_CHECKING:
    from training.data.schema import Schema
    from training.workspace import Workspace

#: The verbs that look data up, and take the options that say where it lies.
DATA_VERBS = ("doctor", "prepare", "train", "estimate", "prove-resume", "evaluate", "export", "node", "each")
PRESETS = ("full", "small", "demo", "debug")
#: Kind of an option that takes a value -> its placeholder.
METAVARS = {"folder": "DIR", "file": "FILE", "number": "N", "url": "URL", "text": "TEXT"}

__all__ = ["DATA_VERBS", "PRESETS", "UNIT", "CardText", "DemoText", "Domain", "FamilyFacts", "Finding", "Job", "Node",
           "Option", "Request", "Section", "Unit"]  # fmt: skip


# -- options -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One option of a domain, declared once. The runner, `--help`, mounts of containers, compose and the tables of the
    docs are derived from it. Its value is found under `attribute` in Job.options.

    Kinds: a `folder` or `file` that is read (it must exist, is made absolute, and is mounted read-only under its own
    name), `number`, `text`, `choice` (of `choices`), `url`, and `flag` (no value; True or False).
    """

    name: str  # without the dashes: "image-root"
    kind: Literal["folder", "file", "number", "text", "choice", "url", "flag"]
    help: str
    metavar: str = ""  # default: by kind
    environment: str = ""  # the variable that stands in for it: "ATHANOR_IMAGE_ROOT"
    choices: tuple[str, ...] = ()
    default: Any = None
    verbs: tuple[str, ...] = DATA_VERBS  # which of `python -m training` take it; ("",): the runner alone
    runner: bool = True  # whether train_cuda.sh takes it

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    @property
    def placeholder(self) -> str:
        """What stands for its value in help texts."""
        return self.metavar or METAVARS[self.kind]

    @property
    def mounted(self) -> bool:
        """Whether a container must be given what it names."""
        return self.kind in ("folder", "file")


# -- families ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FamilyFacts:
    """What must be known of a family without importing torch."""

    name: str  # folder name under checkpoints/ and runs/
    title: str  # for people
    recipe: str  # "module:Class", a Stepped or Fitted (training/recipe.py)
    config: Path  # the YAML of preset `full`
    presets: Mapping[str, Path]  # overlays: small, demo, debug -> YAML
    manifest: str  # manifests are <manifest>_train.jsonl and <manifest>_val.jsonl
    #: Path key of a manifest row -> (kind, version) of the encoder of the file under it, as the recipe's `encoders`.
    #: A function, since naming the encoder may import numpy.
    encoders: Callable[[], Mapping[str, Any]] = dict
    row_checks: int = 1  # as the recipe's
    needs: tuple[str, ...] = ()  # families of the domain that must be trained before
    short: str = ""  # of --skip-<short>; default: the name with dashes
    checkpoint_bytes: int = 0  # of one checkpoint of preset `full`, for the look at the disk
    export_bytes: int = 0  # of all its exports
    fan_out: bool = False  # one model an item (Domain.items): its runs are named <family>/<item>
    millions: Mapping[str, float] = field(default_factory=dict)  # preset -> weights of the model
    ending: Ending = field(default_factory=Ending)  # what evaluating, exporting and verifying it takes

    @property
    def skip(self) -> str:
        """The runner's flag that leaves it out."""
        return f"--skip-{self.short or self.name.replace('_', '-')}"


# -- a job ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a domain is called with."""

    workspace: Workspace
    options: Mapping[str, Any]  # the domain's options by attribute; absolute paths; None where not given
    seed: int = 42  # of the split and of demo data
    workers: int | None = None  # processes that decode files; None: as many as there are processors
    say: Callable[[str], None] = print

    def path(self, attribute: str) -> Path | None:
        """A folder or file option."""
        value = self.options.get(attribute)
        return None if value is None else Path(value)


@dataclass(frozen=True)
class Request:
    """A command of the runner, as its plan is made: nothing is imported, nothing is read but folder names."""

    options: Mapping[str, Any]  # of the domain, by attribute
    families: tuple[str, ...]  # in the order in which they are trained; skipped ones are left out
    skip_prepare: bool = False
    notes: tuple[str, ...] = ()  # printed before anything starts

    def noting(self, text: str, **changes: Any) -> Request:
        """This request with another note, and changed fields."""
        return replace(self, notes=(*self.notes, text), **changes)

    def without(self, family: str) -> tuple[str, ...]:
        return tuple(name for name in self.families if name != family)


@dataclass(frozen=True)
class Node:
    """A part of a job that a domain adds between training and export: stacking, out-of-fold predictions, a sealed test.

    It is done when its receipt (runs/nodes/<name>.json) matches the digests of its inputs, settings, code and outputs;
    the same command goes on with the first that is not. `run` is "module:function", called with the Job.
    """

    name: str
    title: str  # for people: "Stack the families"
    run: str
    needs: tuple[str, ...] = ()  # families or nodes
    inputs: Callable[[Job], Sequence[Path]] = lambda job: ()  # files and folders that decide its outputs
    outputs: Callable[[Job], Sequence[Path]] = lambda job: ()
    version: str = "1"  # raised when what it computes changes otherwise than by the domain's code
    gpu: bool = False  # whether it wants a GPU to itself


@dataclass(frozen=True)
class Finding:
    """One line of doctor's report. `state`: ok, note (it works, and here is what to know) or fails (it cannot work)."""

    state: Literal["ok", "note", "fails"]
    about: str
    text: str
    do: str = ""

    def __str__(self) -> str:
        mark = {"ok": "  ok   ", "note": "  note ", "fails": "  FAILS"}[self.state]
        return f"{mark} {self.about:<12} {self.text}" + (f"\n{'':21}-> {self.do}" if self.do else "")


# -- what people see -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A part of the report. `template`: a Jinja file of the domain that is given `facts`; what it shows is escaped; the
    page draws the heading, from `title`. `script`: a JavaScript file of the domain, added to the page once, so that it
    should keep its names in a function or block; `style`: a CSS file. Both are allowed by hash in the page's policy.

    `facts` hold what JSON can hold, dataclasses and paths. `problems`: files that could not be read, and why; they are
    listed at the top of the page."""

    name: str  # of its anchor, "listen"
    title: str  # in the page's navigation
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


# -- the contract --------------------------------------------------------------------------------------------------


class Domain(ABC):
    """What a domain supplies. It is a singleton without state: registry.DOMAINS names it."""

    word: ClassVar[str]  # the runner's first argument: "market"
    title: ClassVar[str]  # "Market"
    sentence: ClassVar[str]  # about it, for --help
    unit: ClassVar[Unit] = UNIT
    families: ClassVar[tuple[FamilyFacts, ...]]
    options: ClassVar[tuple[Option, ...]] = ()
    tags: ClassVar[tuple[str, ...]] = ()  # of the model card
    sealed_test: ClassVar[bool] = False  # whether a job opens the sealed test split once, after the evaluation
    data_words: ClassVar[str] = "data"  # what training data is called in the card: "one-minute bars"
    val_split: ClassVar[float] = 0.1  # share of the units held out, where the command names none
    demo_val_split: ClassVar[float] = 0.2  # the same, of the demo data

    def arrange(self, request: Request) -> Request:
        """Check the options of a command together, and derive what follows from them: options that stand for others,
        families that cannot be trained from what is given. Raises UsageError (exit 2), HostError (exit 6)."""
        return request

    def given(self, options: Mapping[str, Any]) -> bool:
        """Whether the options name any data; without, the demo's is made."""
        return any(options.get(option.attribute) is not None for option in self.options if option.mounted)

    # data

    @abstractmethod
    def schema(self) -> Schema:
        """Of a manifest row: keys, paths, spans, groups, checks."""

    @abstractmethod
    def demo(self, job: Job) -> Mapping[str, Any]:
        """Make the demo data by rules, in the workspace, marked as synthetic (data/identity.py); returns the options
        that name it. Made once: a second call finds it."""

    @abstractmethod
    def prepare(self, job: Job) -> None:
        """Data in; manifests, stores, quarantine.jsonl and summary.json out. A second call over the same data changes
        nothing. Raises DataError (nothing to train on), UsageError (options that cannot be meant)."""

    def prepare_share(self, job: Job, number: int, of: int) -> str:
        """Decode the `number`-th of `of` shares of the data, on one of several hosts; returns a line about it.
        `prepare` with options["merge"] = `of` puts them together. Raises UsageError where a domain does not support it.
        """
        from training.errors import UsageError

        raise UsageError(f"{self.title} does not prepare data on several hosts: leave out --shard, --merge and --ray.")

    def items(self, workspace: Workspace) -> tuple[str, ...]:
        """Of a domain whose families fan out: the items, after `prepare`; each gets its own model."""
        return ()

    # checks

    def checks(self, job: Job) -> Iterator[Finding]:
        """What doctor looks at beside the host: programs that this data needs, say."""
        return iter(())

    def store_bytes(self, job: Job) -> int:
        """About how much room the stores of this data will take."""
        return 0

    # the plan

    def nodes(self) -> tuple[Node, ...]:
        """What a job does between training and export."""
        return ()

    # people

    def demo_text(self) -> DemoText:
        """What a job on the demo data is for. A domain that can say more of it returns its own words."""
        return DemoText(
            shows=(
                f"A program made its {self.data_words} by rules. It shows that every step works here, from data "
                f"to verified exports, and that the models learn something that held-out {self.unit.many} can measure. "
                "The models are small and hardly trained: a weak verdict is usual, and they are not worth using."
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
        """The domain's parts of the report, from the files that a job left; what is missing yet is left out."""
        return ()

    def card(self, family: str) -> CardText | None:
        """A family's part of the model card."""
        return None

    def facts(self, family: str) -> FamilyFacts:
        """Of a family of this domain."""
        return next(facts for facts in self.families if facts.name == family)
