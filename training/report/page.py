"""exports/report.html, made of the facts, a template and the sections of the domains; it loads no other file.

Whatever comes from files of the user (names, reasons, notes) is escaped by the templates. The page's
Content-Security-Policy allows only the domains' scripts, by their hashes, and no request.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cache
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
OF_THE_LEDGER = {"written", "state", "running", "finished", "stages", "spent"}  # fields of Facts that `mark` leaves out
HEAD = 4000  # characters at the start of a page that contain its mark
_NONE = "'none'"


def write_report(workspace: Workspace) -> Path:
    """Write the page of the job in `workspace`, atomically; returns its path. Raises HostError."""
    path = workspace.exports / NAME
    write_atomic(path, render(gather(workspace)).encode())
    return path


def refresh(workspace: Workspace, say: Callable[[str], None] = print) -> Path | None:
    """Write the page and the model card. An error is reported through `say` and not raised, as a training or an export
    must not fail because of it; None is returned.

    The page of a finished job is kept while only the ledger has changed: a later job that had nothing to do must not
    replace the cost of the one that trained.
    """
    try:
        write_card(workspace)
        facts, path = gather(workspace), workspace.exports / NAME
        if not _is_shown(facts, path):
            write_atomic(path, render(facts).encode())
        return path
    except Exception as error:  # noqa: BLE001  no error of the page affects what was trained and exported
        why = f"{type(error).__name__}: {error}"
        say(f"The report could not be written ({why}); `python -m training report` tries again.")
        return None


def mark(facts: Facts, *, finished: bool) -> str:
    """Written into the page to recognize it later: a digest of all that it shows except times and costs, and whether
    the job was finished."""
    shown = {f.name: getattr(facts, f.name) for f in dataclasses.fields(facts) if f.name not in OF_THE_LEDGER}
    digest = hashlib.sha256(json.dumps(shown, sort_keys=True, default=_plain).encode()).hexdigest()
    return f"{digest} {'finished' if finished else 'under way'}"


def _plain(value: object) -> object:
    """The types that JSON does not support. Not `dataclasses.asdict`: it cannot copy read-only mappings."""
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
    shown = [_Shown(part.anchor, part.title, _section(part)) for part in facts.parts]
    places = [part.section.place for part in facts.parts]
    scripts = _texts(part.section.script for part in facts.parts)
    styles = _texts([PAGE / "report.css", *(part.section.style for part in facts.parts)])
    return _templates(PAGE).get_template("report.html.j2").render(
        facts=facts,
        placed=lambda place: [one for one, where in zip(shown, places, strict=True) if where == place],
        policy=policy(scripts, styles),
        mark=mark(facts, finished=facts.finished),
        scripts=[Markup(text) for text in scripts],
        styles=[Markup(text) for text in styles],
        receipt=json.dumps(facts.receipt, indent=1, ensure_ascii=False) if facts.receipt else "",
    )


@cache  # each is compiled once in a process, or again if its file changes
def _templates(*folders: Path) -> Environment:
    """The templates in `folders`; of two with the same name, that in the first."""
    return Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A domain's section, rendered."""

    anchor: str
    title: str
    html: Markup


def _section(part: Part) -> Markup:
    """The domain's template with its facts; it may import from the page's macros."""
    template = part.section.template
    templates = _templates(template.parent, PAGE)
    return Markup(templates.get_template(template.name).render(facts=part.section.facts))


def _texts(paths: Iterable[Path | None]) -> list[str]:
    """The text of each file once, in the order of `paths`."""
    return [path.read_text(encoding="utf-8") for path in dict.fromkeys(paths) if path is not None]


def policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """The Content-Security-Policy of a page with these scripts and style sheets: no others, and no request.

    `style` attributes are allowed, as they hold the positions in the charts. `style-src` is for browsers that do not
    support the two more specific directives.
    """
    return (
        f"default-src 'none'; script-src {_hashes(scripts) or _NONE}; style-src 'unsafe-inline'; "
        f"style-src-elem {_hashes(styles) or _NONE}; style-src-attr 'unsafe-inline'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: Iterable[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
