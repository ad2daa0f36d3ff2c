"""Families of tests, made known to the registry for as long as a test lasts."""

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
    """A domain that has families and nothing else."""

    title, sentence = "Tests", "Families of tests."

    def __init__(self, word: str, *kinds: type[Recipe]):
        self.word = word
        self.families = tuple(facts_of(kind) for kind in kinds)

    def schema(self) -> Any:
        raise AssertionError("a test that reads manifests brings its own schema")

    def demo(self, job: Job) -> Mapping[str, Any]:
        return {}

    def prepare(self, job: Job) -> None:
        raise AssertionError("nothing to prepare")


def facts_of(kind: type[Recipe]) -> FamilyFacts:
    """Of a recipe of a test, without a configuration."""
    place = f"{kind.__module__}:{kind.__qualname__}"
    return FamilyFacts(kind.family, kind.title, place, Path("none.yaml"), {}, kind.manifest)


def register(patch: pytest.MonkeyPatch, *kinds: type[Recipe], word: str = "tests") -> None:
    """Make the families of `kinds` known."""
    ADDED[word] = OfTests(word, *kinds)
    patch.setitem(registry.DOMAINS, word, f"{__name__}:{word}")


def add(*kinds: type[Recipe], word: str = "tests") -> None:
    """The same for the rest of this process."""
    ADDED[word] = OfTests(word, *kinds)
    registry.DOMAINS[word] = f"{__name__}:{word}"


def __getattr__(name: str) -> Domain:
    """`tests.toys:word` is the domain of that word."""
    if name in ADDED:
        return ADDED[name]
    raise AttributeError(name)
