"""Records the time of a stage as a session in runs/budget.json, which counts the time of a job over all its restarts.

The time of every process of the job counts, and so does the time between the stages of one runner (train_cuda.sh sets
ATHANOR_RUNNER to "<seconds since 1970>-<anything>", the same for all its stages). Time in which nothing of the job ran
is not known here, and not counted. A thread writes every few seconds, so that kill -9 loses no more than that. Stages
that run at the same time are not counted twice. A failed write is reported once, and the time is counted in memory.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from training.budget.book import (
    BETWEEN,
    PATIENCE,
    Book,
    Busy,
    Clock,
    Job,
    Past,
    Session,
    archive,
    boot,
    locked,
    now,
    read,
    store,
    with_job,
)  # fmt: skip
from training.budget.limit import Limit, Used
from training.errors import HostError

TICK = 5.0  # seconds between two writes
LONGEST_GAP = 86400.0  # seconds before a runner's first stage; beyond that a clock was set
NONE = Limit()


class Ledger:
    """The running session of a stage. Its numbers are up to date, and reading them never waits for the disk."""

    def __init__(self, path: Path, stage: str, families: Iterable[str] = (), *, limit: Limit = NONE):
        self.path, self.limit = path, limit
        self.runner = os.environ.get("ATHANOR_RUNNER", "")[:200]
        self._session = Session(
            id=os.urandom(6).hex(), stage=stage, families=tuple(families), began=now(), price=limit.price,
            runner=self.runner,
        )  # fmt: skip
        self._job = Job(began=self._session.began, sessions=(self._session,))
        self._history: tuple[Past, ...] = ()
        self._last = time.monotonic()  # until when `_session` is counted
        self._boot = boot()
        self._entered = self._reported = False
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="budget", daemon=True)

    @property
    def job(self) -> Job:
        """The job as of the newest write."""
        return self._job

    @property
    def history(self) -> tuple[Past, ...]:
        return self._history

    def used(self) -> Used:
        """The time that the job has used up to now."""
        job, uncounted = self._job, self._uncounted()
        by_price = dict(job.used().by_price)
        by_price[self._session.price] = by_price.get(self._session.price, 0.0) + uncounted
        return Used(by_price)

    def trained(self, family: str) -> float:
        """Seconds of the job that the training of `family` has taken up to now."""
        mine = self._session.stage == "train" and family in self._session.families
        return self._job.trained(family) + (self._uncounted() if mine else 0.0)

    def _uncounted(self) -> float:
        return max(0.0, time.monotonic() - self._last)

    # changes

    def start(self, *, fresh: bool = False) -> None:
        """Add this session to the ledger: to the job that is there, or to a new one if that job is done, or if `fresh`
        and it has sessions of another runner. Raises HostError if there is a limit and the ledger cannot be written."""

        def enter(book: Book) -> Book:
            job = book.job
            own = tuple(s for s in job.sessions if self.runner and s.runner == self.runner) if job else ()
            if job and ((fresh and own != job.sessions) or (job.done and not job.ran_out)):
                book = archive(book, keep=own if fresh else ())
            elif job and job.done:  # ended by its limit: more of it may be wanted now
                book = with_job(book, done=None)
            return self._with_gap(book)

        self._update(enter, PATIENCE, needed=self.limit.given)
        self._thread.start()

    def note_ran_out(self) -> None:
        """Record that the limit ended a training: a later start then continues this job, even if it is done."""
        self._update(lambda book: with_job(book, ran_out=True), PATIENCE)

    def finish(self, code: int, **more: object) -> None:
        """End the session with the stage's exit code. `more`: further fields of the session."""
        self._end.set()
        self._thread.join(PATIENCE)
        self._session = self._session.model_copy(update={"exit": code, **more})
        self._update(patience=PATIENCE)

    def count(self) -> None:
        """Write the time used until now. The thread calls this every TICK seconds."""
        self._update()

    def _tick(self) -> None:
        while not self._end.wait(TICK):
            self.count()

    def _update(
        self, change: Callable[[Book], Book] = lambda book: book, patience: float = 0.0, needed: bool = False
    ) -> None:
        """Read the file, change it, count the time, write it. If that fails, no time is lost: the next update counts
        from the last one that succeeded. A disk that does not answer does not hold up the end of the stage."""
        if not self._lock.acquire(timeout=PATIENCE):
            note(f"what this job uses is not recorded: {self.path} cannot be written, the disk does not answer")
            return
        try:
            self._try_update(change, patience, needed)
        finally:
            self._lock.release()

    def _try_update(self, change: Callable[[Book], Book], patience: float, needed: bool) -> None:
        try:
            with locked(self.path, patience):
                book = change(self._read())
                until, session = self._counted(book.clock)
                job = book.job or Job(began=session.began)
                others = tuple(s for s in job.sessions if s.id != session.id)
                limit = {"hours": self.limit.hours, "money": self.limit.money} if self.limit.given else {}
                job = job.model_copy(update={"sessions": (*others, session), **limit})
                clock = Clock(boot=self._boot, until=until, runner=self.runner)
                book = book.model_copy(update={"job": job, "clock": clock})
                store(self.path, book)
            self._session, self._last, self._job, self._history = session, until, job, book.history
            self._entered = True
        except (OSError, HostError) as error:
            if needed:
                raise HostError(
                    f"{error} What a limited job has used is kept there; without it the limit would not hold."
                ) from None
            if isinstance(error, Busy) and not patience:  # the next tick tries again
                return
            if not self._reported:
                self._reported = True
                note(f"what this job uses is not recorded: {error}")

    def _read(self) -> Book:
        """The content of the file; if it is missing, what this process has in memory. A damaged file is moved aside and
        reported, and also replaced from memory."""
        mine = Book(job=self._job if self._entered else None, history=self._history)
        try:
            return read(self.path) or mine
        except ValueError as error:
            aside = self.path.with_name(f"{self.path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}.json")
            self.path.replace(aside)
            lost = "The time used before is unknown now: counting starts again at zero."
            if self._entered:
                lost = "Nothing is lost: it is written again."
            note(f"{self.path} is damaged ({error}) and is now {aside.name}. {lost}")
            return mine

    def _counted(self, clock: Clock) -> tuple[float, Session]:
        """(now, the session up to now). Time that another process of the job has counted is not counted again."""
        until, since = time.monotonic(), self._last
        if self._boot and clock.boot == self._boot and since < clock.until <= until:
            since = clock.until
        seconds = self._session.seconds + max(0.0, until - since)
        return until, self._session.model_copy(update={"seconds": seconds})

    def _with_gap(self, book: Book) -> Book:
        """Count the time between this runner's last stage, or its own start, and now."""
        gap = self._gap(book)
        if not gap:
            return book
        job = book.job or Job(began=self._session.began)
        between = self._session.model_copy(
            update={"id": f"{BETWEEN} {self.runner} {self._session.price}"[:200], "stage": BETWEEN, "families": (),
                    "exit": 0}
        )  # fmt: skip
        before = sum(s.seconds for s in job.sessions if s.id == between.id)
        between = between.model_copy(update={"seconds": before + gap})
        others = tuple(s for s in job.sessions if s.id != between.id)
        return book.model_copy(update={"job": job.model_copy(update={"sessions": (*others, between)})})

    def _gap(self, book: Book) -> float:
        if not self.runner:
            return 0.0
        if self._boot and (book.clock.boot, book.clock.runner) == (self._boot, self.runner):
            return max(0.0, self._last - book.clock.until)
        began = self.runner.partition("-")[0]
        known = book.job is not None and any(s.runner == self.runner for s in book.job.sessions)
        if known or not began.replace(".", "", 1).isdigit():
            return 0.0
        gap = time.time() - float(began)
        return gap if 0 < gap < LONGEST_GAP else 0.0


class RecordedJob:
    """The recorded job of a folder, read-only. A damaged file is reported and treated as missing."""

    def __init__(self, path: Path):
        try:
            book = read(path) or Book()
        except (OSError, ValueError) as error:
            note(f"{path} cannot be read ({error}): what was used before is not known.")
            book = Book()
        over = book.job is not None and book.job.done is not None and not book.job.ran_out
        self.job = Job(began=now()) if book.job is None or over else book.job
        self.history = archive(book).history if over else book.history

    def used(self) -> Used:
        return self.job.used()

    def trained(self, family: str) -> float:
        return self.job.trained(family)


def note(text: str) -> None:
    """Print a note to standard error."""
    print(f"note: {text}", file=sys.stderr, flush=True)
