"""Rows of a manifest as questions with their schemas, and as token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.domains.sql.databases.schema import Schema
from training.domains.sql.databases.sqlite import schema_of
from training.domains.sql.prompting.prompt import Message, messages
from training.domains.sql.prompting.pruning import prune
from training.domains.sql.prompting.tokens import TokenizedRow, prompt_ids, tokenize
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.domains.sql.text_to_sql.data import Questions
from training.errors import DataError

if TYPE_CHECKING:
    from training.data.rows import Row


@dataclass
class Prompts:
    """Makes the prompts of a run: with the schema pruned where it would not fit `model.max_tokens`."""

    tokenizer: Any
    settings: TextToSqlConfig
    pruned: int = 0  # prompts whose schema was pruned

    def __post_init__(self) -> None:
        self._schemas: dict[Any, Schema] = {}

    def schema(self, row: Row) -> Schema:
        """Of the row's database."""
        place = row.values["database_path"]
        if place not in self._schemas:
            self._schemas[place] = schema_of(row.records["database_path"])
        return self._schemas[place]

    def of_row(self, row: Row, reserved: int) -> list[Message] | None:
        """The prompt of a row; None if it does not fit even with one table. `reserved`: tokens of the answer."""
        return self.of(self.schema(row), row.values["question"], row.values.get("evidence", ""), reserved)

    def of(self, schema: Schema, question: str, evidence: str, reserved: int) -> list[Message] | None:
        most = self.settings.model.max_tokens - reserved

        def made(of: Schema) -> list[Message]:
            return messages(of, question, evidence, self.settings.prompt.samples)

        kept = prune(schema, f"{question} {evidence}", lambda of: len(prompt_ids(self.tokenizer, made(of))) <= most)
        self.pruned += kept is not None and kept != schema
        return None if kept is None else made(kept)


def questions_of(
    rows: Sequence[Row], tokenizer: Any, settings: TextToSqlConfig, say: Callable[[str], None] = print
) -> Questions:
    """The tokenized questions of a split. A row whose labels could not be right, or that is too long though its schema
    is pruned, is left out and reported. Raises DataError if none is left."""
    prompts = Prompts(tokenizer, settings)
    kept: list[TokenizedRow] = []
    databases: list[str] = []
    refused: list[str] = []
    for row in rows:
        sql = row.values["sql"]
        answer = len(tokenizer(sql, add_special_tokens=False)["input_ids"]) + 1
        prompt = prompts.of_row(row, answer)
        try:
            if prompt is None:
                raise ValueError(f"longer than model.max_tokens ({settings.model.max_tokens}) with a single table")
            kept.append(tokenize(tokenizer, prompt, sql))
            databases.append(row.values["database"])
        except ValueError as error:
            refused.append(f"{row.values['id']}: {error}")
    if prompts.pruned:
        say(f"  {prompts.pruned} of {len(rows)} questions: the schema is pruned to fit model.max_tokens")
    for line in refused[:5]:
        say(f"  left out: {line}")
    if len(refused) > 5:
        say(f"  ... and {len(refused) - 5} more")
    if not kept:
        raise DataError("No question is left to train on." + (f" The first: {refused[0]}." if refused else ""))
    return Questions(tuple(kept), tuple(databases))
