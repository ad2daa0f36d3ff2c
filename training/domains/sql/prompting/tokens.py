"""Token ids of a prompt and its answer, with the checks that make labels right by construction.

The prompt and the answer are tokenised separately and joined, so that the labels are those positions that come from the
answer. At generation the model gets the same ids of the prompt, and continues as it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.domains.sql.prompting.prompt import Message, id_of, rendered


@dataclass(frozen=True)
class TokenizedRow:
    """A question and its answer. The labels are `answer`, all of it: it ends with the end-of-sequence token."""

    prompt: np.ndarray  # int32 [p], p >= 1
    answer: np.ndarray  # int32 [a], a >= 2

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.answer)


def prompt_ids(tokenizer: Any, prompt: Sequence[Message]) -> list[int]:
    """The ids of a prompt. A chat template writes the special tokens itself, so none is added."""
    return tokenizer(rendered(tokenizer, prompt), add_special_tokens=False)["input_ids"]


def answer_ids(tokenizer: Any, sql: str) -> list[int]:
    """The ids of an answer, with the token that ends it."""
    return [*tokenizer(sql, add_special_tokens=False)["input_ids"], end_of(tokenizer)]


def tokenize(tokenizer: Any, prompt: Sequence[Message], sql: str) -> TokenizedRow:
    """Raises ValueError, with the reason, where the labels could not be right."""
    row = TokenizedRow(
        np.array(prompt_ids(tokenizer, prompt), np.int32), np.array(answer_ids(tokenizer, sql), np.int32)
    )
    check(tokenizer, row, sql)
    return row


def end_of(tokenizer: Any) -> int:
    """The token that ends an answer: that which ends a turn in the chat template, else the end of the sequence."""
    for name in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>"):
        found = id_of(tokenizer, name)
        if found is not None and (tokenizer.chat_template is None or name in tokenizer.chat_template):
            return found
    if tokenizer.eos_token_id is None:
        raise ValueError("the base model's tokenizer has no end-of-sequence token")
    return tokenizer.eos_token_id


def check(tokenizer: Any, row: TokenizedRow, sql: str) -> None:
    """Raise ValueError unless there is one beginning-of-sequence token at most, the end is labelled, padding is not,
    and the labelled ids are the answer's text."""
    beginnings = int((row.prompt == tokenizer.bos_token_id).sum()) if tokenizer.bos_token_id is not None else 0
    # in ChatML, the token that begins each turn may serve as the beginning of the sequence too
    turns = tokenizer.bos_token in ("<|im_start|>",)
    if beginnings > 1 and not turns:
        raise ValueError(f"the prompt has {beginnings} beginning-of-sequence tokens")
    end = end_of(tokenizer)
    if row.answer[-1] != end:
        raise ValueError("the answer does not end with the end-of-sequence token")
    body = row.answer[:-1]
    if not len(body) or not len(row.prompt):
        raise ValueError("the answer is empty")
    if (body == end).any() or (tokenizer.pad_token_id is not None and (body == tokenizer.pad_token_id).any()):
        raise ValueError("the query contains the end-of-sequence or padding token as text")
    # some tokenizers write a space before the first word
    if tokenizer.decode(body, skip_special_tokens=False, clean_up_tokenization_spaces=False).strip() != sql.strip():
        raise ValueError("the tokenizer does not reproduce the query's text")


def common_prefix(rows: Sequence[Sequence[int] | np.ndarray]) -> int:
    """The number of first tokens that all rows share; at least one token of each row is left over."""
    first = np.asarray(rows[0])
    length = min(len(row) for row in rows) - 1
    for row in rows[1:]:
        differs = np.flatnonzero(first[:length] != np.asarray(row)[:length])
        length = int(differs[0]) if len(differs) else length
    return max(0, length)
