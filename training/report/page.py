"""exports/report.html: the facts, a template, the sections of the domains, and nothing that would have to be fetched.

Whatever comes from files of the user (names, reasons, notes) passes through the templates' escaping; the page's policy
(Content-Security-Policy) lets no script run but the domains' own, by hash, and no request leave.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from training.data.files import write_atomic
from training.report.card import write_card
from training.report.facts import Facts, gather
from training.report.parts import Part
from training.workspace import Workspace

NAME = "report.html"
PAGE = Path(__file__).parent / "templates"
OF_THE_LEDGER = {"written", "state", "running", "finished", "stages", "spent"}  # of Facts: not in a page's mark
HEAD = 4000  # characters of a page in which its mark stands
_NONE = "'none'"


def write_report(workspace: Workspace) -> Path:
    """Write the page of the job in `workspace`, atomically; returns its path. Raises HostError."""
    path = workspace.exports / NAME
    write_atomic(path, render(gather(workspace)).encode())
    return path


def refresh(workspace: Workspace, say: Callable[[str], None] = print) -> Path | None:
    """The page and the model card, for those whose work must not end because of a page: what went wrong is reported.

    A page of a finished job stays as it is while nothing but the ledger has changed: a job that found nothing to do is
    no reason to forget what the one before it has cost.
    """
    try:
        write_card(workspace)
        facts, path = gather(workspace), workspace.exports / NAME
        if not _is_shown(facts, path):
            write_atomic(path, render(facts).encode())
        return path
    except Exception as error:  # noqa: BLE001  whatever it is, what was trained and exported is not less for it
        why = f"{type(error).__name__}: {error}"
        say(f"The report could not be written ({why}); `python -m training report` tries again.")
        return None


def mark(facts: Facts, *, finished: bool) -> str:
    """Stands in the page: a digest of all that it shows but times and costs, and whether the job was over."""
    shown = {f.name: getattr(facts, f.name) for f in dataclasses.fields(facts) if f.name not in OF_THE_LEDGER}
    digest = hashlib.sha256(json.dumps(shown, sort_keys=True, default=_plain).encode()).hexdigest()
    return f"{digest} {'finished' if finished else 'under way'}"


def _plain(value: object) -> object:
    """What JSON does not know: paths, and dataclasses, field by field since their mappings may be read-only."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return str(value) if isinstance(value, Path) else dict(value)


def _is_shown(facts: Facts, path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        return False
    return mark(facts, finished=True) in head


def render(facts: Facts) -> str:
    """The page. Raises jinja2.TemplateError for a section that cannot be rendered."""
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = [_Shown(part.anchor, part.title, _section(environment, part)) for part in facts.parts]
    places = [part.section.place for part in facts.parts]
    scripts = _texts(part.section.script for part in facts.parts)
    styles = _texts([PAGE / "report.css", *(part.section.style for part in facts.parts)])
    return environment.get_template("report.html.j2").render(
        facts=facts,
        placed=lambda place: [one for one, where in zip(shown, places, strict=True) if where == place],
        policy=policy(scripts, styles),
        mark=mark(facts, finished=facts.finished),
        scripts=[Markup(text) for text in scripts],
        styles=[Markup(text) for text in styles],
        receipt=json.dumps(facts.receipt, indent=1, ensure_ascii=False) if facts.receipt else "",
    )


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A domain's section as the page holds it."""

    anchor: str
    title: str
    html: Markup


def _section(environment: Environment, part: Part) -> Markup:
    """The domain's template with its facts; it may import from the page's macros."""
    template = part.section.template
    own = environment.overlay(loader=FileSystemLoader([template.parent, PAGE]))
    return Markup(own.get_template(template.name).render(facts=part.section.facts))


def _texts(paths: Iterable[Path | None]) -> list[str]:
    """Of each file once, in their order."""
    return [path.read_text(encoding="utf-8") for path in dict.fromkeys(paths) if path is not None]


def policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """The Content-Security-Policy of a page with these scripts and style sheets: no others, and no request.

    Attributes `style` are allowed, since the pictures' places stand in them; `style-src` alone is for browsers that do
    not know the two directives which are more exact.
    """
    return (
        f"default-src 'none'; script-src {_hashes(scripts) or _NONE}; style-src 'unsafe-inline'; "
        f"style-src-elem {_hashes(styles) or _NONE}; style-src-attr 'unsafe-inline'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: Iterable[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
