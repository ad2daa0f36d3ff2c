"""`python -m training watch`: the status of the job in a folder, as text in a terminal (also over SSH)."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np

from training.console import has_gone
from training.data.files import printable
from training.engine.tracking.tracker import LOG
from training.errors import Interrupted
from training.host import nvidia_smi
from training.registry import family_of, item_of
from training.report.plots import number, thinned
from training.report.runs import RunLog
from training.report.standing import Job, Standing, stand, title_of
from training.workspace import Workspace

SECONDS = 2.0  # between two updates
SMI_SECONDS = 5.0  # timeout of nvidia-smi
SHOWN = 6  # validation metrics of a family
NAMED = 12  # columns of a name
QUERY = "index,name,utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu"
TAIL = 8192  # bytes at the end of a log in which its last line is searched
_OPEN, _CLOSE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen without a cursor, and back


def watch(workspace: Workspace, *, once: bool = False, out: TextIO | None = None, seconds: float = SECONDS) -> None:
    """Show the job's status every `seconds` until Ctrl-C; once with `once`, or if `out` is not a terminal (a pipe)."""
    out = out or sys.stdout
    fancy = (out.encoding or "").lower().replace("-", "") == "utf8"
    if once or not out.isatty():
        for line in screen(workspace, shutil.get_terminal_size().columns, fancy):
            print(line, file=out)
        return
    out.write(_OPEN)
    try:
        while True:  # until Ctrl-C
            size = shutil.get_terminal_size()
            lines = screen(workspace, size.columns, fancy)[: size.lines - 1]
            # Each line is written over the old one: clearing the screen first would flicker on a slow connection.
            out.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
            out.flush()
            if has_gone(1):  # the terminal was closed, and SIGHUP is ignored (`nohup`)
                return
            time.sleep(seconds)
    except Interrupted:  # the usual way to end it, and no failure: the exit code is 0
        return
    finally:
        out.write(_CLOSE)
        out.flush()


def screen(workspace: Workspace, width: int = 80, fancy: bool = True) -> list[str]:
    """The lines of the status, none longer than `width` columns. `fancy`: characters beyond ASCII are allowed."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"Athanor  {printable(workspace.root.absolute())}  {now}"]
    try:
        job = stand(workspace)
    except (OSError, ValueError) as error:
        return [_cut(line, width, fancy) for line in (*lines, str(error))]
    if job.book is None and not job.families:
        lines.append("Nothing has begun here yet.")
    else:
        lines += _budget(job)
    lines += gpus()
    for family in job.families:
        if family.running or not item_of(family.name):
            lines += ["", *_family(family, width, fancy)]
    lines += _items(job)
    return [_cut(line, width, fancy) for line in lines]


def _budget(job: Job) -> list[str]:
    spent = dict(job.spent)
    if not spent:
        return ["no ledger (runs/budget.json): what was used is not known"]
    text = f"{spent['time of the job']} used"
    if "limit" in spent:
        text += f" of {spent['limit']}, {spent['left of it']} left"
    if "price" in spent:
        text += f"; {spent['cost of the job']} at {spent['price']}"
    return [f"The job is {job.text}" if job.text else "", text]


def _items(job: Job) -> list[str]:
    """One line for each family that fans out: how many of its items are in each state, without those that run. A
    screen has no room for a line per item."""
    counts: dict[str, Counter[str]] = {}
    for one in job.families:
        if item_of(one.name) and not one.running:
            counts.setdefault(family_of(one.name), Counter())[one.text.split(" at ")[0].partition(":")[0]] += 1
    return [
        line
        for family, states in counts.items()
        for line in ("", f"{title_of(family):<16}" + ", ".join(f"{n} {state}" for state, n in states.most_common()))
    ]


def _family(family: Standing, width: int, fancy: bool) -> list[str]:
    lines = [f"{family.title:<16}{family.text}"]
    run = family.run
    if run is None:
        return lines
    if family.share is not None:
        wide = max(10, min(50, width - 26))
        full = round(wide * family.share)
        bar = ("█" * full + "░" * (wide - full)) if fancy else ("#" * full + "." * (wide - full))
        lines.append(f"  {bar} {family.share:4.0%}")
    losses = [float(r["loss"]) for r in run.train if _is_number(r.get("loss"))]
    if losses:
        room = max(10, min(40, width - 40))
        lines.append(f"  {'loss':<{NAMED}}{spark(losses, room, fancy)}  {number(losses[-1])}")
    lines += _validation(run, width, fancy)
    if run.problem:
        lines.append(f"  {'problem':<{NAMED}}{run.problem}")
    pace = [(run.typical("samples_per_second"), "{:,.1f} samples/s"), (run.typical("tflops"), "{:.3g} TFLOP/s"),
            (run.typical("mfu"), "{:.0%} of peak"), (run.typical("input_wait"), "{:.0%} waiting for data")]  # fmt: skip
    text = ", ".join(form.format(value) for value, form in pace if value is not None)
    if text:
        lines.append(f"  {'pace':<{NAMED}}{text}")
    last = _last_line(run.folder / LOG)
    if last:
        age = max(0.0, time.time() - run.changed)
        lines.append(f"  {'log':<{NAMED}}{f'{age:.0f} s ago: ' if family.running else ''}{last}")
    return lines


def _validation(run: RunLog, width: int, fancy: bool) -> list[str]:
    if not run.validation:
        return []
    best, newest = run.best, run.validation[-1]
    values = [float(r["val_loss"]) for r in run.validation if _is_number(r.get("val_loss"))]
    lines = []
    if values:
        room = max(10, min(40, width - 40))
        text = f"  best {number(float(best[run.monitor]))} at step {best['step']:,}" if best else ""
        lines.append(f"  {'held-out':<{NAMED}}{spark(values, room, fancy)}  {number(values[-1])}{text}")
    others = [k for k in newest if k not in ("kind", "step", "epoch", "val_loss", "seconds") and _is_number(newest[k])]
    if others:
        text = "  ".join(f"{printable(k)} {number(float(newest[k]))}" for k in others[:SHOWN])
        lines.append(f"  {'':<{NAMED}}{text}")
    return lines


def spark(values: Sequence[float], room: int, fancy: bool) -> str:
    """A curve of one line of text, `room` characters wide, scaled from the lowest value to the highest."""
    marks = "▁▂▃▄▅▆▇█" if fancy else "_.-=*#"
    good = np.array([v for v in values if math.isfinite(v)])
    if not len(good):
        return ""
    _, y = thinned(np.arange(len(good), dtype=np.float64), good, max(2, room))
    spread = y.max() - y.min()
    level = np.zeros(len(y)) if spread == 0 else (y - y.min()) / spread
    return "".join(marks[round(float(v) * (len(marks) - 1))] for v in level)


def gpus() -> list[str]:
    """One line per GPU from nvidia-smi, or its error; no line without nvidia-smi."""
    lines, why_not = nvidia_smi(QUERY, SMI_SECONDS)
    return [printable(why_not)] if why_not else [gpu_line(line) for line in lines]


def gpu_line(line: str) -> str:
    """`0, NVIDIA H200, 87, 42189, 143771, 612.34, 64` as readable text; a value that is [N/A] is left out."""
    index, name, *rest = [printable(part.strip()) for part in line.split(",")]
    use, used, total, power, heat = [_float(part) for part in (rest + [""] * 5)[:5]]
    parts = [f"GPU {index} {name}"]
    if use is not None:
        parts.append(f"{use:.0f} % busy")
    if used is not None and total is not None:
        parts.append(f"{used / 1024:.1f} of {total / 1024:.1f} GiB")
    if power is not None:
        parts.append(f"{power:.0f} W")
    if heat is not None:
        parts.append(f"{heat:.0f} °C")
    return "  ".join(parts)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _last_line(path: Path) -> str:
    """The last line of a log. Control characters are escaped, as a log contains names of the user's files."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return printable(lines[-1]) if lines else ""


def _cut(line: str, width: int, fancy: bool) -> str:
    line = line if fancy else line.encode("ascii", "replace").decode()
    return line if len(line) <= width else line[: max(0, width - 1)] + ("…" if fancy else "~")
