"""Makes the demo: databases, and questions about them with their SQL.

    data/demo/databases/<subject>.sqlite   data/demo/{train,val,test}.jsonl   data/demo/synthetic.json

For PostgreSQL, data/demo/postgres/<subject>.sql instead, to be loaded into a server; each question has its schema.

Held-out questions are about databases that training does not have, in wordings that it does not have; a third of them
combine clauses that training has only separately.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.data.files import write_atomic
from training.data.identity import MARKER
from training.domain import Job
from training.domains.sql.databases.schema import Dialect
from training.domains.sql.demo import compositions, idioms, kinds, schemas
from training.domains.sql.demo.composed_wordings import COMPOSITIONS
from training.domains.sql.demo.drafts import Draft, World
from training.domains.sql.demo.filling import Content, create, fill, script, write_database
from training.domains.sql.demo.idioms import IDIOMS
from training.domains.sql.demo.phrases import Speaker
from training.domains.sql.demo.schemas import Subject
from training.domains.sql.demo.scope import SCOPES, Name, Scope, of
from training.domains.sql.demo.wordings import KINDS, OPENINGS, Wordings
from training.domains.sql.questions.options import dialect_of
from training.errors import UsageError

SPLITS = ("train", "val", "test")
QUESTIONS = 900  # of training, by default
HELD_OUT, FEWEST_HELD_OUT, MOST_HELD_OUT = 4 / 15, 12, 96  # share of their number that each held-out split has
FEWEST = 30  # training questions, below which not every kind of query can occur
COMPOSED = 1 / 3  # of the held-out questions
TRIES = 40  # drafts of one kind about one database, before another database is drawn
MOST_OTHERS = 20  # other kinds that are tried where a kind has nothing new
DRAFTS = kinds.DRAFTS | compositions.DRAFTS | idioms.DRAFTS
WORDINGS = KINDS | COMPOSITIONS | IDIOMS
MOST_ROWS = 60  # that an answer may have, but for complete lists of a table
SOURCES = ("schemas.py", "subjects_work.py", "subjects_leisure.py", "filling.py", "phrases.py", "drafts.py",
           "kinds.py", "compositions.py", "wordings.py", "composed_wordings.py", "idioms.py", "scope.py",
           "making.py")  # fmt: skip


def make_demo(job: Job) -> Mapping[str, Any]:
    """Make the demo in the workspace, all of it a function of `job.seed`, of the options `questions` (of training) and
    `scope` (of scope.py), and of the dialect. Returns the options that name it. A complete demo of the same seed, size
    and code is left as it is.

    Raises UsageError for a number of questions below FEWEST.
    """
    count = QUESTIONS if job.options.get("questions") is None else int(job.options["questions"])
    if count < FEWEST:
        raise UsageError(
            f"--questions is the number of the demo's training questions, from {FEWEST} up; it is {count}."
        )
    scope: Name = job.options.get("scope") or "short"
    dialect = dialect_of(job.options)
    folder = job.workspace.root / "data" / "demo"
    options = {split: folder / f"{split}.jsonl" for split in SPLITS}
    about = {
        "synthetic": True, "what": "databases filled by rules, and questions and SQL written by rules",
        "seed": job.seed, "questions": count, "scope": scope, "dialect": dialect, "code_version": code_version(),
    }  # fmt: skip
    if dialect == "sqlite":
        options["databases"] = folder / "databases"
    marker = json.dumps(about, indent=1).encode() + b"\n"
    made = folder / MARKER
    if made.is_file() and made.read_bytes() == marker and all(path.exists() for path in options.values()):
        return options
    made.unlink(missing_ok=True)  # it is written last: an interrupted demo has none
    for split, rows in _made(job.seed, count, folder, of(scope, dialect), dialect).items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_atomic(options[split], "".join(lines).encode())
    write_atomic(made, marker)
    return options


def _made(seed: int, count: int, folder: Path, scope: Scope, dialect: Dialect) -> dict[str, list[dict[str, str]]]:
    """The questions of every split, with their databases under `folder`: files of SQLite, or scripts for psql."""
    if dialect == "sqlite":
        return demo_questions(seed, count, folder / "databases", scope)
    schema = {}
    for subject, content in _filled(seed, scope):
        write_atomic(folder / "postgres" / f"{subject.name}.sql", script(subject, content).encode())
        schema[subject.name] = "\n".join(f"{create(subject, table)};" for table in subject.tables)
    with tempfile.TemporaryDirectory() as place:  # in which the queries are checked
        found = demo_questions(seed, count, Path(place), scope)
    return {split: [row | {"schema": schema[row["db_id"]]} for row in rows] for split, rows in found.items()}


def _filled(seed: int, scope: Scope) -> Iterator[tuple[Subject, Content]]:
    for subjects in schemas.parts(seed).values():
        for subject in scope.databases(subjects):
            yield subject, fill(subject, seed)


def code_version() -> str:
    """Digest of the code that makes the demo; a demo of another version is made again."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in SOURCES)).hexdigest()[:16]


def demo_questions(
    seed: int, count: int, databases: Path, scope: Scope = SCOPES["short"]
) -> dict[str, list[dict[str, str]]]:
    """Fill the databases, and draw the questions of every split; `count`: of training."""
    parts = {split: scope.databases(subjects) for split, subjects in schemas.parts(seed).items()}
    held = [subject for split in ("val", "test") for subject in parts[split]]
    reserved = frozenset() if scope.own_words else frozenset[str]().union(*(subject.own_words for subject in held))
    held_out = min(MOST_HELD_OUT, max(FEWEST_HELD_OUT, round(count * HELD_OUT)))
    found = {}
    for split, subjects in parts.items():
        contents = {subject.name: fill(subject, seed) for subject in subjects}
        for subject in subjects:
            write_database(databases / f"{subject.name}.sqlite", subject, contents[subject.name])
        writer = _Writer(split, seed, scope, subjects, contents, reserved, databases)
        found[split] = writer.questions(count if split == "train" else held_out)
    return found


@dataclass
class _Writer:
    """Draws the questions of one split."""

    split: str
    seed: int
    scope: Scope
    subjects: Sequence[Subject]
    contents: Mapping[str, Content]
    reserved: frozenset[str]
    databases: Path
    known: set[tuple[str, str]] = field(default_factory=set)  # (database, question or SQL)
    used: Counter = field(default_factory=Counter)  # kind, and (kind, number of a wording) -> questions
    asked: Counter = field(default_factory=Counter)  # subject -> questions

    @property
    def held(self) -> bool:
        return self.split != "train"

    def questions(self, count: int) -> list[dict[str, str]]:
        """`count` questions, with kinds and databases in equal shares, in a random order."""
        draw = random.Random(f"questions {self.seed} {self.split}")
        composed = round(count * COMPOSED) if self.held else 0
        wanted = [*self._kinds(count - composed, self.scope.kinds, draw)]
        wanted += self._kinds(composed, self.scope.compositions, draw)
        rows = []
        for kind in wanted:
            row = self._question(kind, draw)
            for _ in range(MOST_OTHERS):
                if row is None:  # none of the databases has anything new for this kind
                    row = self._question(draw.choice(wanted), draw)
            if row is None:
                raise UsageError(
                    f"--questions {count}: the demo's rules make {len(rows)} different ones; request fewer."
                )
            rows.append(row)
        draw.shuffle(rows)
        return rows

    @staticmethod
    def _kinds(count: int, every: Sequence[str], draw: random.Random) -> Iterator[str]:
        """`count` kinds, each as often as the others."""
        order = draw.sample(every, len(every))
        return (order[index % len(order)] for index in range(count))

    def _question(self, kind: str, draw: random.Random) -> dict[str, str] | None:
        """A question of a kind, about the database that has the fewest so far and for which one can be drafted."""
        order = sorted(draw.sample(self.subjects, len(self.subjects)), key=lambda subject: self.asked[subject.name])
        for subject in order:
            world = World(subject, Speaker(draw, self.held, self.reserved, self.contents[subject.name]), draw)
            with closing(sqlite3.connect(self.databases / f"{subject.name}.sqlite")) as database:
                for _ in range(TRIES):
                    row = self._draft(kind, world, database)
                    if row is not None:
                        self.asked[subject.name] += 1
                        return row
        return None

    def _draft(self, kind: str, world: World, database: sqlite3.Connection) -> dict[str, str] | None:
        draft = DRAFTS[kind](world)
        name = world.subject.name
        if draft is None or (name, draft.sql) in self.known or not sound(draft, kind, database):
            return None
        wordings = WORDINGS[kind]
        number, text = self._wording(kind, wordings, world.draw)
        show = world.draw.choice(OPENINGS) if "{show}" in text else ""
        question = capital(text.format(show=show, **draft.slots))
        if (name, question) in self.known:
            return None
        self.known |= {(name, draft.sql), (name, question)}
        self.used[kind, number] += 1
        return {"question": question, "sql": draft.sql, "db_id": name, "kind": kind, "wording": f"{kind}/{number}"}

    def _wording(self, kind: str, wordings: Wordings, draw: random.Random) -> tuple[int, str]:
        """One of the wordings of this split that were used least, with its number among all."""
        first = len(wordings.train) if self.held else 0
        texts = wordings.held if self.held else wordings.train
        numbered = draw.sample([*enumerate(texts, first)], len(texts))
        return min(numbered, key=lambda one: self.used[kind, one[0]])


def capital(text: str) -> str:
    """A sentence that begins with a capital letter."""
    return text[0].upper() + text[1:]


def sound(draft: Draft, kind: str, database: sqlite3.Connection) -> bool:
    """Whether the query has rows, few enough to read, its decisive part decides something, and no tie leaves open which
    rows it returns."""
    rows = database.execute(draft.sqlite or draft.sql).fetchall()
    if not rows or rows[0] in ((0,), (None,)) or any(None in row for row in rows):
        return False
    if len(rows) > MOST_ROWS and kind not in ("order", "join_list"):
        return False
    if draft.other and sorted(rows) == sorted(database.execute(draft.other).fetchall()):
        return False
    if draft.ranks:
        keys = database.execute(draft.ranks).fetchall()
        return len(keys) > 1 and keys[-1] != keys[-2] and len(keys) == len(rows) + 1
    return True
