"""The command `ask`: a question to the trained model about a database, with the rows that its answer gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from training.domain import Job
from training.domains.sql.databases.execution import Executor, Result, is_server
from training.domains.sql.databases.schema import Schema
from training.errors import DataError, UsageError

SHOWN_ROWS, SHOWN_CHARACTERS = 20, 40


def ask(job: Job, words: Sequence[str], load: Callable[[str], Any]) -> None:
    """Print the SQL for a question; with `run`, its rows; with `beside_base`, what the base model answers too.

    Raises UsageError without a database or a trained model, DataError for a database that cannot be read.
    """
    from training.domains.sql.prompting.tokens import end_of, prompt_ids
    from training.domains.sql.text_to_sql.generate import answers
    from training.domains.sql.text_to_sql.predictors import cleaned
    from training.domains.sql.text_to_sql.rows import Prompts
    from training.engine.process.distributed import choose_device

    question = " ".join(words).strip()
    if not question:
        raise UsageError("The question is empty.")
    place = _place(job.options["database"])
    schema = _schema(place)
    trained = load("text_to_sql")
    model, settings = trained.model.to(choose_device(job.options["device"])), trained.recipe.settings
    limit = settings.generation.max_new_tokens
    prompt = Prompts(model.tokenizer, settings).of(schema, question, job.options["evidence"] or "", limit)
    if prompt is None:
        raise UsageError(
            "The question with a single table of the database takes more than the model's "
            f"{settings.model.max_tokens:,} tokens (model.max_tokens)."
        )
    ids = prompt_ids(model.tokenizer, prompt)
    for name in ("model", "base") if job.options["beside_base"] else ("model",):
        with model.without_adapters() if name == "base" else nullcontext():
            found = answers(
                model.lm, model.tokenizer, [ids], end=end_of(model.tokenizer), max_new_tokens=limit, batch_size=1
            )[0]
        sql = cleaned(found.text)
        print((f"-- {name}\n" if job.options["beside_base"] else "") + sql)
        if not found.ended:
            print(f"-- the answer did not end within {limit} tokens")
        if job.options["run"]:
            with Executor(settings.judging.seconds) as executor:
                print("\n".join(table(executor.run(place, sql))))


def _place(given: Any) -> str:
    if not given:
        raise UsageError("--database is needed: a SQLite file, or the URL of a PostgreSQL database.")
    text = str(given)
    return text if is_server(text) else str(Path(text).absolute())


def _schema(place: str) -> Schema:
    from training.domains.sql.databases.postgres import introspect_url
    from training.domains.sql.databases.sqlite import introspect

    try:
        return introspect_url(place) if is_server(place) else introspect(Path(place))
    except (ValueError, OSError) as error:
        raise DataError(f"--database {place}: {error}") from None


def table(result: Result) -> Iterator[str]:
    """The lines of a table of the rows."""
    if result.rows is None:
        yield f"-- it does not run: {result.error}"
        return
    shown = [[_cell(value) for value in row] for row in result.rows[:SHOWN_ROWS]]
    widths = [
        max(len(name), *(len(row[at]) for row in shown), 1) if shown else len(name)
        for at, name in enumerate(result.columns)
    ]
    for row in [list(result.columns), ["-" * width for width in widths], *shown]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    more = len(result.rows) - len(shown)
    yield f"({len(result.rows)} row{'s' * (len(result.rows) != 1)}{f', {more} not shown' if more else ''})"


def _cell(value: Any) -> str:
    text = "NULL" if value is None else f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
