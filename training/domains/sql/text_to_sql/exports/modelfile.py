"""The Modelfile with which Ollama runs the exported GGUF: the prompt's form, where answers end, greedy decoding."""

from __future__ import annotations

from typing import Any

from training.domains.sql.prompting.prompt import rendered
from training.domains.sql.text_to_sql.exports.vocabulary import Vocabulary

_SYSTEM, _PROMPT = "@@system@@", "@@prompt@@"
_QUOTES = '"""'


def modelfile(tokenizer: Any, vocabulary: Vocabulary, model: str, context: int, answer: int) -> str:
    """`model`: the name of the GGUF file beside it; `context` and `answer`: the most tokens of a prompt with its
    answer, and of an answer. Raises ValueError if the prompt's form cannot be written."""
    end = vocabulary.tokens[vocabulary.end]
    return (
        "# The system message holds the rules, the dialect and the schema; the user message is the question.\n"
        f"FROM ./{model}\n"
        f"TEMPLATE {_QUOTES}{_template(tokenizer, vocabulary)}{_QUOTES}\n"
        "PARAMETER temperature 0\n"
        f"PARAMETER num_ctx {context}\n"
        f"PARAMETER num_predict {answer}\n"
        f'PARAMETER stop "{end}"\n'
    )


def _template(tokenizer: Any, vocabulary: Vocabulary) -> str:
    text = rendered(tokenizer, [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _PROMPT}])
    if vocabulary.adds_begin and vocabulary.begin is not None:
        text = text.removeprefix(vocabulary.tokens[vocabulary.begin])  # Ollama adds it, as the GGUF file says
    if _QUOTES in text or "{{" in text or text.count(_SYSTEM) != 1 or text.count(_PROMPT) != 1:
        raise ValueError("the chat template does not repeat each message once, so it cannot be written as Ollama's")
    return text.replace(_SYSTEM, "{{ .System }}").replace(_PROMPT, "{{ .Prompt }}") + "{{ .Response }}"


def prompt_of(text: str, system: str, question: str) -> str:
    """The prompt that a Modelfile (`text`) makes of two messages, up to the answer."""
    template = text.partition(_QUOTES)[2].partition(_QUOTES)[0]
    before = template.partition("{{ .Response }}")[0]
    return before.replace("{{ .System }}", system, 1).replace("{{ .Prompt }}", question, 1)
