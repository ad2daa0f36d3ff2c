"""The format of runs/budget.json, and how it is read and written: atomically, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from training.budget.limit import Used
from training.config import Section
from training.data.files import write_atomic
from training.errors import HostError
from training.host import cpu_name

NAME = "budget.json"
PATIENCE = 10.0  # seconds to wait for another process that is writing
PAST_JOBS = 20  # kept as history
BETWEEN = "between stages"

Seconds = Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=200)]


class Busy(HostError):
    """Another process is writing."""


class Session(Section):
    """One process of one stage."""

    id: Text
    stage: Text
    families: tuple[Text, ...] = ()
    began: Text  # UTC
    seconds: Seconds = 0.0
    exit: int | None = None  # exit code; None: it is running, or was killed
    price: Annotated[float, Field(gt=0, lt=1e6)] | None = None  # USD an hour
    runner: Text = ""
    expected: Seconds = 0.0  # predicted by reserve.py; 0: no prediction for this stage
    #: Of a training with a limit: the reserve when it ended, family -> seconds.
    kept: Mapping[str, Seconds] = Field(default_factory=dict)


class Job(Section):
    """All sessions from the first start to the verified exports."""

    began: Text
    sessions: tuple[Session, ...] = ()
    done: Text | None = None  # UTC
    ran_out: bool = False  # the limit ended a training
    hours: Annotated[float, Field(gt=0, lt=1e6)] | None = None  # the limit as last given; None: no limit
    money: Annotated[float, Field(gt=0, lt=1e6)] | None = None  # USD

    def used(self) -> Used:
        seconds: dict[float | None, float] = {}
        for session in self.sessions:
            seconds[session.price] = seconds.get(session.price, 0.0) + session.seconds
        return Used(seconds)

    def trained(self, family: str) -> float:
        """Seconds that the training of `family` has taken, its start-up included."""
        return sum(s.seconds for s in self.sessions if s.stage == "train" and family in s.families)

    @property
    def price(self) -> float | None:
        """USD an hour, as last known."""
        return next((s.price for s in reversed(self.sessions) if s.price is not None), None)


class Past(Section):
    """The summary of a job that is over."""

    began: Text
    ended: Text
    seconds: Seconds
    money: Seconds | None = None  # USD
    stages: Mapping[str, Seconds] = Field(default_factory=dict)
    host: Text = ""
    pace: Mapping[str, Seconds] = Field(default_factory=dict)  # stage -> largest ratio of actual to expected seconds


class Clock(Section):
    """Up to when the job's time is counted: seconds of the monotonic clock since this boot of this host."""

    boot: Text = ""
    until: float = 0.0
    runner: Text = ""


class Book(Section):
    """The complete file."""

    format: Literal[1] = 1
    job: Job | None = None
    clock: Clock = Clock()
    history: tuple[Past, ...] = ()


# -- the file ------------------------------------------------------------------------------------------------------


def read(path: Path) -> Book | None:
    """What is in the file; None where there is none. Raises ValueError for a damaged one, OSError."""
    try:
        return Book.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))) from None


def close(path: Path) -> Book:
    """Mark the job as done: the next stage begins a new job. Raises HostError."""
    with locked(path, PATIENCE):
        try:
            book = read(path) or Book()
        except ValueError as error:
            raise HostError(f"{path} cannot be read ({error}). Move it away; time is then counted from zero.") from None
        if book.job is not None and book.job.done is None:
            book = with_job(book, done=now())
            store(path, book)
        return book


def store(path: Path, book: Book) -> None:
    write_atomic(path, book.model_dump_json(indent=1).encode() + b"\n")


@contextmanager
def locked(path: Path, patience: float) -> Iterator[None]:
    """One process at a time. A POSIX record lock: unlike flock's, forked data loader workers do not inherit it
    and hold it for hours. Raises Busy when it is held for longer than `patience`, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_name(f".{path.stem}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= until:
                    raise Busy(f"{path} is being written by another process.") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def archive(book: Book, keep: tuple[Session, ...] = ()) -> Book:
    """Move the job into the history. `keep`: sessions that are moved to a new job instead."""
    job = book.job
    if job is None:
        return book
    old = tuple(s for s in job.sessions if s not in keep)
    gone = job.model_copy(update={"sessions": old})
    stages: dict[str, float] = {}
    for session in old:
        label = " ".join([session.stage, *session.families])
        stages[label] = round(stages.get(label, 0.0) + session.seconds, 1)
    used = gone.used()
    money = used.money(job.price)
    past = Past(
        began=job.began, ended=job.done or now(), seconds=round(used.seconds, 1),
        money=None if money is None else round(money, 4), stages=stages, host=host(), pace=paces(old),
    )  # fmt: skip
    new = Job(began=keep[0].began, sessions=keep) if keep else None
    return book.model_copy(update={"job": new, "history": (*book.history, past)[-PAST_JOBS:]})


def paces(sessions: Iterable[Session]) -> dict[str, float]:
    """Stage -> largest ratio of actual to expected seconds, over its sessions that succeeded and have a prediction."""
    out: dict[str, float] = {}
    for session in sessions:
        if session.exit == 0 and session.expected:
            out[session.stage] = max(out.get(session.stage, 0.0), round(session.seconds / session.expected, 3))
    return out


def with_job(book: Book, **values: object) -> Book:
    return book if book.job is None else book.model_copy(update={"job": book.job.model_copy(update=values)})


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def boot() -> str:
    """An id of this boot of this host, within which the monotonic clocks of all processes agree; "": not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def host() -> str:
    """A name of this host's hardware, so that measurements on other hardware are not used here."""
    return f"{cpu_name()} x {os.cpu_count()}"[:200]
