"""The domain object: everything that does not need torch or numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.domain import CardText, Domain, FamilyFacts, Finding, Job, Unit
from training.errors import DataError
from training.option import Option

if TYPE_CHECKING:
    from training.data.schema import Schema
    from training.workspace import Workspace

HERE = Path(__file__).parent


def _encoders() -> Mapping[str, Any]:
    from tests.gauges_domain.levels import LEVELS

    return {"levels_path": LEVELS}


class Gauges(Domain):
    word = "gauges"
    title = "Water gauges"
    sentence = "A folder of series in; a predictor of the next level for every gauge out."
    unit = Unit("day", "days")
    data_words = "water levels"
    families = (
        FamilyFacts(
            "level", "Level", "tests.gauges_domain.level:Level", HERE / "level.yaml",
            dict.fromkeys(("small", "demo", "debug"), HERE / "level_debug.yaml"), "level", _encoders, fan_out=True,
        ),
    )  # fmt: skip
    options = (
        Option("series", "folder", "text files, one per gauge; a level per line", environment="ATHANOR_GAUGES_SERIES"),
    )

    def schema(self) -> Schema:
        from tests.gauges_domain.levels import SCHEMA

        return SCHEMA

    def demo(self, job: Job) -> Mapping[str, Any]:
        from tests.gauges_domain.levels import make_demo

        return {"series": make_demo(job)}

    def prepare(self, job: Job) -> None:
        from tests.gauges_domain.levels import prepare

        prepare(job)

    def items(self, workspace: Workspace) -> tuple[str, ...]:
        from training.data.summary import summary_of

        return tuple((summary_of(workspace) or {}).get("items", ()))

    def checks(self, job: Job) -> Iterator[Finding]:
        folder = job.path("series")
        count = len(list(folder.glob("*.txt"))) if folder else 0
        if folder and not count:
            yield Finding("fails", "series", f"{folder} holds no .txt file", "Name the folder of the series.",
                          DataError.exit_code)  # fmt: skip
        elif folder:
            yield Finding("ok", "series", f"{count} gauges")

    def card(self, family: str) -> CardText:
        return CardText("Predicts the next level of a gauge.", "levels to next level", ["It predicts one step ahead."])


GAUGES = Gauges()
