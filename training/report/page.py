"""exports/report.html: the facts, a template, and nothing that would have to be fetched.

Whatever comes from files of the user (names of songs, reasons, notes) passes through the template's escaping; the
page's policy (Content-Security-Policy) lets no script run but its own, by hash, and no request leave.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from training.data.files import write_atomic
from training.report.card import write_card
from training.report.facts import Facts, gather
from training.workspace import Workspace

NAME = "report.html"
PAGE = Path(__file__).parent / "templates"
OF_THE_LEDGER = {"written", "state", "running", "finished", "stages", "spent"}  # of Facts: not in a page's mark
HEAD = 2000  # characters of a page in which its mark stands


def write_report(workspace: Workspace) -> Path:
    """Write the page of the job in `workspace`, whole or not at all; returns where. Raises HostError."""
    path = workspace.exports / NAME
    write_atomic(path, render(gather(workspace)).encode())
    return path


def refresh(workspace: Workspace, say: Callable[[str], None] = print) -> Path | None:
    """The page and the model card, for those whose work must not end because of a page: what went wrong is said.

    A page of a finished job stays as it is while nothing but the ledger has changed: a job that found nothing to do is
    no reason to forget what the one before it has cost.
    """
    try:
        write_card(workspace)
        facts, path = gather(workspace), workspace.exports / NAME
        if not _is_told(facts, path):
            write_atomic(path, render(facts).encode())
        return path
    except Exception as error:  # noqa: BLE001  whatever it is, what was trained and exported is not less for it
        why = f"{type(error).__name__}: {error}"
        say(f"The report could not be written ({why}); `python -m training report` tries again.")
        return None


def mark(facts: Facts, *, finished: bool) -> str:
    """Stands in the page: a digest of all that it tells but times and costs, and whether the job was over."""
    told = {f.name: getattr(facts, f.name) for f in dataclasses.fields(facts) if f.name not in OF_THE_LEDGER}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=dataclasses.asdict).encode()).hexdigest()
    return f"{digest} {'finished' if finished else 'under way'}"


def _is_told(facts: Facts, path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        return False
    return mark(facts, finished=True) in head


def render(facts: Facts) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (PAGE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("report.html.j2").render(
        facts=facts,
        policy=policy,
        mark=mark(facts, finished=facts.finished),
        script=Markup(script),
        style=Markup((PAGE / "report.css").read_text(encoding="utf-8")),
        receipt=json.dumps(facts.receipt, indent=1, ensure_ascii=False) if facts.receipt else "",
    )
