"""How a job stands: which stage runs, how far each training is, what is used of the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from training.budget import book as books
from training.budget.account import ledger_path
from training.budget.limit import Limit
from training.registry import families
from training.report.runs import RunLog, newest
from training.units import duration
from training.workspace import Workspace

ALIVE = 30.0  # seconds since the ledger's last tick within which a stage that has not ended is running


@dataclass(frozen=True)
class Standing:
    """One family's training."""

    name: str
    title: str
    run: RunLog | None
    session: books.Session | None  # the newest training of the job
    running: bool
    exported: bool

    @property
    def told(self) -> str:
        """For people."""
        run, session = self.run, self.session
        if run is None:
            return "exported" if self.exported else "beginning" if self.running else "not trained"
        at = f"step {run.step:,}" + (f" of {run.total:,}" if run.total else "")
        if self.running:
            left = f", {duration(run.seconds_left)} left" if run.seconds_left is not None else ""
            return f"training: {at}{left}"
        if session is None or session.exit == 0:
            return f"trained: {at}"
        if session.exit is None:
            return f"cut off at {at}"
        return f"stopped at {at}" if session.exit == 75 else f"failed at {at} (exit {session.exit})"

    @property
    def share(self) -> float | None:
        """Of the steps, while it trains."""
        if not self.running or self.run is None or not self.run.total:
            return None
        return min(1.0, self.run.step / self.run.total)


@dataclass(frozen=True)
class Job:
    """The job of a folder, as its ledger and its runs tell it."""

    book: books.Job | None
    alive: bool  # something of it was running a moment ago
    families: tuple[Standing, ...]

    @property
    def running(self) -> bool:
        return self.alive and self.book is not None and self.book.done is None and any(f.running for f in self.families)

    @property
    def told(self) -> str:
        """For people; empty where nothing has begun."""
        job = self.book
        if job is None:
            return ""
        if job.done:
            return "finished, and its exports verified" + (", at the end of its budget" if job.ran_out else "")
        last = next((s for s in reversed(job.sessions) if s.stage != books.BETWEEN), None)
        if last is None:
            return ""
        what = " ".join([last.stage, *last.families])
        if last.exit is None:
            return f"running: {what}" if self.alive else f"not running; it was cut off during {what}"
        if last.exit == 0:
            return f"not finished: its last stage was {what}"
        return f"not finished: {what} " + ("was interrupted" if last.exit == 75 else f"failed (exit {last.exit})")

    @property
    def spent(self) -> list[tuple[str, str]]:
        """(what, how much), and what is left of the limit."""
        job = self.book
        if job is None:
            return []
        price, used = job.price, job.used()
        spent = [
            ("time of the job", duration(used.seconds)),
            ("cost of the job", money(used.money(price)) or "not known"),
        ]
        if price:
            spent.append(("price", f"{price:g} USD an hour"))
        limit = Limit(job.hours, job.money, price)
        if limit.given and math.isfinite(limit.seconds(used)):
            spent.append(("limit", duration(limit.seconds(used))))
            spent.append(("left of it", duration(max(0.0, limit.seconds(used) - used.seconds))))
        return spent

    @property
    def stages(self) -> list[tuple[str, str, str]]:
        """(stage, time, money) of each."""
        grouped: dict[str, list[books.Session]] = {}
        for session in self.book.sessions if self.book else ():
            grouped.setdefault(" ".join([session.stage, *session.families]), []).append(session)
        price = self.book.price if self.book else None
        parts = {label: books.Job(began="", sessions=tuple(some)).used() for label, some in grouped.items()}
        return [(label, duration(part.seconds), money(part.money(price))) for label, part in parts.items()]


def stand(workspace: Workspace, exported: Mapping[str, str] | None = None, book: books.Book | None = None) -> Job:
    """Of the job in `workspace`. `exported`: titles of families that left something in exports/. `book`: the ledger,
    where it was read already. Raises ValueError for a damaged ledger, OSError."""
    path = ledger_path(workspace)
    if book is None:
        book = books.read(path)
    job = book.job if book else None
    alive = job is not None and time.time() - path.stat().st_mtime < ALIVE
    known = exported or {}
    ran = {folder.name for folder in workspace.runs("").glob("*") if folder.is_dir()}
    registered = families()
    standings = []
    for name in [*registered, *sorted((ran | set(known)) - set(registered))]:
        run = newest(workspace, name)
        sessions = reversed(job.sessions if job else ())
        session = next((s for s in sessions if s.stage == "train" and name in s.families), None)
        if run is None and name not in known and session is None:
            continue
        running = bool(session and session.exit is None and alive)
        title = known.get(name) or (registered[name].title if name in registered else name)
        standings.append(Standing(name, title, run, session, running, name in known))
    return Job(job, alive, tuple(standings))


def money(amount: float | None) -> str:
    return "" if amount is None else f"{amount:.2f} USD"
