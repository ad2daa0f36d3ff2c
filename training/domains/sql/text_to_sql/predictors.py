"""What answers the held-out questions: the tuned model, its base alone, the base with solved examples, and copying the
nearest training question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.domains.sql.prompting.prompt import Message, with_examples
from training.domains.sql.prompting.tokens import end_of, prompt_ids
from training.domains.sql.text_to_sql.generate import Answer, answers
from training.domains.sql.text_to_sql.neighbour import Neighbours
from training.domains.sql.text_to_sql.rows import Prompts

if TYPE_CHECKING:
    from training.data.rows import Row
    from training.domains.sql.text_to_sql.config import TextToSqlConfig
    from training.domains.sql.text_to_sql.model import TextToSql

TUNED, BASE, SHOTS, NEIGHBOUR = "model", "base", "base with examples", "nearest neighbour"


def cleaned(text: str) -> str:
    """The query in an answer: without the code fence in which chat models wrap it, and without a final semicolon."""
    body = text.strip()
    if "```" in body:
        body = body.split("```")[1]
        body = body.partition("\n")[2] if body[:3].lower() == "sql" or body.startswith(("sqlite", "postgres")) else body
    return body.strip().rstrip(";").strip()


_QUOTED = re.compile(r"'[^']*(?:'|$)")


def complete(text: str) -> bool:
    """Whether an answer holds a query that has ended: with a semicolon, or with the code fence around it. The base
    often continues with an explanation or with further queries, which would not count."""
    prose, fence, fenced = text.partition("```")
    if not fence and not prose.lstrip()[:6].upper().startswith(("SELECT", "WITH")):
        return False
    return "```" in fenced or ";" in _QUOTED.sub("", fenced if fence else prose)


class Predictors:
    """Answers of each predictor to the same questions."""

    def __init__(self, model: TextToSql, settings: TextToSqlConfig, train: Sequence[Row], held_out: Sequence[Row]):
        self.model, self.settings = model, settings
        self.train, self.held_out = train, held_out
        self.prompts = Prompts(model.tokenizer, settings)

    def every(self) -> dict[str, list[Answer]]:
        """Predictor -> its answers."""
        asked = [self._prompt(row) for row in self.held_out]
        found = {TUNED: self._generated(asked)}
        with self.model.without_adapters():
            found[BASE] = self._generated(asked)
            if self.settings.generation.shots and len(self.train):
                found[SHOTS] = self._generated(self._with_shots(asked))
        if len(self.train):
            found[NEIGHBOUR] = self._copied()
        return found

    def tuned(self) -> list[Answer]:
        return self._generated([self._prompt(row) for row in self.held_out])

    def _prompt(self, row: Row) -> list[Message]:
        """Too long a question is asked about its most relevant table, as at use."""
        found = self.prompts.of_row(row, self.settings.generation.max_new_tokens)
        if found is None:
            first = self.prompts.schema(row)
            found = self.prompts.of(first.only([first.tables[0].name]), row.values["question"], "", 0)
        return found or [{"role": "system", "content": ""}, {"role": "user", "content": row.values["question"]}]

    def _generated(self, prompts: Sequence[Sequence[Message]]) -> list[Answer]:
        tokenizer, generation = self.model.tokenizer, self.settings.generation
        ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]
        return answers(
            self.model.lm, tokenizer, ids, end=end_of(tokenizer), max_new_tokens=generation.max_new_tokens,
            batch_size=generation.batch_size, complete=complete,
        )  # fmt: skip

    def _with_shots(self, asked: Sequence[Sequence[Message]]) -> list[list[Message]]:
        """The same examples for every question, evenly spaced over the training questions."""
        chosen = np.linspace(0, len(self.train) - 1, self.settings.generation.shots).round().astype(int)
        examples = []
        for index in dict.fromkeys(chosen.tolist()):
            row = self.train[index]
            prompt = self.prompts.of_row(row, self.settings.generation.max_new_tokens)
            if prompt is not None:
                examples.append((prompt, row.values["sql"]))
        return [with_examples(prompt, examples) for prompt in asked]

    def _copied(self) -> list[Answer]:
        known = Neighbours(
            [row.values["question"] for row in self.train], [row.values["sql"] for row in self.train],
            [row.values["database"] for row in self.train], [self.prompts.schema(row) for row in self.train],
            self.held_out[0].values["dialect"],
        )  # fmt: skip
        texts = [
            known.answer(row.values["question"], row.values["database"], self.prompts.schema(row))
            for row in self.held_out
        ]
        return [Answer((), True, text) for text in texts]
