"""Checks of the bars for `doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from training.domain import Finding, Job
from training.domains.market.bars.files import files_of, others_in
from training.domains.market.labels.costs import costs_of, read_costs, unused_costs
from training.errors import AthanorError
from training.units import counted

STORED = 6.0  # bytes in stores and decisions per byte of a Parquet file of bars
CSV_SHARE = 2.0  # the same per byte of CSV


def checks(job: Job) -> Iterator[Finding]:
    """The folder of the bars, and the costs of its symbols."""
    folder = job.path("bars")
    if folder is None or not folder.is_dir():
        return
    try:
        paths = files_of(folder, job.options.get("symbols"))
    except AthanorError as error:
        yield Finding("fails", "bars", str(error), exit_code=error.exit_code)
        return
    yield Finding("ok", "bars", f"{counted(len(paths), 'symbol')} in {folder}: {', '.join(paths)}")
    others = others_in(folder)
    if others:
        yield Finding("note", "bars", f"not used, as their names are not SYMBOL_1m: {', '.join(others)}")
    try:
        own = read_costs(job.path("costs"))
        for symbol in paths:
            costs_of(symbol, own)
        unused = unused_costs(own, files_of(folder))
        if unused:
            yield Finding("note", "costs", unused)
    except AthanorError as error:
        yield Finding("fails", "costs", str(error), exit_code=error.exit_code)


def store_bytes(job: Job) -> int:
    """Expected size of the stores and decisions of all symbols."""
    folder = job.path("bars")
    if folder is None or not folder.is_dir():
        return 0
    try:
        paths = files_of(folder, job.options.get("symbols")).values()
    except AthanorError:
        return 0  # `checks` reports it
    share = {".parquet": STORED, ".csv": CSV_SHARE}
    return sum(int(path.stat().st_size * share.get(path.suffix.lower(), STORED)) for path in paths)
