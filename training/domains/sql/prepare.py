"""`prepare`: from questions and databases to manifests, stores, quarantine and summary."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.data.encode import TOO_MANY, Quarantined, encode_files, preload, write_quarantine
from training.data.files import printable
from training.data.identity import is_marked_synthetic
from training.data.writing import QUARANTINE, file_name, write_manifests
from training.domain import Job
from training.domains.sql.databases.execution import Executor
from training.domains.sql.databases.schema import Dialect, Schema
from training.domains.sql.databases.sqlite import DATABASE, schema_of
from training.domains.sql.families import TEXT_TO_SQL
from training.domains.sql.questions.checking import SECONDS, Checks, Gold
from training.domains.sql.questions.leakage import leakage, refuse_doubles
from training.domains.sql.questions.options import dialect_of
from training.domains.sql.questions.reading import KIND, Question, databases_in, further_down, read
from training.domains.sql.questions.splitting import split, stratum
from training.domains.sql.questions.targets import Target, Targets
from training.domains.sql.rows import DATABASE_PATH
from training.domains.sql.summary import Summary, report
from training.errors import DataError, UsageError
from training.threads import share
from training.workspace import exclusive

MANIFEST = TEXT_TO_SQL.manifest
SPLITS = ("train", "val", "test")
LEVELS = ("easy", "medium", "hard", "extra")
#: Beginnings of the reasons of a refusal -> how the summary counts it.
SHORT = (
    ("does not execute: timeout", "over time"), ("does not execute", "not executed"), ("does not parse", "not parsed"),
    ("unknown table", "unknown table"), ("unknown column", "unknown column"), ("no question", "incomplete"),
    ("no sql", "incomplete"), ("the form of", "unknown form"), ("its result changes", "not repeatable"),
    ("the same question", "contradictory"),
    ("database ", "no usable database"), ("there is no database", "no usable database"),
    ("names no database", "no usable database"), ("has no schema", "no usable database"), ("", "others"),
)  # fmt: skip
_SHOWN = 10


def prepare(job: Job) -> Summary:
    """Read questions, find their databases, check and execute the SQL, split and write the manifests; a second run over
    the same files changes nothing.

    Options: the domain's; `val_split`: share of the questions that are held out where --val is not given.

    Raises DataError if there is nothing to train on or more than TOO_MANY of the questions are refused, UsageError for
    invalid options.
    """
    options = job.options
    if job.path("train") is None:
        raise UsageError("--train is needed: the file of the questions and their SQL.")
    if not 0 < options["val_split"] < 1:
        raise UsageError(
            f"--val-split is the share of questions held out, between 0 and 1; it is {options['val_split']:g}."
        )
    with exclusive(job.workspace.manifests, "preparing data"):
        return _Preparation(job, dialect_of(options)).run()


@dataclass
class _Preparation:
    job: Job
    dialect: Dialect
    quarantine: list[Quarantined] = field(default_factory=list)
    read: int = 0  # rows of the files
    bad: int = 0  # of them refused

    def run(self) -> Summary:
        job, options = self.job, self.job.options
        self.folder = job.path("databases")
        self.files = {name: path for name in SPLITS if (path := job.path(name)) is not None}
        pairs, schemas = self._targets()
        checks = Checks(self.dialect, bool(options.get("allow_writes")))
        with Executor(SECONDS, job.workers or share()) as executor:
            golds = {
                name: checks.golds(printable(self.files[name]), pairs[name], schemas, executor) for name in self.files
            }
        self.quarantine += checks.refused
        self.bad += len(checks.refused)
        self._refuse_if_too_many()
        empty = [name for name, found in golds.items() if not found]
        self._refuse(bool(empty), f"No question of {printable(self.files[empty[0]])} can be used." if empty else "")
        by = self._split(golds)
        kept = _kept_together(golds, by)
        rows = {name: self._rows(name, golds, kept) for name in SPLITS if name in golds}
        compared = {
            name: [
                row | {"canonical": gold.canonical, "asked": gold.asked}
                for row, gold in zip(rows[name], golds[name], strict=True)
            ]
            for name in rows
        }
        refuse_doubles(compared)
        summary = self._summary(golds, rows, schemas, by)
        summary.doubles, summary.leakage = checks.doubles, leakage(compared)
        self._write(summary, rows)
        report(summary, job.workspace.relative(job.workspace.manifests), job.say)
        return summary

    # reading

    def _targets(self) -> tuple[dict[str, list[tuple[Question, Target]]], dict[Path, Schema]]:
        """The questions of each split with their databases, and the schema of every database."""
        job = self.job
        databases = databases_in(self.folder) if self.folder is not None else {}
        self._refuse(
            self.folder is not None and not databases,
            f"{printable(self.folder or '')} holds no database: <id>.sqlite, <id>.db, or <id>/<id>.sqlite."
            + (further_down(self.folder) if self.folder is not None else ""),
        )
        places = Targets(
            self.dialect, databases, job.options.get("database_url") or "", job.workspace.root / "data" / "databases"
        )
        pairs: dict[str, list[tuple[Question, Target]]] = {}
        for name, path in self.files.items():
            questions, refused = read(path, job.options.get("text_column"))
            self.read += len(questions) + len(refused)
            self.bad += len(refused)
            self.quarantine += refused
            pairs[name] = []
            for question in questions:
                try:
                    pairs[name].append((question, places.of(question)))
                except ValueError as error:
                    self._refuse_question(name, question, str(error))
        return self._decoded(pairs)

    def _decoded(
        self, pairs: Mapping[str, Sequence[tuple[Question, Target]]]
    ) -> tuple[dict[str, list[tuple[Question, Target]]], dict[Path, Schema]]:
        """The pairs whose database can be read, and the schemas."""
        preload(DATABASE)
        paths = list(dict.fromkeys(target.path for of in pairs.values() for _, target in of))
        records, refused = encode_files(paths, DATABASE, self.job.workspace.cache, self.job.workers, self.job.say)
        self.quarantine += refused.values()
        self.contents = {path: record.key.hex() for path, record in records.items()}
        good: dict[str, list[tuple[Question, Target]]] = {name: [] for name in pairs}
        for name, of in pairs.items():
            for question, target in of:
                if target.path in records:
                    good[name].append((question, target))
                else:
                    self._refuse_question(name, question, f"database {target.id}: {refused[target.path].reason}")
        return good, {path: schema_of(record) for path, record in records.items()}

    # refusing

    def _refuse_question(self, name: str, question: Question, reason: str) -> None:
        self.quarantine.append(Quarantined(printable(self.files[name]), KIND, reason, question.place))
        self.bad += 1

    def _refuse_if_too_many(self) -> None:
        self._refuse(
            self.bad > TOO_MANY * self.read,
            f"{self.bad} of {self.read} questions cannot be used; more than {TOO_MANY:.0%} is refused.{self._hint()}",
        )

    def _hint(self) -> str:
        """Names the other dialect where SQL was refused and no option names its own."""
        refused = any(item.reason.startswith(("does not parse", "does not execute")) for item in self.quarantine)
        named = self.job.options.get("dialect") or self.job.options.get("database_url")
        if named or not refused:
            return ""
        return " They were read as SQLite's SQL; for PostgreSQL's add --dialect postgres."

    def _refuse(self, hopeless: bool, why: str) -> None:
        if hopeless:
            write_quarantine(self.job.workspace.manifests / QUARANTINE, self.quarantine)
            alike: dict[str, list[str]] = defaultdict(list)  # a reason once, with the first place
            for item in self.quarantine:
                alike[item.reason].append(item.place or item.path)
            lines = [
                f"  {places[0]}{f' and {len(places) - 1} more' if places[1:] else ''}: {reason}"
                for reason, places in list(alike.items())[:_SHOWN]
            ]
            more = sum(map(len, list(alike.values())[_SHOWN:]))
            place = self.job.workspace.relative(self.job.workspace.manifests / QUARANTINE)
            raise DataError("\n".join([why, *lines, *([f"  ... and {more} more: {place}"] if more else [])]))

    # splitting

    def _split(self, golds: dict[str, list[Gold]]) -> str:
        """Hold out part of the training questions where no file of held-out ones is given; returns what they are split
        by."""
        if "val" in golds:
            return _kept_together(golds, "database")
        every = golds["train"]
        held, by = split(
            [gold.target.id for gold in every], [gold.template for gold in every],
            self.job.options["val_split"], self.job.seed,
        )  # fmt: skip
        golds["train"] = [gold for gold, is_held in zip(every, held, strict=True) if not is_held]
        golds["val"] = [gold for gold, is_held in zip(every, held, strict=True) if is_held]
        return by

    # rows

    def _rows(self, name: str, golds: Mapping[str, Sequence[Gold]], by: str) -> list[dict[str, Any]]:
        """The rows of a split. `by`: what rows of one group have in common."""
        rows = [self._row(gold, by) for gold in golds[name]]
        if name == "train":
            return rows
        training = [self._row(gold, by) for gold in golds["train"]]
        known = {key: frozenset(row[key] for row in training) for key in ("database", "template", "kind", "wording")}
        for row in rows:
            row["stratum"] = stratum(row, known)
        return rows

    def _row(self, gold: Gold, by: str) -> dict[str, Any]:
        question, target = gold.question, gold.target
        double = hashlib.sha256(f"{target.id}\0{gold.asked}\0{gold.canonical}".encode("utf-8", "replace"))
        group = {"database": target.id, "template": gold.template}.get(by, double.hexdigest()[:16])
        row = {
            "id": question.id, "question": question.question, "sql": question.sql, "database": target.id,
            DATABASE_PATH: str(target.path), "dialect": self.dialect, "evidence": question.evidence,
            "template": gold.template, "hardness": gold.hardness, "judged": gold.judged, "group": group,
        }  # fmt: skip
        if target.url:
            row["database_url"] = target.url
        for key in ("kind", "wording"):
            value = question.extra.get(key)
            row[key] = value if isinstance(value, str) else ""
        return row

    # summary

    def _summary(
        self, golds: Mapping[str, Sequence[Gold]], rows: Mapping[str, Sequence[dict]], schemas: Mapping[Path, Schema],
        by: str,
    ) -> Summary:  # fmt: skip
        options = self.job.options
        summary = Summary(
            self._synthetic(), self.job.seed, options["val_split"], self.dialect, by, read=self.read,
            quarantined=[asdict(item) for item in self.quarantine],
        )  # fmt: skip
        every = [gold for of in golds.values() for gold in of]
        summary.questions = {name: len(of) for name, of in rows.items()}
        summary.empty = sum(gold.empty for gold in every)
        summary.by_text = sum(gold.judged == "text" for gold in every)
        summary.templates = len({gold.template for gold in golds["train"]})
        summary.databases = self._databases(golds, schemas)
        for name, of in golds.items():
            levels = Counter(gold.hardness for gold in of)
            summary.hardness[name] = {level: levels[level] for level in LEVELS if levels[level]}
            summary.clauses[name] = dict(sorted(Counter(clause for gold in of for clause in gold.clauses).items()))
            if name != "train":
                summary.strata[name] = dict(sorted(Counter(row["stratum"] for row in rows[name]).items()))
        reasons = Counter(_short(item.reason) for item in self.quarantine if item.kind == KIND)
        summary.reasons = dict(reasons.most_common())
        summary.digest = self._digest(golds)
        return summary

    def _databases(self, golds: Mapping[str, Sequence[Gold]], schemas: Mapping[Path, Schema]) -> dict[str, dict]:
        """Id -> facts, in the order of the ids."""
        found: dict[str, dict[str, Any]] = {}
        for name, of in golds.items():
            for gold in of:
                target = gold.target
                if target.id not in found:
                    tables = schemas[target.path].tables
                    found[target.id] = {
                        "file": target.path.name, "tables": len(tables),
                        "columns": sum(len(table.columns) for table in tables),
                        "rows": sum(table.rows for table in tables), "questions": dict.fromkeys(golds, 0),
                    }  # fmt: skip
                found[target.id]["questions"][name] += 1
        return dict(sorted(found.items()))

    def _synthetic(self) -> bool:
        return is_marked_synthetic(self.folder, *(path.parent for path in self.files.values()))

    def _digest(self, golds: Mapping[str, Sequence[Gold]]) -> str:
        content = hashlib.sha256()
        for name, of in sorted(golds.items()):
            for gold in of:
                question, target = gold.question, gold.target
                parts = (name, question.id, question.question, question.sql, question.evidence, target.id,
                         self.contents[target.path])  # fmt: skip
                content.update("\0".join(parts).encode("utf-8", "replace") + b"\n")
        return content.hexdigest()

    def _write(self, summary: Summary, rows: Mapping[str, Sequence[dict]]) -> None:
        manifests = {file_name(MANIFEST, name): of for name, of in rows.items()}
        summary.manifests = sorted(manifests)
        content = {key: value for key, value in asdict(summary).items() if key != "up_to_date"}
        summary.up_to_date = not write_manifests(self.job.workspace.manifests, manifests, content, self.quarantine)


def _kept_together(golds: Mapping[str, Sequence[Gold]], by: str) -> str:
    """What rows of one group have in common: `by`, if no database (or template) is in two splits, as it may be where
    the user's files hold them; else "files": only equal questions are a group."""
    values = [{gold.target.id if by == "database" else gold.template for gold in of} for of in golds.values()]
    return by if sum(map(len, values)) == len(set().union(*values)) else "files"


def _short(reason: str) -> str:
    return next(short for beginning, short in SHORT if reason.startswith(beginning))
