"""Texts that hold a complete conversation, as trainers of language models read them from one column: Mistral's
instructions, ChatML, the turns of Llama 3 and Gemma, and Alpaca's headings, taken apart into messages."""

from __future__ import annotations

import re
from functools import partial

#: What may be before the first message and after the last: tokens of the beginning, the end and padding.
_AROUND = r"\s*(?:(?:<s>|</s>|<bos>|<eos>|<\|begin_of_text\|>|<\|end_of_text\|>|<\|endoftext\|>)\s*)*"
_SYSTEM = re.compile(r"\A\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)
_TURN = re.compile(r"\A\s*(system|user|assistant|model)\b(?:<\|end_header_id\|>)?[ \t]*\n?(.*)\Z", re.DOTALL)
FORMS = (
    "`<s>[INST] question [/INST] SQL</s>`, ChatML (`<|im_start|>user`, question, `<|im_end|>` ...), Llama 3's or "
    "Gemma's turns, or `### Instruction:`, question, `### Response:`, SQL"
)


def messages_of(text: str, column: str) -> list[dict[str, str]]:
    """The messages of a text in one of FORMS, as {"role", "content"}. `column`: where it stands, for the error. Raises
    ValueError with the reason for a text in no such form."""
    for mark, split in _SPLITTERS:
        before, found, rest = text.partition(mark)
        if found and (re.fullmatch(_AROUND, before) or mark.startswith("###")):  # Alpaca's has a sentence before it
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


def _turns(text: str, begin: str, end: str) -> list[dict[str, str]] | None:
    """Of ChatML and its like, after the first `begin`; None where a message has no known role, or something follows its
    end."""
    messages = []
    for turn in text.split(begin):
        content, _, after = turn.partition(end)
        found = _TURN.match(content)
        if not found or not re.fullmatch(_AROUND, after):
            return None
        role = "assistant" if found[1] == "model" else found[1]
        messages.append({"role": role, "content": _without_ends(found[2])})
    return messages


def _headed(text: str) -> list[dict[str, str]] | None:
    """Of Alpaca's form, after the first "### Instruction:": the instruction with its input, and the response."""
    asked, ends, answer = text.partition("### Response:")
    if not ends or "### Instruction:" in answer:
        return None
    content = asked.replace("### Input:", "").strip()
    return [{"role": "user", "content": content}, {"role": "assistant", "content": _without_ends(answer)}]


def _without_ends(text: str) -> str:
    """Without the tokens of an end or a new beginning after it."""
    return re.sub(_AROUND + r"\Z", "", text).strip()


#: What a text of each form begins with -> how the rest is taken apart.
_SPLITTERS = (
    ("[INST]", _instructions),
    ("<|im_start|>", partial(_turns, begin="<|im_start|>", end="<|im_end|>")),
    ("<|start_header_id|>", partial(_turns, begin="<|start_header_id|>", end="<|eot_id|>")),
    ("<start_of_turn>", partial(_turns, begin="<start_of_turn>", end="<end_of_turn>")),
    ("### Instruction:", _headed),
)
