"""Golden prompts: token ids, and the answers that the trained model gave; every exported file is compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.domains.sql.databases.schema import Schema
from training.domains.sql.prompting.prompt import messages
from training.domains.sql.prompting.tokens import end_of, prompt_ids
from training.domains.sql.text_to_sql.generate import answers
from training.errors import ExportError

MOST_TOKENS = 48
TOGETHER = 10  # prompts that transformers continues at a time
_DDL = """CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT, born INTEGER, country TEXT);
CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, author_id INTEGER REFERENCES authors(id), year INTEGER,
price REAL);
CREATE TABLE loans (id INTEGER PRIMARY KEY, book_id INTEGER REFERENCES books(id), member TEXT, day TEXT,
returned INTEGER);"""
_QUESTIONS = (
    "How many books are there?", "List the titles of all books.", "What is the average price of a book?",
    "Which authors were born before 1950?", "Show the titles and prices of the five most expensive books.",
    "How many books did each author write?", "Which books were never lent?", "Who wrote the oldest book?",
    "List the members who borrowed more than three books.", "What are the names of authors from Norway?",
)  # fmt: skip


def prompts(tokenizer: Any, samples: int) -> list[list[int]]:
    """Token ids of the golden prompts, about a small library."""
    schema = Schema.from_ddl(_DDL, "sqlite")
    return [prompt_ids(tokenizer, messages(schema, question, "", samples)) for question in _QUESTIONS]


def expected(model: Any, tokenizer: Any, samples: int) -> dict[str, Any]:
    """For the receipt: prompts, the ids of the answers, and where they end."""
    asked = prompts(tokenizer, samples)
    found = answers(model, tokenizer, asked, end=end_of(tokenizer), max_new_tokens=MOST_TOKENS, batch_size=len(asked))
    return {
        "prompts": asked, "answers": [list(answer.tokens) for answer in found], "end": end_of(tokenizer),
        "most_tokens": MOST_TOKENS, "samples": samples,
    }  # fmt: skip


def compare(name: str, about: Mapping[str, Any], found: Sequence[Sequence[int]], least: float) -> dict[str, Any]:
    """How many of the golden answers are the same, token by token. Raises ExportError below the share `least`."""
    same = [list(a) == list(b) for a, b in zip(about["answers"], found, strict=True)]
    first = [
        next((at for at, (a, b) in enumerate(zip(x, y, strict=False)) if a != b), min(len(x), len(y)))
        for x, y, equal in zip(about["answers"], found, same, strict=True)
        if not equal
    ]
    if sum(same) < least * len(same):
        raise ExportError(
            f"{name}: {sum(same)} of {len(same)} golden answers are the model's, token by token; at least "
            f"{least:.0%} are required. The first token that differs: {first}."
        )
    return {"same_answers": sum(same), "of": len(same), "first_different_tokens": first}


def plain_generate(model: Any, about: Mapping[str, Any]) -> list[list[int]]:
    """The answers by transformers' own `generate`, with several prompts at a time, padded on the left as its users do:
    no code of this project's generation."""
    import torch

    out, end = [], about["end"]
    for at in range(0, len(about["prompts"]), TOGETHER):
        prompts = about["prompts"][at : at + TOGETHER]
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[end] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        made = model.generate(
            ids, attention_mask=mask, max_new_tokens=about["most_tokens"], do_sample=False, eos_token_id=end,
            pad_token_id=end,
        )[:, longest:].tolist()  # fmt: skip
        out += [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in made]
    return out


def same_next_tokens(model: Any, about: Mapping[str, Any]) -> float:
    """The share of the answers' tokens that are the most likely ones after the tokens before them: unlike answers that
    are generated, it does not depend on where the first difference is."""
    import torch

    same = total = 0
    for prompt, answer in zip(about["prompts"], about["answers"], strict=True):
        right = torch.tensor(answer if len(answer) == about["most_tokens"] else [*answer, about["end"]])
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *right[:-1].tolist()]])).logits[0, len(prompt) - 1 :]
        same += int((logits.argmax(-1) == right).sum())
        total += len(right)
    return same / total
