"""Texts that hold a complete conversation, as trainers of language models read them from one column: Mistral's
instructions and ChatML, taken apart into messages."""

from __future__ import annotations

import re

#: What may be before the first message and after the last: tokens of the beginning, the end and padding.
_AROUND = r"\s*(?:(?:<s>|</s>|<\|begin_of_text\|>|<\|endoftext\|>)\s*)*"
_SYSTEM = re.compile(r"\A\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)
_TURN = re.compile(r"\A\s*(system|user|assistant)\b[ \t]*\n?(.*)\Z", re.DOTALL)
FORMS = "`<s>[INST] question [/INST] SQL</s>`, or ChatML: `<|im_start|>user`, question, `<|im_end|>` ..."


def messages_of(text: str, column: str) -> list[dict[str, str]]:
    """The messages of a text in one of FORMS, as {"role", "content"}. `column`: where it stands, for the error. Raises
    ValueError with the reason for a text in no such form."""
    for mark, split in (("[INST]", _instructions), ("<|im_start|>", _chatml)):
        before, found, rest = text.partition(mark)
        if found and re.fullmatch(_AROUND, before):
            messages = split(rest)
            if messages is not None:
                return messages
    raise ValueError(f"the form of `{column}` is not known: it should be {FORMS}; it begins with {text.strip()[:40]!r}")


def _instructions(text: str) -> list[dict[str, str]] | None:
    """Of Mistral's and Llama 2's form, after the first [INST]; None where an instruction does not end."""
    messages = []
    for turn in text.split("[INST]"):
        asked, ends, answer = turn.partition("[/INST]")
        if not ends or "[/INST]" in answer:
            return None
        system = _SYSTEM.match(asked)
        if system:
            messages.append({"role": "system", "content": system[1].strip()})
            asked = asked[system.end() :]
        messages.append({"role": "user", "content": asked.strip()})
        messages.append({"role": "assistant", "content": _without_ends(answer)})
    return messages


def _chatml(text: str) -> list[dict[str, str]] | None:
    """Of ChatML, after the first <|im_start|>; None where a message has no known role, or something follows its end."""
    messages = []
    for turn in text.split("<|im_start|>"):
        content, _, after = turn.partition("<|im_end|>")
        found = _TURN.match(content)
        if not found or not re.fullmatch(_AROUND, after):
            return None
        messages.append({"role": found[1], "content": _without_ends(found[2])})
    return messages


def _without_ends(text: str) -> str:
    """Without the tokens of an end or a new beginning after it."""
    return re.sub(_AROUND + r"\Z", "", text).strip()
