"""The market domain: its implementation of the contract in training/domain.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.domain import CardText, Command, DemoText, Domain, Finding, Inspected, Job, Node, Request, Section
from training.domains.market.families import DAY, FAMILIES, TREES
from training.errors import UsageError
from training.option import Option

if TYPE_CHECKING:
    from training.data.schema import Schema
    from training.settings import RunSettings
    from training.workspace import Workspace

#: The verbs that read the user's bars; the others read what `prepare` has made of them.
READING = ("doctor", "prepare")
PREPARE = ("prepare",)
STAMPS, NULLS = ("open", "close"), ("signs", "labels")


class Market(Domain):
    word = "market"
    title = "Market"
    sentence = "One-minute bars in; models of which barrier the price touches first, and whether their edge is real."
    unit = DAY
    families = FAMILIES
    tags = ("time-series", "finance", "tabular-classification")
    data_words = "one-minute bars"
    sealed_test = True
    options = (
        Option("bars", "folder", "one-minute bars: SYMBOL_1m.parquet, .csv or .csv.gz", verbs=READING,
               environment="ATHANOR_BARS"),
        Option("symbols", "text", "those that are used, separated by commas (default: all)", "A,B", verbs=READING),
        Option("horizon", "number", "of the labels: 5, 10, 15 or 20 (default: 20)", verbs=PREPARE),
        Option("costs", "file", "YAML: a line SYMBOL: {tick: 0.25, spread: 0.5, slippage: [0.5, 1.0]}, in ticks",
               verbs=READING),
        Option("stamp", "choice", "what a bar's time marks (default: open)", choices=STAMPS, verbs=PREPARE),
        Option("timezone", "text", "of times without an offset, such as America/New_York", "ZONE", verbs=PREPARE),
        Option("adjusted", "flag", "the prices are adjusted: no split and no roll is left in them", verbs=PREPARE),
        Option("rolls", "file", "CSV with symbol,time of splits and rolls, which nothing will cross", verbs=PREPARE),
        Option("null", "choice", "look for leaks: flip the sign of every minute's return, or move labels by days",
               choices=NULLS, verbs=("node",)),
        Option("trials", "number", "settings of trees that are tried by cross-validation (default: 1)",
               verbs=("train", "estimate", "prove-resume")),
        Option("minutes", "number", "of the demo's markets (default: 150,000)", verbs=PREPARE, runner=False),
    )  # fmt: skip

    def arrange(self, request: Request) -> Request:
        options = request.options
        if options.get("bars") is None and not request.skip_prepare:
            named = [name for name in ("symbols", "costs", "timezone", "rolls") if options.get(name) is not None]
            if named:
                raise UsageError(f"--{named[0]} needs --bars: the folder of the one-minute bars.")
        return request

    def given(self, options: Mapping[str, Any]) -> bool:
        return options.get("bars") is not None

    def settings(self, job: Job, family: str, settings: RunSettings) -> Mapping[str, Any]:
        trials = job.options.get("trials")
        return {"search": {"trials": int(trials)}} if trials is not None and family in TREES else {}

    def schema(self) -> Schema:
        from training.domains.market.rows import SCHEMA

        return SCHEMA

    def demo(self, job: Job) -> Mapping[str, Any]:
        from training.domains.market.demo.making import make_demo

        return make_demo(job)

    def prepare(self, job: Job) -> None:
        from training.domains.market.prepare import prepare

        prepare(job)

    def items(self, workspace: Workspace) -> tuple[str, ...]:
        from training.data.summary import summary_of

        return tuple((summary_of(workspace) or {}).get("items", ()))

    def checks(self, job: Job) -> Iterator[Finding]:
        from training.domains.market.checks import checks

        return checks(job)

    def inspect(self, job: Job, path: Path) -> Inspected:
        from training.domains.market.inspection import inspect

        return inspect(path)

    def store_bytes(self, job: Job) -> int:
        from training.domains.market.checks import store_bytes

        return store_bytes(job)

    def commands(self) -> tuple[Command, ...]:
        options = (
            Option("bars", "folder", "the new bars, with the history that the features need"),
            Option("symbol", "text", "whose bars they are", metavar="SYMBOL"),
            Option("family", "text", "the family that predicts (default: ensemble)", metavar="FAMILY"),
            Option("stamp", "choice", "what a bar's time marks (default: as prepared)", choices=STAMPS),
            Option("timezone", "text", "of times without an offset (default: as prepared)", "ZONE"),
            *(option for option in self.options if option.name in ("adjusted", "rolls")),
        )
        return (
            Command("predict", "probabilities for new bars", "training.domains.market.predicting.command:predict",
                    options=options, writes="the probabilities, as Parquet"),
        )  # fmt: skip

    def nodes(self) -> tuple[Node, ...]:
        from training.domains.market.detector.node import NODES as LEAKS
        from training.domains.market.evaluation.node import NODES as PATHS

        return (*LEAKS, *PATHS)

    def demo_text(self) -> DemoText:
        return DemoText(
            shows=(
                "Two markets made by rules: PLANTED has a direction that lasts for two hours and can be seen in its "
                "bars, NULL is its twin without any. It shows that every step works on this host, and that an edge is "
                "found where there is one and not where there is none: volatility can be predicted in both, so a lower "
                "log-loss alone is no edge. The models are small, and real markets are much harder: the figures say "
                "nothing about those."
            ),
            gives=(
                "exports/ holds the models of both markets as ONNX, each compared with what was trained, a model card, "
                "and report.html with figures beside class shares, volatility alone and what could be known at best."
            ),
            next="./train_cuda.sh market --bars DIR",
        )

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        from training.domains.market.report.sections import sections

        return tuple(sections(workspace))

    def card(self, family: str) -> CardText | None:
        from training.domains.market.card import card

        return card(self.facts(family).title)


MARKET = Market()
