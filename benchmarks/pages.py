"""Tables in the pages of docs/, between two markers: what was measured is put there by the run, not by hand."""

from __future__ import annotations

from pathlib import Path


def fill(page: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- name -->` and `<!-- /name -->`. Raises ValueError where the page has no such place."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page} has no {begin} ... {end}.")
    page.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")
