"""Checks golds: SQL that parses, fits its schema, executes in time, and means the same tomorrow."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from training.data.encode import Quarantined
from training.domains.sql.databases.execution import Executor, Result, deterministic
from training.domains.sql.databases.schema import Dialect, Schema
from training.domains.sql.databases.sqlite import SCHEMA_SUFFIX
from training.domains.sql.queries.hardness import clauses, hardness
from training.domains.sql.queries.parsing import Query, ordered, parse
from training.domains.sql.queries.template import canonical, template
from training.domains.sql.queries.validity import check
from training.domains.sql.questions.reading import KIND, Question
from training.domains.sql.questions.targets import Target

SECONDS = 5.0  # that a gold may take
_AT_ONCE = 256  # golds whose rows are held in memory


@dataclass(frozen=True)
class Gold:
    """A question whose SQL passed the checks."""

    question: Question
    target: Target
    canonical: str
    template: str
    hardness: str
    clauses: frozenset[str]
    reads: bool  # it is no statement that writes
    ordered: bool  # the order of its rows is part of the answer
    rows: str = ""  # digest of the rows that it returns; empty: not executed
    empty: bool = False  # it returns no rows

    @property
    def judged(self) -> str:
        """How an answer is judged: a statement that writes is never executed."""
        return self.target.judged if self.reads else "text"

    @property
    def asked(self) -> str:
        """The question without differences of case and space."""
        return " ".join(self.question.question.casefold().split())


@dataclass
class Checks:
    """Checks the questions of one file after another. `refused`: what did not pass."""

    dialect: Dialect
    allow_writes: bool = False
    refused: list[Quarantined] = field(default_factory=list)
    doubles: int = 0  # questions left out because an equal one is used

    def golds(
        self,
        path: str,
        pairs: Sequence[tuple[Question, Target]],
        schemas: Mapping[Path, Schema],
        executor: Executor,
    ) -> list[Gold]:
        """The questions of the file `path` that pass. `schemas`: of the targets' paths."""
        read: list[Gold] = []
        for question, target in pairs:
            try:
                read.append(self._read(question, target, schemas[target.path]))
            except ValueError as error:
                self._refuse(path, question, str(error))
        return self._consistent(path, self._executed(path, read, executor))

    def _read(self, question: Question, target: Target, schema: Schema) -> Gold:
        """Parse a gold and check its names. Raises ValueError with the reason."""
        query = parse(question.sql, self.dialect, self.allow_writes)
        check(query, schema)
        function = deterministic(question.sql)
        if function is not None:
            raise ValueError(f"its result changes from run to run: {function}")
        return Gold(
            question, target, canonical(query), template(query), hardness(query), clauses(query), self._reads(query),
            ordered(query),
        )  # fmt: skip

    def _reads(self, query: Query) -> bool:
        """Whether the statement only reads."""
        if not self.allow_writes:
            return True
        try:
            parse(query.sql, self.dialect)
        except ValueError:
            return False
        return True

    def _executed(self, path: str, golds: list[Gold], executor: Executor) -> list[Gold]:
        """The golds that execute, with the digests of their rows. Those of tables without rows are executed too: an
        error in them is found that way."""
        done = []
        for begin in range(0, len(golds), _AT_ONCE):
            part = golds[begin : begin + _AT_ONCE]
            runs = [gold for gold in part if self._executable(gold)]
            results = executor.run_all([(gold.target.place, gold.question.sql) for gold in runs])
            of = {gold.question.id: result for gold, result in zip(runs, results, strict=True)}
            for gold in part:
                result = of.get(gold.question.id)
                if result is not None and result.rows is None:
                    self._refuse(path, gold.question, f"does not execute: {result.error}")
                elif result is None or gold.judged != "execution":
                    done.append(gold)
                else:
                    done.append(replace(gold, rows=_digest(result, gold.ordered), empty=not result.rows))
        return done

    @staticmethod
    def _executable(gold: Gold) -> bool:
        """Whether there is a database for it, and it only reads."""
        return gold.reads and not gold.target.place.endswith(SCHEMA_SUFFIX)

    def _consistent(self, path: str, golds: list[Gold]) -> list[Gold]:
        """Each question once. One that has several answers, with other rows, has no right one."""
        alike: dict[tuple[str, str, str], list[Gold]] = defaultdict(list)
        for gold in golds:
            alike[gold.target.id, gold.asked, gold.question.evidence].append(gold)
        kept = []
        for group in alike.values():
            first = group[0]
            if len({gold.canonical for gold in group}) > 1 and len({gold.rows or gold.canonical for gold in group}) > 1:
                for gold in group:
                    other = next(one for one in group if one.canonical != gold.canonical)
                    self._refuse(path, gold.question, f"the same question has other SQL in {other.question.place}")
                continue
            self.doubles += len(group) - 1
            kept.append(first)
        order = {gold.question.id: number for number, gold in enumerate(golds)}
        return sorted(kept, key=lambda gold: order[gold.question.id])

    def _refuse(self, path: str, question: Question, reason: str) -> None:
        self.refused.append(Quarantined(path, KIND, reason, question.place))


def _digest(result: Result, in_order: bool) -> str:
    """Of the rows: in their order, or in any."""
    lines = [repr(row) for row in result.rows or ()]
    lines = lines if in_order else sorted(lines)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:16]
