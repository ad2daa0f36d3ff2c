"""The SQL domain: its implementation of the contract in training/domain.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.domain import CardText, Command, DemoText, Domain, Finding, Job, Request, Section
from training.domains.sql.families import QUESTION, TEXT_TO_SQL
from training.errors import UsageError
from training.option import DATA_VERBS, Option

if TYPE_CHECKING:
    from training.config import Layer
    from training.data.schema import Schema
    from training.workspace import Workspace

#: The verbs that read the user's questions; the others read the manifests. (`evaluate --test` is another option.)
READING = ("doctor", "prepare")
PREPARE = ("prepare",)
#: The verbs that need the base model.
MODEL_VERBS = tuple(verb for verb in DATA_VERBS if verb != "prepare")
#: The verbs that begin a training; the others use the base that is in its checkpoint.
LOADING = ("doctor", "train", "estimate", "prove-resume")
QUESTIONS = "questions and their SQL"


class Sql(Domain):
    word = "sql"
    title = "SQL"
    sentence = "Questions with their SQL in; a language model fine-tuned to write SQL out, judged by executing it."
    unit = QUESTION
    families = (TEXT_TO_SQL,)
    tags = ("text-to-sql", "lora", "sqlite", "postgresql")
    data_words = "questions with SQL"
    options = (
        Option("train", "file", f"{QUESTIONS}: JSONL (chat messages or columns), JSON (Spider, BIRD) or CSV",
               verbs=READING),
        Option("val", "file", f"held-out {QUESTIONS} (default: a part of --train, by database)", verbs=READING),
        Option("test", "file", f"{QUESTIONS} for `evaluate --test`, which nothing else reads", verbs=READING),
        Option("databases", "folder", "SQLite files: <id>.sqlite or <id>/<id>.sqlite",
               environment="ATHANOR_DATABASES"),
        Option("database-url", "url", "a PostgreSQL database or server (role with SELECT only, no password in it)"),
        Option("dialect", "choice", "of the SQL (default: postgres with --database-url, else sqlite)",
               choices=("sqlite", "postgres"), verbs=READING),
        Option("allow-writes", "flag", "keep SQL that writes: it is never executed, and judged by its text",
               verbs=PREPARE),
        Option("base", "folder", "the base model, with safetensors (default: the demo's)", verbs=MODEL_VERBS),
        Option("download", "text", "the base model from the Hugging Face Hub, once: a commit, tag or branch of it "
               "(safetensors only; HF_TOKEN for models that need consent)", "NAME@REVISION", verbs=LOADING),
        Option("config", "file", "settings, or a configuration of Hugging Face's Trainer with model, lora, data ...",
               verbs=("prepare", "train", "estimate", "prove-resume")),
        Option("questions", "number", "for training in the demo (default: 900)", verbs=PREPARE, runner=False),
        Option("scope", "choice", "of the demo: short (default: 12 kinds of query, two tables a database) or full (31 "
               "kinds, all tables)", choices=("short", "full"), verbs=PREPARE, runner=False),
    )  # fmt: skip

    def arrange(self, request: Request) -> Request:
        from training.domains.sql.bases.wanted import require_one  # neither imports anything heavy
        from training.domains.sql.questions.options import dialect_of

        options = request.options
        dialect_of(options)
        require_one(options)
        if options.get("train") is None and options.get("config") is None and not request.skip_prepare:
            named = [f"--{name}" for name in ("val", "test", "databases") if options.get(name) is not None]
            named += ["--database-url"] if options.get("database_url") else []
            if named:
                raise UsageError(f"{named[0]} needs --train: the file of the {QUESTIONS}.")
        return request

    def given(self, options: Mapping[str, Any]) -> bool:
        return any(
            options.get(name) is not None for name in ("train", "val", "test", "databases", "database_url", "config")
        )

    def config_layers(self, family: str, path: Path) -> Sequence[Layer]:
        from training.domains.sql.trainer_file import layers_of

        return layers_of(path, self.facts(family).config)

    def settings(self, job: Job, family: str, settings: Any) -> Mapping[str, Any]:
        from training.domains.sql.bases.choosing import settings_of

        return settings_of(job, settings)

    def schema(self) -> Schema:
        from training.domains.sql.rows import SCHEMA

        return SCHEMA

    def demo(self, job: Job) -> Mapping[str, Any]:
        from training.domains.sql.demo.making import make_demo

        return make_demo(job)

    def prepare(self, job: Job) -> None:
        from training.domains.sql.prepare import prepare
        from training.domains.sql.trainer_file import with_files

        prepare(with_files(job))

    def commands(self) -> tuple[Command, ...]:
        options = (
            Option("database", "text", "a SQLite file, or a postgresql:// URL", metavar="FILE"),
            Option("evidence", "text", "a hint that belongs to the question"),
            Option("run", "flag", "also run the query (read-only, within the time limit), and print its rows"),
            Option("beside-base", "flag", "also print what the base model answers"),
            Option("base", "folder", "the base model, if it was moved since the training"),
        )
        return (Command("ask", "ask a trained model a question", "training.domains.sql.ask:ask", "QUESTION", options),)

    def checks(self, job: Job) -> Iterator[Finding]:
        from training.domains.sql.checks import checks

        return checks(job)

    def store_bytes(self, job: Job) -> int:
        from training.domains.sql.checks import store_bytes

        return store_bytes(job)

    def demo_text(self) -> DemoText:
        return DemoText(
            shows=(
                "Its databases are filled by rules, and rules write the questions and their SQL. It shows that every "
                "step works on this host, from questions to verified exports, and that fine-tuning teaches a small "
                "base model SQL which it could not write: it is judged on databases that it has not seen, in wordings "
                "and combinations of clauses that training does not have. The model has 135 million parameters and "
                "learns from a few hundred questions: it is not worth using on real databases. (With --preset debug, "
                "its base knows nothing, and it learns nothing.)"
            ),
            gives=(
                "exports/ holds the adapter, the merged model, and files for llama.cpp and ONNX Runtime, each compared "
                "with what was trained; a model card; and report.html with answers and the rows that they return."
            ),
            next="./train_cuda.sh sql --train FILE --databases DIR --base DIR",
        )

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        from training.domains.sql.report.sections import sections

        return tuple(sections(workspace))

    def card(self, family: str) -> CardText | None:
        from training.domains.sql.card import CARDS

        return CARDS.get(family)


SQL = Sql()
