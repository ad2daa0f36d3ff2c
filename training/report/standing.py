"""The status of a job: which stage runs, how far each training is, how much of the budget is used."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from training.budget import book as books
from training.budget.account import ledger_path
from training.budget.limit import Limit
from training.registry import families, family_of, item_of
from training.report.runs import RunLog, names, newest
from training.units import duration
from training.workspace import Workspace

ALIVE = 30.0  # seconds since the ledger's last tick within which a stage that has not ended is running


@dataclass(frozen=True)
class Standing:
    """One training: of a family, or of an item of one."""

    name: str  # "family", or "family/item"
    title: str
    run: RunLog | None
    session: books.Session | None  # the newest training of the job
    running: bool
    exported: bool

    @property
    def text(self) -> str:
        """The status in words."""
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
        """The fraction of the steps that is done, while it trains; otherwise None."""
        if not self.running or self.run is None or not self.run.total:
            return None
        return min(1.0, self.run.step / self.run.total)


@dataclass(frozen=True)
class Job:
    """The job of a folder, from its ledger and its runs."""

    book: books.Job | None
    alive: bool  # a stage updated the ledger less than ALIVE seconds ago
    families: tuple[Standing, ...]

    @property
    def running(self) -> bool:
        return self.alive and self.book is not None and self.book.done is None and any(f.running for f in self.families)

    @property
    def text(self) -> str:
        """The status in words; empty if nothing has begun."""
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
        """(label, amount) of the time, the cost, the price, and the limit with what is left of it."""
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
    """The status of the job in `workspace`. `exported`: titles of the runs that have results in exports/, by name.
    `book`: the ledger, if it was read already. Raises ValueError for a damaged ledger, and OSError."""
    path = ledger_path(workspace)
    if book is None:
        try:
            book = books.read(path)
        except ValueError as error:
            raise ValueError(f"runs/{books.NAME} cannot be read: {error}") from None
    job = book.job if book else None
    alive = job is not None and time.time() - path.stat().st_mtime < ALIVE
    known = exported or {}
    trainings = [s for s in (job.sessions if job else ()) if s.stage == "train"]
    registered = families()
    order = {name: place for place, name in enumerate(registered)}
    found = names(workspace) | set(known) | {name for session in trainings for name in session.families}
    standings = []
    for name in sorted(found, key=lambda name: (order.get(family_of(name), len(order)), name)):
        run = newest(workspace, name)
        session = next((s for s in reversed(trainings) if name in s.families), None)
        running = bool(session and session.exit is None and alive)
        standings.append(Standing(name, title_of(name, known.get(name)), run, session, running, name in known))
    return Job(job, alive, tuple(standings))


def title_of(name: str, known: str | None = None) -> str:
    """The title of the run `name`; `known`: its family's title, if the receipt or the metrics hold one."""
    family, item = family_of(name), item_of(name)
    registered = families()
    title = known or (registered[family].title if family in registered else family)
    return f"{title}: {item}" if item else title


def money(amount: float | None) -> str:
    return "" if amount is None else f"{amount:.2f} USD"
