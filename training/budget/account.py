"""The budget as a stage uses it: the time that is used, the time that is left for training, and the cost."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from training.budget import book as books
from training.budget.ending import STAGES, Ending
from training.budget.ledger import Ledger, RecordedJob
from training.budget.limit import CURRENCY, HOUR, Limit
from training.budget.reserve import TRIAL, Due, due, expected, is_measured, reserves, slowness
from training.errors import AthanorError, Interrupted, TrainingError
from training.units import duration
from training.workspace import Workspace

NOT_COUNTED = "Time in which nothing of the job ran is not counted; a rented machine costs money then, too."
FRESH = 10.0  # seconds until a reserve is computed again: the first checkpoint shows the size of a model
WARM_UP, COMPARED = 5, 40  # first steps of a training that are not compared; steps whose median is
LOOKS = 6  # measurements of the core that are kept
NOISE = 1.25  # on a quiet host two such medians differ by up to 15 %
ROUNDS = 4  # fixed-point iterations: the reserve depends on the training time, and that on the reserve


def ledger_path(workspace: Workspace) -> Path:
    """The path of a workspace's ledger."""
    return workspace.root / "runs" / books.NAME


class Drift:
    """How much slower the steps of a training have become since it began, because others use the host, too."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=COMPARED)
        self._since: float | None = None
        self._steps = 0

    def stepped(self) -> None:
        now = time.monotonic()
        if self._since is not None and self._steps > WARM_UP:
            (self._recent if len(self._first) == COMPARED else self._first).append(now - self._since)
        self._since, self._steps = now, self._steps + 1

    @property
    def ratio(self) -> float:
        """Median of the recent steps by that of the first, if it is more than noise; else 1."""
        ratio = median(self._recent) / median(self._first) if len(self._recent) == COMPARED else 1.0
        return ratio if ratio > NOISE else 1.0


class Account:
    """The budget's account of the running stage (with a `Ledger`), or of one that is only planned (with a
    `RecordedJob`, which records nothing)."""

    def __init__(
        self, workspace: Workspace, limit: Limit, ledger: Ledger | RecordedJob, slow: float | None = None,
        endings: Mapping[str, Ending] | None = None,
    ):  # fmt: skip
        self.workspace, self.limit, self.ledger = workspace, limit, ledger
        self.kept: dict[str, float] = {}  # family -> seconds of its reserve, as last computed for a training
        self._slow = [slowness() if slow is None else slow]  # of this host, as the stage begins and as it ends
        self._drift = Drift()
        self._beside: deque[float] = deque(maxlen=LOOKS)  # measured beside a training that has become slower
        self._endings = endings or {}

    @property
    def seconds(self) -> float:
        """The limit of the job; infinite if there is none."""
        return self.limit.seconds(self.ledger.used())

    @property
    def slow(self) -> float:
        """How slow this host is. More than as the stage began only if both the steps of the training and a core have
        become slower since: the threads of a step wait for each other, and suffer more from others than an export does;
        a core that is measured beside a training is slowed by the training's own threads."""
        began = median(self._slow)
        beside = median(self._beside) / began if self._beside else 1.0
        return began * max(1.0, min(self._drift.ratio, beside))

    def measure_slowness(self) -> None:
        """Measure how slow this host is at the moment."""
        self._slow.append(slowness())

    def kept_back(
        self, families: Iterable[str], trained: Mapping[str, float] | None = None, **known: float
    ) -> dict[str, float]:
        """The reserve: family -> seconds for evaluating, exporting and verifying it. `trained`: seconds of its
        training, if they are not those of the ledger. `known`: sizes in millions of parameters; by default they are
        derived from the checkpoints."""
        coming = self.due(families, trained, known)
        return reserves(coming, self.slow, self.ledger.job.sessions, self.ledger.history)

    def due(
        self, families: Iterable[str], trained: Mapping[str, float] | None = None,
        known: Mapping[str, float] | None = None,
    ) -> dict[str, Due]:  # fmt: skip
        """Family -> the evaluation, export and verification that it still needs. Arguments as of kept_back."""
        seconds = {family: self.ledger.trained(family) for family in families} | dict(trained or {})
        endings = {family: self._endings.get(family, Ending()) for family in seconds}
        return due(self.workspace, endings, seconds, known)

    def is_measured(self) -> bool:
        """Whether the reserve is computed from measurements on this host."""
        return is_measured(self.ledger.job.sessions, self.ledger.history)

    def training_left(
        self, family: str, families_left: int, others: Sequence[str], **known: float
    ) -> Callable[[], float] | None:
        """Seconds of training that `family` may still use, read again at each step; None without a limit.

        What the limit leaves after everything else (other stages, trainings that are over, the reserve) is shared
        evenly among the `families_left`, this one included. Time that one does not use is left to the next. `others`:
        the other families of the job. Earlier sessions of this family count as used, so that interruptions do not
        enlarge its share. `known`: as in kept_back.
        """
        if not self.limit.given:
            return None
        before = {name for s in self.ledger.job.sessions if s.stage == "train" for name in s.families} - {family}
        coming = [name for name in others if name not in before][: families_left - 1]
        families, share = sorted({family, *before, *coming}), max(1, families_left)
        computed = -math.inf  # when the reserve was computed, on the monotonic clock

        def each(kept: float) -> float:  # this family's share in seconds, its earlier sessions included
            used, own = self.ledger.used(), self.ledger.trained(family)
            return (self.limit.seconds(used) - kept - (used.seconds - own)) / share

        def left() -> float:
            nonlocal computed
            self._drift.stepped()
            if time.monotonic() - computed > FRESH:
                computed = time.monotonic()
                if self._drift.ratio > 1:
                    self._beside.append(slowness())
                seconds = max(0.0, each(0.0))
                for _ in range(ROUNDS):
                    trained = dict.fromkeys([family, *coming], seconds)
                    self.kept = self.kept_back(families, trained, **known)
                    seconds = max(0.0, each(sum(self.kept.values())))
            return each(sum(self.kept.values())) - self.ledger.trained(family)

        return left

    def require_time(self, left: float, families: Sequence[str]) -> None:
        """Raise TrainingError where there is no time to train at all, and nothing trained that could be exported."""
        if left > 0 or any(any(self.workspace.checkpoints(name).glob("*.pt")) for name in families):
            return
        used = self.ledger.used()
        kept = sum(self.kept_back(families).values())
        needed = math.ceil(used.seconds + kept - left)
        hint = f"--max-hours {needed / HOUR * 1.1:.2f}"
        if self.limit.money is not None and self.limit.price is not None:
            hint += f" or --budget-usd {needed / HOUR * 1.1 * self.limit.price:.2f}"
        raise TrainingError(
            f"The limit leaves no time to train: of {duration(self.seconds)}, {duration(used.seconds)} are used "
            f"({ledger_path(self.workspace)}), and {duration(kept)} are kept back for evaluating, "
            f"exporting and verifying. It takes more than {hint}; `--resume never` begins a new job at zero."
        )

    def cost(self, families: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Family -> its cost up to now: of the family's stages, and a share of the common ones; {} without a price."""
        job = self.ledger.job
        every = {name for s in job.sessions for name in s.families} | set(families)
        out: dict[str, dict[str, Any]] = {}
        if self.ledger.used().money(self.limit.price or job.price) is None:
            return out
        for family in families:
            money = 0.0
            for session in job.sessions:
                share = 1 / len(session.families or every) if family in (session.families or every) else 0.0
                money += share * session.seconds * (session.price or self.limit.price or job.price or 0.0) / HOUR
            out[family] = {"money": round(money, 2), "currency": CURRENCY}
        return out

    def summary(self) -> str:
        """One line: the used time and cost, and the limit."""
        used = self.ledger.used()
        money, price = used.money(self.limit.price), self.limit.price
        spent = f" ({money:.2f} USD at {price:g} USD/h)" if money is not None and price is not None else ""
        text = f"Budget: {duration(used.seconds)}{spent} of {duration(self.seconds)} used."
        runners = [session.runner for session in self.ledger.job.sessions]
        if len(set(runners)) > 1 or (runners[1:] and not runners[0]):
            text += f" {NOT_COUNTED}"
        return text


@contextmanager
def counted(
    workspace: Workspace, stage: str, families: Sequence[str], limit: Limit, *, fresh: bool = False,
    endings: Mapping[str, Ending] | None = None,
) -> Iterator[Account]:  # fmt: skip
    """Record the time of the block as a session of `stage`. `endings`: how long the end of each family takes on the
    reference cores. Raises HostError if there is a limit and the ledger cannot be written."""
    ledger = Ledger(ledger_path(workspace), stage, families, limit=limit)
    ledger.start(fresh=fresh)
    account = Account(workspace, limit, ledger, endings=endings)
    code = 1
    try:
        if limit.given:
            print(account.summary(), flush=True)
        yield account
        code = 0
    except (AthanorError, Interrupted) as error:
        code = error.exit_code
        raise
    finally:
        # What was computed while it trained assumed that it would train for all the time that it was allowed.
        kept = account.kept_back(account.kept) if account.kept else {}
        ledger.finish(code, expected=_expected(account, stage, families), kept=kept)


def _expected(account: Account, stage: str, families: Sequence[str]) -> float:
    """Seconds that a finished stage should have taken, with the slowness of this host during it."""
    if stage not in (*STAGES, TRIAL):
        return 0.0
    account.measure_slowness()
    return account.slow * expected(stage, account.due(families).values())


def table(book: books.Book) -> str:
    """The job of a folder for people: a line for each stage, the sum, what is left, and earlier jobs."""
    job = book.job
    lines: list[str] = []
    if job is None:
        lines.append("No job has been counted here yet.")
    else:
        lines += _job_lines(job)
    if book.history:
        lines.append("Earlier jobs")
    for past in book.history:
        money = "" if past.money is None else f"{past.money:9.2f} USD"
        lines.append(f"  {past.began} to {past.ended}   {duration(past.seconds):>9}{money}")
    return "\n".join(lines)


def plain(book: books.Book) -> dict[str, Any]:
    """The job of a folder for programs: hours and USD used, the limits as last given, whether it is done."""
    job = book.job or books.Job(began="")
    used = job.used()
    return {
        "hours": used.seconds / 3600, "usd": used.money(job.price), "usd_per_hour": job.price,
        "max_hours": job.hours, "budget_usd": job.money, "done": job.done is not None,
    }  # fmt: skip


def _job_lines(job: books.Job) -> list[str]:
    price = job.price
    state = f"done {job.done}" if job.done else "not done yet"
    lines = [f"Job begun {job.began}, {state}", f"  {'':<28}{'sessions':>8}{'time':>10}{'USD':>9}"]
    rows: dict[str, list[books.Session]] = {}
    for session in job.sessions:
        rows.setdefault(" ".join([session.stage, *session.families]), []).append(session)
    for label, sessions in rows.items():
        part = books.Job(began="", sessions=tuple(sessions)).used()
        number = "" if label == books.BETWEEN else str(len(sessions))
        lines.append(f"  {label:<28}{number:>8}{duration(part.seconds):>10}{_money(part.money(price)):>9}")
    used = job.used()
    lines.append(f"  {'all':<28}{len(job.sessions):>8}{duration(used.seconds):>10}{_money(used.money(price)):>9}")
    lines.append(f"  Price: {price:g} USD/h." if price else "  Price: not known (--price-per-hour).")
    limit = Limit(job.hours, job.money, price)
    if limit.given:
        total = limit.seconds(used)
        lines.append(f"  Limit: {duration(total)}; left: {duration(max(0.0, total - used.seconds))}.")
    lines.append(f"  {NOT_COUNTED}")
    return lines


def _money(money: float | None) -> str:
    return "-" if money is None else f"{money:.2f}"
