"""Judges answers by executing them: on the database itself, and on re-populated copies of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.sql.databases.compare import same_rows, same_set
from training.domains.sql.databases.copies import make_copies
from training.domains.sql.databases.execution import Executor, Result
from training.domains.sql.databases.sqlite import SCHEMA_SUFFIX
from training.domains.sql.queries.parsing import order_columns, ordered, parse
from training.domains.sql.queries.template import canonical
from training.domains.sql.text_to_sql.generate import Answer
from training.domains.sql.text_to_sql.predictors import NEIGHBOUR, TUNED, cleaned
from training.judgement import About, Finding, Metric, Resampling, against, compare, resample
from training.sampling_unit import Unit

if TYPE_CHECKING:
    from training.data.rows import Row

QUESTION = Unit("question", "questions")
CLUSTER = Unit("database or form of a query", "databases or forms of queries")  # what `metrics_of` draws
ABOUT = {
    "exec": About("higher", "%", "Answers that give the same rows as the right query, on the database itself."),
    "suite": About("higher", "%", "Answers that give the right rows on the database and on each of its copies with "
                   "other content, which a query that is right by chance does not."),
    "exact": About("higher", "%", "Answers that are the right query, but for names of aliases and order where it does "
                   "not matter."),
    "bird": About("higher", "%", "Execution accuracy as BIRD counts it: rows as a set, without order or repetitions."),
    "valid": About("higher", "%", "Answers that are a query which runs."),
    "ended": About("higher", "%", "Answers that ended, with the end token or a semicolon, not at the limit of tokens."),
}  # fmt: skip
SHOWN_ANSWERS, SHOWN_ROWS, SHOWN_CELLS = 12, 5, 60


@dataclass
class Outcome:
    """How one answer did. None: cannot be judged (no database, one without rows, a right query that gives none)."""

    sql: str
    exec: bool | None = None
    suite: bool | None = None
    exact: bool = False
    bird: bool | None = None
    valid: bool | None = False
    ended: bool = True
    #: `suite`, or `exact` of a question that is judged by its text; None: it is not judged
    right: bool | None = None
    error: str = ""  # the kind of mistake; empty if the answer is right
    result: Result | None = field(default=None, repr=False)


@dataclass
class Gold:
    """The right query of a question, and what it gives on the database and on those copies on which it runs (a copy's
    values may be none that its functions take: half of a JSON text, say)."""

    row: Row
    ordered: bool
    ties: tuple[int, ...] | None
    form: str
    result: Result
    copies: list[tuple[Path, Result]]

    @property
    def judged(self) -> bool:
        """Whether it runs, and any of the databases has rows for it: if not, an answer that gives nothing would be
        right."""
        return self.result.rows is not None and any(
            found.rows for found in [self.result, *(result for _, result in self.copies)]
        )


class Judge:
    """Judges answers to the questions of `rows`. `cache`: folder of the copies; `workers`: child processes."""

    def __init__(self, rows: Sequence[Row], cache: Path, copies: int, seconds: float, seed: int, workers: int = 2):
        self.rows, self.cache, self.count, self.seed = rows, cache, copies, seed
        self.executor = Executor(seconds=seconds, workers=workers)
        self.golds: list[Gold] = []

    def __enter__(self) -> Judge:
        self.executor.__enter__()
        self.golds = self._golds()
        return self

    def __exit__(self, *error: object) -> None:
        self.executor.__exit__(*error)

    def _golds(self) -> list[Gold]:
        of_database: dict[str, list[str]] = {}
        for row in self.rows:
            queries = of_database.setdefault(_place(row), [])
            if not _by_text(row):
                queries.append(row.values["sql"])
        copies = {
            place: make_copies(Path(place), queries, self.cache, self.count, self.seed)
            if self.count and queries and not _is_url(place)
            else []
            for place, queries in of_database.items()
        }
        pairs = [(place, row.values["sql"]) for row in self.rows for place in _places(row, copies)]
        results = iter(self.executor.run_all(pairs))
        golds = []
        for row in self.rows:
            query = parse(row.values["sql"], row.values["dialect"], allow_writes=True)
            others = _places(row, copies)[1:]
            first, found = next(results), [(Path(place), next(results)) for place in others]
            golds.append(
                Gold(row, ordered(query), order_columns(query), canonical(query), first,
                     [(path, result) for path, result in found if result.rows is not None])
            )  # fmt: skip
        return golds

    def judge(self, answers: Sequence[Answer]) -> list[Outcome]:
        """The outcome of each answer."""
        texts = [cleaned(answer.text) for answer in answers]
        pairs, owners = [], []
        for number, (gold, text) in enumerate(zip(self.golds, texts, strict=True)):
            for place in [_place(gold.row), *(str(path) for path, _ in gold.copies)]:
                pairs.append((place, text))
                owners.append(number)
        found: dict[int, list[Result]] = {}
        for number, result in zip(owners, self.executor.run_all(pairs), strict=True):
            found.setdefault(number, []).append(result)
        return [
            _outcome(gold, answer, text, found[number])
            for number, (gold, answer, text) in enumerate(zip(self.golds, answers, texts, strict=True))
        ]


def _outcome(gold: Gold, answer: Answer, sql: str, results: Sequence[Result]) -> Outcome:
    own, *copies = results
    outcome = Outcome(sql, ended=answer.ended)
    if not _place(gold.row).endswith(SCHEMA_SUFFIX):
        outcome.valid, outcome.result = own.rows is not None, own
    else:
        outcome.valid = None  # there is nothing to run it on
    try:
        outcome.exact = canonical(parse(sql, gold.row.values["dialect"], _by_text(gold.row))) == gold.form
    except ValueError:
        outcome.exact = False
    if _by_text(gold.row) or not gold.judged:
        outcome.right = outcome.exact if _by_text(gold.row) else None
        outcome.error = "" if outcome.exact else "another query"
        return outcome
    outcome.exec = own.rows is not None and same_rows(gold.result, own, gold.ordered, gold.ties)
    outcome.bird = own.rows is not None and same_set(gold.result, own)
    outcome.suite = outcome.exec and all(
        other.rows is not None and same_rows(right, other, gold.ordered, gold.ties)
        for (_, right), other in zip(gold.copies, copies, strict=True)
    )
    outcome.right, outcome.error = outcome.suite, "" if outcome.suite else kind_of_error(gold, outcome)
    return outcome


def kind_of_error(gold: Gold, outcome: Outcome) -> str:
    """What is wrong with an answer, in a few words."""
    result = outcome.result
    if not outcome.sql:
        return "no query"
    if not outcome.ended:
        return "did not end"
    if result is None or result.rows is None:
        error = (result.error if result is not None else "") or ""
        if "no such table" in error or ("relation" in error and "does not exist" in error):
            return "unknown table"
        if "no such column" in error or ("column" in error and "does not exist" in error):
            return "unknown column"
        return "took too long" if error.startswith("timeout") else "no valid query"
    if outcome.exec:
        return "right by chance"
    right = gold.result
    if right.rows and result.rows and len(right.rows[0]) != len(result.rows[0]):
        return "other columns"
    if gold.ordered and same_rows(right, result, False):
        return "other order"
    if not result.rows:
        return "no rows"
    return "other rows"


# -- figures -------------------------------------------------------------------------------------------------------


def metrics_of(
    outcomes: Mapping[str, Sequence[Outcome]], rows: Sequence[Row], trained_on: Collection[str], seed: int
) -> dict[str, Metric]:
    """The figures of every predictor, by a bootstrap over databases and then over their questions. `trained_on`: the
    databases of training. Held-out questions about them show nothing of other databases; what is new about them is the
    form of the query (the template), so these forms are drawn instead."""
    names = [
        (row.values["database"], row.values.get("template") or row.values["id"])
        if row.values["database"] in trained_on
        else row.values["database"]
        for row in rows
    ]
    number = {name: at for at, name in enumerate(dict.fromkeys(names))}
    resampling = Resampling(len(rows), seed, clusters=np.array([number[name] for name in names]))
    drawn = {name: resample(_sums(found), resampling, dict) for name, found in outcomes.items()}
    metrics = compare(ABOUT, drawn[TUNED], {name: of for name, of in drawn.items() if name != TUNED})
    if NEIGHBOUR in outcomes:
        metrics["ended"].baselines.pop(NEIGHBOUR, None)
        metrics["ended"].gaps.pop(NEIGHBOUR, None)
    return metrics


def _sums(outcomes: Sequence[Outcome]) -> dict[str, np.ndarray]:
    """Name -> float64 [questions, 2]: 100 if right, and 1 if judged."""
    out = {}
    for name in ABOUT:
        values = [getattr(outcome, name) for outcome in outcomes]
        sums = np.array([[0.0, 0.0] if value is None else [100.0 * value, 1.0] for value in values])
        if sums[:, 1].any():
            out[name] = sums
    return out


def findings(metrics: Mapping[str, Metric]) -> list[Finding]:
    """The comparisons on which the verdict rests: `suite` (or what is judged of it) above every baseline."""
    titles = {
        "base": "the base model",
        "base with examples": "the base model with examples",
        NEIGHBOUR: "copying the nearest training question",
    }
    name = next(name for name in ("suite", "exec", "exact") if name in metrics)
    what = {"suite": "right answers", "exec": "right answers", "exact": "answers equal to the right query"}[name]
    unit = QUESTION if metrics[name].estimated else CLUSTER
    return [
        against(metrics[name], other, titles[other], what, paired=True, unit=unit) for other in metrics[name].baselines
    ]


def tables(outcomes: Mapping[str, Sequence[Outcome]], rows: Sequence[Row]) -> dict[str, Any]:
    """For the report: right answers by hardness, stratum, database and kind; mistakes by kind; some answers."""
    keys = {"hardness": ("easy", "medium", "hard", "extra"), "stratum": (), "database": (), "kind": ()}
    out: dict[str, Any] = {}
    for key, order in keys.items():
        values = [row.values.get(key) or "" for row in rows]
        names = [name for name in order if name in values] or [name for name in dict.fromkeys(values) if name]
        if names:
            out[key] = [
                {"name": name, **_share_right(outcomes, values, name)} for name in sorted(names, key=_rank(order))
            ]
    mistakes = Counter(outcome.error for outcome in outcomes[TUNED] if outcome.error)
    out["errors"] = [{"kind": kind, "count": count} for kind, count in mistakes.most_common()]
    out["answers"] = _some_answers(outcomes, rows)
    out["unjudged"] = sum(outcome.suite is None for outcome in outcomes[TUNED])
    return out


def _rank(order: Sequence[str]) -> Callable[[str], Any]:
    return lambda name: (order.index(name) if name in order else len(order), name)


def _share_right(outcomes: Mapping[str, Sequence[Outcome]], values: Sequence[str], name: str) -> dict[str, Any]:
    chosen = [index for index, value in enumerate(values) if value == name]
    shares = {}
    for predictor, found in outcomes.items():
        judged = [found[index].right for index in chosen if found[index].right is not None]
        shares[predictor] = 100.0 * sum(judged) / len(judged) if judged else None
    return {"questions": len(chosen), "right": shares}


def _some_answers(outcomes: Mapping[str, Sequence[Outcome]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Right and wrong answers in turn, each with its rows."""
    tuned = outcomes[TUNED]
    right = [index for index, outcome in enumerate(tuned) if outcome.right]
    wrong = [index for index, outcome in enumerate(tuned) if outcome.right is False]
    half = SHOWN_ANSWERS // 2
    few = min(half, len(wrong))
    chosen = [*_spread(right, SHOWN_ANSWERS - few), *_spread(wrong, max(few, SHOWN_ANSWERS - len(right)))]
    return [
        {
            "question": rows[index].values["question"], "database": rows[index].values["database"],
            "right": rows[index].values["sql"], "answer": tuned[index].sql, "base": outcomes["base"][index].sql
            if "base" in outcomes else None, "error": tuned[index].error, **_table(tuned[index].result),
        }
        for index in chosen
    ]  # fmt: skip


def _spread(indices: Sequence[int], count: int) -> list[int]:
    if not indices:
        return []
    return [
        indices[at]
        for at in dict.fromkeys(np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int).tolist())
    ]


def _table(result: Result | None) -> dict[str, Any]:
    if result is None or result.rows is None:
        return {"columns": [], "rows": [], "more": 0, "failure": result.error if result is not None else None}
    rows = [[_cell(value) for value in row] for row in result.rows[:SHOWN_ROWS]]
    return {
        "columns": list(result.columns),
        "rows": rows,
        "more": max(0, len(result.rows) - SHOWN_ROWS),
        "failure": None,
    }


def _cell(value: Any) -> str:
    text = "NULL" if value is None else f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
    return text if len(text) <= SHOWN_CELLS else text[: SHOWN_CELLS - 3] + "..."


def _by_text(row: Row) -> bool:
    """Whether answers are compared with the right query itself: there is no database, or that query writes."""
    return row.values.get("judged") == "text"


def _is_url(place: str) -> bool:
    return place.startswith(("postgres://", "postgresql://"))


def _place(row: Row) -> str:
    """Where a row's database is: the path of a file, or a URL."""
    return str(row.values.get("database_url") or row.values["database_path"])


def _places(row: Row, copies: Mapping[str, Sequence[Path]]) -> list[str]:
    place = _place(row)
    return [place, *(str(path) for path in copies[place])]
