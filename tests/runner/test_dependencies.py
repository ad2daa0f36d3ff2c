"""pyproject.toml, the locks in requirements/ and docs/licences.md agree."""

from __future__ import annotations

import re
import tomllib

import pytest

from .conftest import PROJECT

ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS = ABOUT["optional-dependencies"]
LOCKS = PROJECT / "requirements"
PIN = re.compile(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)( ; .+)?")


def pins(name: str) -> dict[str, str]:
    """A lock's own lines: distribution -> version."""
    lines = [x for x in (LOCKS / f"{name}.lock").read_text().splitlines() if not x.startswith("#")]
    matches = [PIN.fullmatch(x) for x in lines if x != "-r core.lock"]
    assert all(matches), f"{name}.lock: not a pin (an index, a build, an option?)"
    return {match[1]: match[2] for match in matches}


def required(lines: list[str]) -> dict[str, str]:
    """Distribution -> the version that is demanded of it, an empty string for any."""
    return {name: version for name, _, version in (x.partition("==") for x in lines)}


def test_every_extra_has_its_lock_and_no_other_lock_is_left():
    assert {x.stem for x in LOCKS.iterdir()} == {"core", *EXTRAS}
    for extra in EXTRAS:
        assert "-r core.lock" in (LOCKS / f"{extra}.lock").read_text().splitlines()


@pytest.mark.parametrize("extra", ["core", *EXTRAS])
def test_a_lock_pins_what_is_required(extra):
    locked = pins("core") | pins(extra)
    for name, version in required(EXTRAS.get(extra, ABOUT["dependencies"])).items():
        assert name in locked and version in ("", locked[name]), name


def test_any_extras_fit_together():
    versions: dict[str, set[str]] = {}
    for extra in ("core", *EXTRAS):
        for name, version in pins(extra).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    assert not pins("core").keys() & set().union(*(pins(x) for x in EXTRAS)), "an extra repeats a package of the core"


def test_torch_itself_decides_about_cuda():
    assert not [x for extra in ("core", *EXTRAS) for x in pins(extra) if x.startswith(("nvidia", "cuda", "triton"))]


def test_a_borrowed_torch_finds_the_setuptools_that_it_requires():
    assert int(pins("core")["setuptools"].split(".")[0]) < 82, "torch 2.11 requires setuptools<82"


def test_every_direct_dependency_is_in_the_table_of_licences():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (PROJECT / "docs/licences.md").read_text().splitlines()
        if line.startswith("| ")
    ][1:]
    assert all(licence for _, _, licence, _ in rows)
    extras = {"core": ABOUT["dependencies"], **EXTRAS}
    expected = {(extra, name) for extra, lines in extras.items() for name in required(lines)}
    assert {(extra, name) for extra, name, _, _ in rows} == expected
