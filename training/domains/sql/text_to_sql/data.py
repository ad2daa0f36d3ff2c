"""The dataset: bundles of questions about one database, which share the tokens of their prompts' beginning.

A bundle is one sequence: the shared prefix once, then for each question the rest of its prompt and its answer. A token
sees the prefix and its own question; positions continue from the prefix in each. So the loss is that of separate rows,
and the schema is computed once instead of once a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from training.domains.sql.prompting.tokens import TokenizedRow, common_prefix

IGNORED = -100  # label of a position that is not learnt
PADDING = -1  # segment of padding; 0 is the prefix, 1 the first question


@dataclass(frozen=True)
class Questions:
    """Tokenized questions of a split, with the database of each. Picklable: no tokenizer is needed any more."""

    rows: tuple[TokenizedRow, ...]
    databases: tuple[str, ...]

    def of_databases(self) -> list[np.ndarray]:
        """For each database, in the order of first appearance: the indices of its questions, int64."""
        found: dict[str, list[int]] = {}
        for index, database in enumerate(self.databases):
            found.setdefault(database, []).append(index)
        return [np.array(indices, np.int64) for indices in found.values()]


class Bundles:
    """`bundle` questions of one database a sample. Training groups them by (seed, epoch); held-out questions keep their
    order. The number of samples is the same in every epoch."""

    def __init__(self, questions: Questions, bundle: int, seed: int | None):
        self.questions, self.bundle, self.seed = questions, bundle, seed
        self.groups = questions.of_databases()
        self.count = sum(-(-len(group) // bundle) for group in self.groups)

    def __len__(self) -> int:
        return self.count

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        chosen = _grouped(self, epoch if self.seed is not None else 0)[index]
        return bundled([self.questions.rows[number] for number in chosen])

    def collate(self, items: Sequence[Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        return collate(items)


@lru_cache(maxsize=4)
def _grouped(bundles: Bundles, epoch: int) -> list[np.ndarray]:
    """The questions of every bundle of an epoch."""
    out = []
    for number, group in enumerate(bundles.groups):
        order = group
        if bundles.seed is not None:
            order = np.random.default_rng((bundles.seed, epoch, number)).permutation(group)
        out += [order[at : at + bundles.bundle] for at in range(0, len(order), bundles.bundle)]
    return out


def bundled(rows: Sequence[TokenizedRow]) -> dict[str, np.ndarray]:
    """One sequence of all rows. tokens, positions, segments, labels: int32 [t]. The label of a position is the token
    after it; IGNORED except where that token is of an answer."""
    prefix = common_prefix([row.prompt for row in rows])
    tokens, positions = [rows[0].prompt[:prefix]], [np.arange(prefix)]
    segments, labels = [np.zeros(prefix)], [np.full(prefix, IGNORED)]
    for number, row in enumerate(rows, 1):
        own = np.concatenate([row.prompt[prefix:], row.answer])[:-1]  # nothing follows the last token
        after = np.full(len(own), IGNORED)
        after[len(own) - len(row.answer) :] = row.answer
        tokens.append(own)
        positions.append(prefix + np.arange(len(own)))
        segments.append(np.full(len(own), number))
        labels.append(after)
    parts = {"tokens": tokens, "positions": positions, "segments": segments, "labels": labels}
    return {name: np.concatenate(part).astype(np.int32) for name, part in parts.items()}


def collate(items: Sequence[Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """int64 [batch, t] each, padded on the right."""
    length = max(len(item["tokens"]) for item in items)
    fill = {"tokens": 0, "positions": 0, "segments": PADDING, "labels": IGNORED}
    out = {}
    for name, value in fill.items():
        padded = np.full((len(items), length), value, np.int64)
        for row, item in enumerate(items):
            padded[row, : len(item[name])] = item[name]
        out[name] = torch.from_numpy(padded)
    return out


def attention_mask(segments: torch.Tensor) -> torch.Tensor:
    """Which position sees which: bool [batch, 1, t, t]. A position sees the prefix and its own question up to itself;
    padding sees itself alone, since a row without any would be NaN."""
    length = segments.shape[1]
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    seen = causal & ((key == query) | ((key == 0) & (query >= 0)))
    own = torch.eye(length, dtype=torch.bool, device=segments.device)
    return torch.where(query == PADDING, own, seen)[:, None]
