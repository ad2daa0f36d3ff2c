"""A domain with a section, a script, a style and a card: everything that a domain can add to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.domain import CardText, DemoText, Domain, FamilyFacts, Job, Section, Unit
from training.report.reading import read_json
from training.workspace import Workspace

HERE = Path(__file__).parent


def family(name: str, title: str, *, fan_out: bool = False) -> FamilyFacts:
    return FamilyFacts(name, title, "tests.report.toy.domain:none", Path("none.yaml"), {}, name, fan_out=fan_out)


class Toy(Domain):
    word, title, sentence = "toy_report", "Toys", "Letters to numbers."
    unit = Unit("letter", "letters")
    tags = ("letters",)
    data_words = "letters"
    families = (family("alpha", "Alpha"), family("beta", "Beta", fan_out=True))

    def schema(self) -> Any:
        raise AssertionError("no manifest is read here")

    def demo(self, job: Job) -> Mapping[str, Any]:
        return {}

    def prepare(self, job: Job) -> None:
        raise AssertionError("nothing to prepare")

    def demo_text(self) -> DemoText:
        """Own text for `gives`, the default for the rest."""
        return replace(super().demo_text(), gives="A number for each letter.")

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        """A section of the letters after the verdict, if there are any; and always a section of their kinds."""
        problems = []
        try:
            letters = (read_json(workspace.exports / "letters.json") or {}).get("letters", [])
        except ValueError as error:
            letters, problems = [], [str(error)]
        files = {"script": HERE / "letters.js", "style": HERE / "letters.css"}
        template = HERE / "letters.html.j2"
        found = [Section("kinds", "Kinds", template, {"letters": ["a kind"]}, "after results", **files)]
        if letters or problems:
            facts = {"letters": letters}
            found.insert(
                0, Section("letters", "Letters", template, facts, "after verdict", problems=tuple(problems), **files)
            )
        return found

    def card(self, family: str) -> CardText | None:
        return CardText(f"Reads {family}.", "letters to numbers", ("It knows 26 letters.",))


class Other(Domain):
    """A second domain of the same workspace, with a section of the same name."""

    word, title, sentence = "other_report", "Others", "Digits."
    families = (family("gamma", "Gamma"),)

    schema = demo = prepare = Toy.schema

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        return (Section("letters", "Letters", HERE / "letters.html.j2", {"letters": ["seven"]}, "data"),)


TOY, OTHER = Toy(), Other()
