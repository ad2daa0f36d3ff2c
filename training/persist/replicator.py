"""Replicates a run's checkpoints to a second place, which may be slow, full, or detached: a network drive, a mounted
bucket.

A background thread copies what was saved on this host's disk. An error or a delay of that place neither stops nor
delays the training, and nothing is reported as copied before it was read back. The copy has the layout of the workspace
and its index is written last, so that commands can be run on it with --out.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from training.engine.checkpoints.index import INDEX
from training.errors import HostError, Interrupted
from training.persist.copying import Pulse, files_under
from training.persist.destination import reason_of, run_on_place
from training.persist.lease import BEAT, Taken
from training.persist.remote import shown
from training.persist.second_place import Target, place_at

PATIENCE = 60.0  # seconds without progress after which the place is reported as hanging
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0  # seconds until the next attempt after a failure; doubled each time
HURRY = 3.0  # seconds that an interrupted run waits for the copy under way


class Replicator:
    """While entered, copies the checkpoints of `family` from the workspace `root` to `persist`, and the files and
    folders `also` (relative names). The newest state is copied; states that were replaced while a copy was under way
    are skipped.

    Entering raises HostError where the place cannot be used: not writable, not answering, or in use by another host.
    """

    def __init__(self, root: Path, persist: Target, family: str, also: Sequence[str], say: Callable[[str], None]):
        self.root, self.persist, self.also, self.say = root, persist, tuple(also), say
        self.pulse = Pulse()
        self._place = place_at(persist)
        self._replica = self._place.replica(root / "checkpoints" / family, family, self.pulse)
        self._lease = self._place.lease(family, f"training {family}", say)
        self._patience = PATIENCE * self._place.patience
        self._lost = ""  # what another host has done, if it has taken the run over
        self._wake, self._closing, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._wanted = self._done = 0  # number of saves; those of them that are copied
        self._busy = False  # whether the thread is working on the place
        self._reason = ""  # why the newest attempt failed
        self._thread = threading.Thread(target=self._work, daemon=True, name="replicate")
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="replicate-watch")

    def saved(self) -> None:
        """Request a copy of what was saved. Returns at once. Raises HostError if another host continues this run: this
        one must end, or there would be two of it."""
        if self._lost:
            raise HostError(
                f"Another host has taken this run over: {self._lost}. It stops here; what was saved here is in "
                f"{self._replica.source}, and nothing of it was written to {self.persist} since. Let the other host "
                "continue, or stop it and run the same command again."
            )
        self._wanted += 1
        self._wake.set()

    def __enter__(self) -> Replicator:
        run_on_place(self._begin, self.pulse, self.persist)
        self._thread.start()
        self._watcher.start()
        if (self._replica.source / INDEX).exists():
            self.saved()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the copy under way: as long as it makes progress, or briefly when the run was interrupted."""
        self._closing.set()
        self._wake.set()
        hurry = kind is not None and issubclass(kind, Interrupted)
        until = time.monotonic() + (HURRY if hurry else math.inf)
        try:
            while self._thread.is_alive() and self.pulse.silent < self._patience and time.monotonic() < until:
                self._thread.join(0.1)
        finally:
            self._ended.set()
            if self._done < self._wanted:
                why = self._reason or ("stopped before it was" if hurry else f"no answer for {self._patience:.0f} s")
                self.say(
                    f"NOT copied to {self.persist}: {shown(self._replica.source)} ({why}). It is safe in "
                    f"{self._replica.source}; to copy it: python -m training persist --out {self.root} "
                    f"--persist {self.persist}"
                )

    def _begin(self) -> None:
        self._place.enter(self.root, self.say)
        self._lease.take(self.pulse)
        self._replica.sweep()

    def _work(self) -> None:
        pause, due = 0.0, 0.0
        while True:
            wait = due - time.monotonic()
            (self._closing if wait > 0 else self._wake).wait(min(BEAT, wait) if wait > 0 else BEAT)
            self._wake.clear()
            closing, wanted = self._closing.is_set(), self._wanted
            self.pulse.beat()
            self._busy = True
            try:
                if self._lease.renew():
                    self._replica.require_verification()
                    self._done = min(self._done, max(0, wanted - 1))
                if wanted > self._done and (closing or time.monotonic() >= due):
                    self._copy()
                    self._report_done(wanted)
                    pause = due = 0.0
            except Exception as error:  # noqa: BLE001  any error is reported, and the training continues
                if isinstance(error, Taken) and self._place.exclusive:
                    self._lost = reason_of(error)
                    self._report_failed(error, math.inf, closing)
                    self._busy = False
                    return
                pause = min(max(FIRST_PAUSE, 2 * pause), LONGEST_PAUSE)
                due = time.monotonic() + pause
                self._replica.forget()
                if wanted > self._done:
                    self._report_failed(error, pause, closing)
            self._busy = False
            if closing:
                self._lease.free()
                return

    def _copy(self) -> None:
        also = (path.relative_to(self.root) for part in self.also for path in files_under(self.root / part))
        problems = self._place.replicate(self._replica, self.root, also, self.pulse)
        if problems:
            raise HostError("; ".join(problems))

    def _report_done(self, wanted: int) -> None:
        if self._reason:
            self.say(f"Copied to {self.persist} again, it has caught up: {self._replica.shown()}.")
        elif not self._done:
            self.say(f"Copied to {self.persist}, and {self._place.read_back}: {self._replica.shown()}.")
        self._done, self._reason = wanted, ""

    def _report_failed(self, error: Exception, pause: float, closing: bool) -> None:
        reason = reason_of(error)
        if reason != self._reason and not closing:
            self.say(
                f"NOT copied to {self.persist}: {shown(self._replica.source)} ({reason}). It is safe in "
                f"{self._replica.source}; "
                + (f"trying again in {pause:.0f} s, then less often." if pause < math.inf else "the training stops.")
            )
        self._reason = reason

    def _watch(self) -> None:
        hangs = False
        while not self._ended.wait(min(1.0, PATIENCE / 4)):
            if self._busy and not hangs and self.pulse.silent > self._patience:
                hangs = True
                self.say(
                    f"NOT copied to {self.persist}: it has not answered for {self._patience:.0f} s. Training "
                    f"continues; what is saved is in {self._replica.source}."
                )
            elif hangs and self.pulse.silent < self._patience:
                hangs = False
                self.say(f"{self.persist} answers again.")
