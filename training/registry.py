"""The registry of domains and of their families by name. A new domain is a folder under domains/ and a line here.

A domain is imported when it is first used. ATHANOR_DOMAINS adds domains from other packages: "module:OBJECT", separated
by commas.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import UsageError

if TYPE_CHECKING:
    from training.config import Layer
    from training.domain import Domain, FamilyFacts, Job
    from training.recipe import Recipe

#: The word on the command line -> the domain. A command without a word uses the first.
DOMAINS = {
    "music": "training.domains.music.domain:MUSIC",
    "sql": "training.domains.sql.domain:SQL",
    "market": "training.domains.market.domain:MARKET",
    "amp": "training.domains.amp.domain:AMP",
    "brain": "training.domains.brain.domain:BRAIN",
}


def domains() -> dict[str, Domain]:
    """Every domain by its word, in the order of the registry."""
    found = {word: _load(place) for word, place in DOMAINS.items()}
    for place in filter(None, os.environ.get("ATHANOR_DOMAINS", "").split(",")):
        added = _load(place.strip())
        found[added.word] = added
    return found


def _load(place: str) -> Domain:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        if place in DOMAINS.values():
            raise  # a bug in this project, not the user's mistake
        raise UsageError(
            f'ATHANOR_DOMAINS names {place!r}, which cannot be imported ({error}). It is "package.module:OBJECT", and '
            "PYTHONPATH must lead to it."
        ) from None


def domain(word: str) -> Domain:
    """The domain of a word. Raises UsageError for an unknown word."""
    found = domains()
    if word not in found:
        raise UsageError(f"There is no domain `{word}`; known are {', '.join(found)}.")
    return found[word]


def families() -> dict[str, FamilyFacts]:
    """Every family of every domain by its name."""
    return {facts.name: facts for one in domains().values() for facts in one.families}


def family_of(run: str) -> str:
    """The family of a run's name, which is "family", or "family/item" where one command trains a model per item."""
    return run.partition("/")[0]


def item_of(run: str) -> str:
    """The item of a run's name; empty if its family does not fan out."""
    return run.partition("/")[2]


def facts(run: str) -> FamilyFacts:
    """The facts about the family of a run. Raises UsageError for an unknown family."""
    known = families()
    name = family_of(run)
    if name not in known:
        raise UsageError(f"There is no model family `{name}`; known are {', '.join(known)}.")
    return known[name]


def domain_of(run: str) -> Domain:
    """The domain of a run's family. Raises UsageError for an unknown family."""
    name = facts(run).name
    return next(one for one in domains().values() if any(family.name == name for family in one.families))


def require_one_model(run: str) -> None:
    """Raise UsageError if `run` is the name of a family with one model per item, without an item."""
    about = facts(run)
    if about.fan_out and not item_of(run):
        raise UsageError(
            f"{run} trains one model per item: name one as {run}/ITEM, or all of them with `python -m training each "
            f"train {run}` (or `each evaluate {run}`)."
        )


def recipe_type(run: str) -> type[Recipe]:
    """The Recipe class of a run's family; this imports torch. Raises UsageError for an unknown family."""
    return _load_type(facts(run).recipe)


def _load_type(place: str) -> type[Recipe]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def settings_layers(run: str, preset: str = "full", config: Path | None = None) -> list[Layer]:
    """The layers of a run's settings: the file of preset `full`, then the overlay of `preset`; or `config` alone."""
    from training.config import read_yaml

    if config is not None:
        return list(domain_of(run).config_layers(family_of(run), config))
    about = facts(run)
    if preset == "full":
        return [read_yaml(about.config)]
    if preset not in about.presets:
        raise UsageError(f"{about.title} has no preset `{preset}`; known are full, {', '.join(about.presets)}.")
    return [read_yaml(about.config), read_yaml(about.presets[preset])]


def load_recipe(
    run: str,
    preset: str = "full",
    config: Path | None = None,
    overrides: tuple[str, ...] | list[str] = (),
    job: Job | None = None,
) -> Recipe:
    """A run's recipe with the settings of a preset or file, changed as in `recipe_with`."""
    return recipe_with(run, settings_layers(run, preset, config), overrides, job)


def recipe_with(run: str, layers: Sequence[Layer], overrides: Sequence[str] = (), job: Job | None = None) -> Recipe:
    """A run's recipe with the settings of `layers`, changed by `section.key=value` overrides, and by the domain for the
    options and the workspace of `job` (Domain.settings)."""
    from training.config import Layer, build, override_layer

    kind = recipe_type(run)
    layers = [*layers, override_layer(overrides)]
    settings = build(kind.settings_type, *layers)
    if job is not None:
        domain = domain_of(run)
        more = domain.settings(job, family_of(run), settings)
        settings = build(kind.settings_type, *layers, Layer(more, name=f"the options of {domain.word}"))
    recipe = kind(settings)
    recipe.item = item_of(run)
    return recipe
