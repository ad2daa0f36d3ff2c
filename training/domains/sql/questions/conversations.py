"""Conversations in the forms of data sets for fine-tuning, as a list of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.data.files import printable

FORM = "`messages` should be a list of {role, content} that ends with the assistant's SQL"
#: Keys that hold a conversation: those of OpenAI and TRL, and of ShareGPT.
LISTS = ("messages", "conversations")
#: Keys that hold the question, and those beside them that hold the answer: TRL's, and others'.
PROMPTS, COMPLETIONS = ("prompt",), ("completion", "response", "chosen")
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant", "developer": "system"}


Found = tuple[list[dict[str, str]], set[str]]  # the messages as {"role", "content"}, and the keys that hold them


def list_in(row: Mapping[str, Any]) -> Found | None:
    """The list of messages of a row; None for a row without one. Raises ValueError for one of another form."""
    key = next((name for name in LISTS if name in row), None)
    if key is None:
        return None
    messages, system = _messages(row[key]), row.get("system")
    if isinstance(system, str) and system.strip():  # beside ShareGPT's list
        return [{"role": "system", "content": system}, *messages], {key, "system"}
    return messages, {key}


def pair_in(row: Mapping[str, Any]) -> Found | None:
    """A prompt and its completion as messages; None for a row without them. Raises ValueError as `list_in`."""
    prompt = next((name for name in PROMPTS if row.get(name)), None)
    answer = next((name for name in COMPLETIONS if row.get(name)), None)
    if prompt is None or answer is None:
        return None
    return _side(row[prompt], "user") + _side(row[answer], "assistant"), {prompt, answer}


def _side(value: Any, role: str) -> list[dict[str, str]]:
    """The prompt, or the completion: a text, or messages."""
    return [{"role": role, "content": value}] if isinstance(value, str) else _messages(value)


def _messages(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise ValueError(FORM)
    return [_message(one) for one in value]


def _message(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(FORM)
    role, content = value.get("role", value.get("from")), _text(value.get("content", value.get("value")))
    if not isinstance(role, str) or content is None:
        raise ValueError(FORM)
    return {"role": _ROLES.get(role, role), "content": content}


def _text(content: Any) -> str | None:
    """A text, or the texts of a list of parts; None for other content, as an image."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "\n".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else None


def asked_and_answer(messages: list[dict[str, str]]) -> tuple[str, str, str]:
    """The system's text, the one question and the answer of a conversation. Raises ValueError."""
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"{FORM}; its last role is {printable(messages[-1]['role'])!r}")
    asked = [message["content"] for message in messages if message["role"] == "user"]
    if len(asked) != 1:
        raise ValueError(f"has {len(asked)} questions; a row is one question and its SQL")
    system = "\n".join(message["content"] for message in messages if message["role"] == "system")
    return system, asked[0], messages[-1]["content"]
