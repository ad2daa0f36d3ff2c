"""The prompt: what a language model gets to know about a database, and the question.

The system message holds the dialect, the rules and the schema; the user message the question. The schema comes first,
so that all questions about one database begin with the same tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.domains.sql.databases.schema import Schema

VERSION = 1  # increment it when the text of a prompt changes
DIALECTS = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
RULES = (
    "You write one {dialect} query that answers a question about the database below. "
    "Reply with the query alone: no comment, no explanation."
)

Message = Mapping[str, str]  # "role" and "content"


def messages(schema: Schema, question: str, evidence: str = "", samples: int = 3) -> list[Message]:
    """The messages of a prompt. `evidence`: a hint that belongs to the question; `samples`: values shown a column."""
    rules = RULES.format(dialect=DIALECTS[schema.dialect])
    system = f"{rules}\n\n{schema.ddl(samples)}"
    user = f"{question}\nHint: {evidence}" if evidence else question
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def with_examples(prompt: Sequence[Message], examples: Sequence[tuple[Sequence[Message], str]]) -> list[Message]:
    """A prompt with solved examples before it: of each example its own prompt and its query. An example of another
    database states its schema in the user message, since a conversation has one system message."""
    system, question = prompt[0], prompt[1:]
    solved: list[Message] = []
    for asked, sql in examples:
        text = asked[1]["content"]
        if asked[0]["content"] != system["content"]:
            text = f"{asked[0]['content'].partition(chr(10) * 2)[2]}\n\n{text}"
        solved += [{"role": "user", "content": text}, {"role": "assistant", "content": sql}]
    return [system, *solved, *question]


def rendered(tokenizer: Any, prompt: Sequence[Message]) -> str:
    """The prompt as the text that the model continues, by the tokenizer's own chat template; without one, by ChatML if
    the vocabulary has its tokens, else as plain text."""
    if tokenizer.chat_template:
        return _by_template(tokenizer, prompt)
    bos = tokenizer.bos_token or ""
    if all(id_of(tokenizer, name) is not None for name in ("<|im_start|>", "<|im_end|>")):
        turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in prompt)
        return f"{turns}<|im_start|>assistant\n"
    headings = {"system": "", "user": "Question: ", "assistant": "SQL: "}
    return bos + "".join(f"{headings[turn['role']]}{turn['content']}\n\n" for turn in prompt) + "SQL:"


def id_of(tokenizer: Any, token: str) -> int | None:
    """The id of a token of the vocabulary, None for another text. (The vocabulary as a dict takes 30 ms to make.)"""
    found = tokenizer.convert_tokens_to_ids(token)
    return found if found is not None and tokenizer.convert_ids_to_tokens(found) == token else None


def _by_template(tokenizer: Any, prompt: Sequence[Message]) -> str:
    from jinja2 import TemplateError

    def render(turns: Sequence[Message]) -> str:
        return tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)

    try:
        return render(prompt)
    except TemplateError:  # a template that knows no system message: it becomes the beginning of the first question
        first = {"role": "user", "content": f"{prompt[0]['content']}\n\n{prompt[1]['content']}"}
        return render([first, *prompt[2:]])
