"""What a word of the command line that is not known may have been meant as."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from training.domain import Domain


def unknown_domain(word: str, known: Mapping[str, Domain]) -> str:
    """The message for a first word that names no domain."""
    return f"there is no domain '{word}'; there are {', '.join(known)}.{_near(word.lower(), known)}"


def unknown_word(words: Sequence[str], domain: Domain, flags: Iterable[str], known: Mapping[str, Domain]) -> str:
    """The message for the first of `words`, which the parser of `domain`, whose options are `flags`, does not know."""
    word = words[0].partition("=")[0]
    if word in known:
        return f"the domain's word comes first: ./train_cuda.sh {word} [options]."
    if not word.startswith("-"):
        return f"'{words[0]}' is the value of no option. A value with spaces needs quotes."
    others = [one.word for one in known.values() if any(o.runner and o.flag == word for o in one.options)]
    if others:
        there = f"./train_cuda.sh {others[0]} {word} ..."
        return f"{word} is an option of {' and '.join(others)}, not of {domain.word}: {there}"
    return f"{domain.word} has no option {word}.{_near(word, flags)}"


def _near(word: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, [*names], 1, 0.7)
    return f" Did you mean {near[0]}?" if near else ""
