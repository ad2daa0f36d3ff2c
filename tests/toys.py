"""Registers families that are defined in tests, for the duration of a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from training import registry
from training.domain import Domain, FamilyFacts, Job
from training.recipe import Recipe

#: The domain that `register` adds; a registry entry names an object of a module.
ADDED: dict[str, Domain] = {}


class OfTests(Domain):
    """A domain with families only."""

    title, sentence = "Tests", "Families of tests."

    def __init__(self, word: str, *kinds: type[Recipe]):
        self.word = word
        self.families = tuple(facts_of(kind) for kind in kinds)

    def schema(self) -> Any:
        raise AssertionError("a test that reads manifests must have its own schema")

    def demo(self, job: Job) -> Mapping[str, Any]:
        return {}

    def prepare(self, job: Job) -> None:
        raise AssertionError("nothing to prepare")


def facts_of(kind: type[Recipe]) -> FamilyFacts:
    """The facts of a test's recipe, without a configuration file."""
    place = f"{kind.__module__}:{kind.__qualname__}"
    return FamilyFacts(kind.family, kind.title, place, Path("none.yaml"), {}, kind.manifest)


def register(patch: pytest.MonkeyPatch, *kinds: type[Recipe], word: str = "tests") -> None:
    """Register the families of `kinds` for the duration of a test."""
    ADDED[word] = OfTests(word, *kinds)
    patch.setitem(registry.DOMAINS, word, f"{__name__}:{word}")


def add(*kinds: type[Recipe], word: str = "tests") -> None:
    """Register the families of `kinds` for the rest of this process."""
    ADDED[word] = OfTests(word, *kinds)
    registry.DOMAINS[word] = f"{__name__}:{word}"


def __getattr__(name: str) -> Domain:
    """`tests.toys:word` is the domain with that word."""
    if name in ADDED:
        return ADDED[name]
    raise AttributeError(name)
