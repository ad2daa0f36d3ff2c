"""What the domains of a job add to its page: which domains these are, and their sections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from training.domain import Domain, Section
from training.registry import domains, family_of
from training.workspace import Workspace


@dataclass(frozen=True)
class Part:
    """A section with its place on the page."""

    anchor: str  # unique on the page
    title: str
    section: Section


def domains_of(workspace: Workspace, names: Iterable[str], summary: Mapping[str, Any] | None) -> list[Domain]:
    """The domains that runs of these `names` belong to, in the order of the registry. If nothing was trained yet: the
    domain that `summary` names, or else those for which a family's manifest exists."""
    trained = {family_of(name) for name in names}
    known = list(domains().values())
    found = [one for one in known if any(facts.name in trained for facts in one.families)]
    if found or summary is None:
        return found
    word = summary.get("domain")
    return [one for one in known if one.word == word] or [
        one for one in known if any(workspace.manifest(facts.manifest, "train").exists() for facts in one.families)
    ]


def parts(workspace: Workspace, found: Iterable[Domain], problems: list[str]) -> list[Part]:
    """The sections of the domains, one domain after another. A domain that raises an error is reported in `problems`,
    and the others are shown."""
    listed: list[tuple[Domain, Section]] = []
    for one in found:
        try:
            sections = list(one.sections(workspace))
        except Exception as error:  # noqa: BLE001  a page without one domain's sections is better than no page
            problems.append(f"The sections of {one.title} cannot be shown: {type(error).__name__}: {error}")
            continue
        listed += [(one, section) for section in sections]
        problems += [problem for section in sections for problem in section.problems]
    several = len({one.word for one, _ in listed}) > 1
    uses = Counter(section.name for _, section in listed)
    return [
        Part(
            section.name if uses[section.name] == 1 else f"{one.word}-{section.name}",
            f"{one.title}: {section.title}" if several else section.title,
            section,
        )
        for one, section in listed
    ]
