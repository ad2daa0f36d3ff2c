"""The domain object: everything that does not need torch or numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.domain import (
    CardText,
    Command,
    DemoText,
    Domain,
    FamilyFacts,
    Finding,
    Inspected,
    Job,
    Node,
    Section,
    Unit,
)
from training.errors import DataError
from training.option import Option

if TYPE_CHECKING:
    from training.config import Layer
    from training.data.schema import Schema
    from training.settings import RunSettings
    from training.workspace import Workspace

HERE = Path(__file__).parent


def _encoders() -> Mapping[str, Any]:
    from tests.toy_domain.readings import LIMITS, READINGS

    return {"readings_path": READINGS, "limits_path": LIMITS}


def _family(name: str, title: str, **more: Any) -> FamilyFacts:
    presets = dict.fromkeys(("small", "demo", "debug"), HERE / f"{name}_debug.yaml")
    recipe = f"tests.toy_domain.{name}:{title}"
    return FamilyFacts(name, title, recipe, HERE / f"{name}.yaml", presets, name, _encoders, **more)


def blend_path(workspace: Workspace) -> Path:
    return workspace.root / "runs" / "blend.json"


class Toy(Domain):
    word = "toy"
    title = "Calibration curves"
    sentence = "A folder of readings in; a calibration curve for every device out."
    unit = Unit("session", "sessions")
    families = (
        _family("curve", "Curve", fan_out=True, imports={"train": ("tests.toy_domain.readings",)}, uses=("boost",)),
        _family("boost", "Boost"),
    )
    options = (
        Option("readings", "path", "CSV files, one per device, or one of them; x,y per line", "DIR",
               environment="ATHANOR_TOY_READINGS", label="csv"),
        Option("noise", "number", "of the demo data (default: 0.05)", runner=True, verbs=("prepare",)),
        Option("width", "number", "of the curve's network", verbs=("train", "estimate", "prove-resume", "export")),
        Option("table", "text", "the name of the exported table", verbs=("export",)),
    )  # fmt: skip
    sealed_test = True

    def config_layers(self, family: str, path: Path) -> Sequence[Layer]:
        from training.config import Layer, read_yaml

        if path.suffix != ".width":
            return super().config_layers(family, path)
        width, ratio = path.read_text().split()  # as an older program wrote them
        changes = {"model": {"width": int(width)}, "scheduler": {"warmup_ratio": float(ratio)}}
        own = (self.facts(family).config, self.facts(family).presets["debug"])
        return (*map(read_yaml, own), Layer(changes, name=str(path), notes=[f"{path.name}: the width is {width}"]))

    def settings(self, job: Job, family: str, settings: RunSettings) -> Mapping[str, Any]:
        if family != "curve":
            return {}
        width, table = job.options.get("width"), job.options.get("table")
        changes = {"model": {"width": int(width)} if width else {}, "table": {"name": table} if table else {}}
        return {section: keys for section, keys in changes.items() if keys}

    def schema(self) -> Schema:
        from tests.toy_domain.readings import SCHEMA

        return SCHEMA

    def demo(self, job: Job) -> Mapping[str, Any]:
        from tests.toy_domain.readings import make_demo

        return {"readings": make_demo(job)}

    def prepare(self, job: Job) -> None:
        from tests.toy_domain.readings import prepare

        prepare(job)

    def items(self, workspace: Workspace) -> tuple[str, ...]:
        from training.data.summary import summary_of

        return tuple((summary_of(workspace) or {}).get("items", ()))

    def checks(self, job: Job) -> Iterator[Finding]:
        folder = job.path("readings")
        count = (1 if folder.is_file() else len(list(folder.glob("*.csv")))) if folder else 0
        if folder and not count:
            yield Finding("fails", "readings", f"{folder} holds no .csv file", "Name the folder of the readings.",
                          DataError.exit_code)  # fmt: skip
        elif folder:
            yield Finding("ok", "readings", f"{count} devices")

    def inspect(self, job: Job, path: Path) -> Inspected:
        from tests.toy_domain.readings import inspect

        return inspect(path)

    def commands(self) -> tuple[Command, ...]:
        options = (
            Option("of", "text", "the device", metavar="DEVICE"),
            Option("width", "number", "of the curve's network"),
        )
        place = "tests.toy_domain.curve"
        return (
            Command("correct", "correct readings of a device", f"{place}:correct", "READING", options),
            Command(
                "tabulate", "a table of corrections", f"{place}:tabulate", options=options, writes="the table, as CSV"
            ),
            Command("devices", "list the devices", "tests.toy_domain.readings:devices"),
        )

    def nodes(self) -> tuple[Node, ...]:
        from tests.toy_domain.blend import NODES

        return NODES

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        import json

        path = blend_path(workspace)
        if not path.exists():
            return ()
        facts = {"weights": json.loads(path.read_text(encoding="utf-8"))}
        return (Section("blend", "Blend", HERE / "blend.html.j2", facts, place="after verdict"),)

    def demo_text(self) -> DemoText:
        return replace(super().demo_text(), gives="exports/ holds a calibration curve for each of three devices.")

    def card(self, family: str) -> CardText:
        return CardText("Corrects the readings of a device.", "reading to value", ["It is valid in its range only."])


TOY = Toy()
