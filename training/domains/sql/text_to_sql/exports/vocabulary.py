"""A byte-level BPE tokenizer as GGUF stores it.

llama.cpp has its own tokenizer. GGUF names how text is split before merging (`tokenizer.ggml.pre`), so only splits that
llama.cpp knows can be exported. llama.cpp does not normalise text (NFC); that is left to whoever sends it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from training.domains.sql.prompting.tokens import end_of

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's token types

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: How the tokenizers of Llama 3 and Qwen2 split text -> llama.cpp's name of it.
_SPLITS = {_WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe", _WORDS + r"\p{N}" + _REST: "qwen2"}
#: Splits with which llama.cpp looks a word up before it merges.
_IGNORE_MERGES = frozenset({"llama-bpe"})


class UnknownTokenizerError(ValueError):
    """llama.cpp has no tokenizer that is known to give the same ids."""


@dataclass(frozen=True)
class Vocabulary:
    """The entries of a GGUF file about its tokenizer."""

    pre: str  # llama.cpp's name of the split
    tokens: tuple[str, ...]  # bytes as GPT-2 writes them, special tokens as text
    types: tuple[int, ...]
    merges: tuple[str, ...]
    begin: int | None
    end: int  # ends an answer
    padding: int | None
    adds_begin: bool
    template: str | None


def vocabulary_of(tokenizer: Any, size: int) -> Vocabulary:
    """`size`: rows of the model's token embedding; those without a token are marked as unused. Raises
    UnknownTokenizerError, with the reason."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnknownTokenizerError("the tokenizer has no tokenizer.json")
    content = json.loads(backend.to_str())
    pre = split_name(content)
    known = tokenizer.get_vocab()
    if max(known.values()) >= size:
        raise UnknownTokenizerError(f"the tokenizer has {max(known.values()) + 1:,} tokens, but the model {size:,}")
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [UNUSED] * size
    for token, index in known.items():
        tokens[index], types[index] = token, NORMAL
    for index, token in tokenizer.added_tokens_decoder.items():
        types[index] = CONTROL if token.special else USER_DEFINED
    end = end_of(tokenizer)
    begin = tokenizer.bos_token_id
    encoded = tokenizer("a")["input_ids"]
    padding = tokenizer.pad_token_id
    return Vocabulary(
        pre=pre, tokens=tuple(tokens), types=tuple(types),
        merges=tuple(_merge(pair) for pair in content["model"]["merges"]), begin=begin, end=end,
        padding=None if padding == end else padding, adds_begin=begin is not None and encoded[0] == begin,
        template=tokenizer.chat_template,
    )  # fmt: skip


def _merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)


def split_name(content: dict[str, Any]) -> str:
    """llama.cpp's name for the way in which a tokenizer (tokenizer.json) splits text: "gpt-2", "smollm", "llama-bpe" or
    "qwen2". Raises UnknownTokenizerError."""
    model = content["model"]
    if model["type"] != "BPE":
        raise UnknownTokenizerError(f"the tokenizer is {model['type']}; only byte-level BPE is written")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise UnknownTokenizerError(f"the tokenizer is BPE with {key}, which is not written")
    normalizer = content.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}):
        raise UnknownTokenizerError(f"the tokenizer normalises text by {normalizer['type']}, which llama.cpp does not")
    steps = _steps(content.get("pre_tokenizer"))
    name = _name_of(steps)
    if name is None:
        kinds = ", ".join(_described(step) for step in steps) or "nothing"
        raise UnknownTokenizerError(f"the tokenizer splits text by {kinds}; llama.cpp's name of this is not known here")
    if bool(model.get("ignore_merges")) != (name in _IGNORE_MERGES):
        raise UnknownTokenizerError(
            f"the tokenizer splits text as {name}, but with ignore_merges {model['ignore_merges']}"
        )
    return name


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _name_of(steps: list[dict[str, Any]]) -> str | None:
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    before, by_words = steps[:-1], steps[-1].get("use_regex", True)
    if not before:
        return "gpt-2" if by_words else None
    if len(before) > 1:
        return None
    if by_words:
        return "smollm" if before[0]["type"] == "Digits" and before[0]["individual_digits"] else None
    split = before[0]
    if split["type"] != "Split" or split["behavior"] != "Isolated" or split["invert"]:
        return None
    return _SPLITS.get(split["pattern"].get("Regex", ""))


def _described(step: dict[str, Any]) -> str:
    pattern = step.get("pattern", {}).get("Regex")
    return f"{step['type']} {pattern!r}" if pattern else step["type"]
