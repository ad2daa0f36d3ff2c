"""The page in a browser, loaded from the disk: no requests and no errors; scripts and styles of domains have effect."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.report import job
from tests.report.browser import CONTRAST, needs_browser
from tests.report.test_report_groups import fan_out
from training.report.page import write_report

pytestmark = [needs_browser, pytest.mark.usefixtures("clean_page")]


@pytest.fixture
def page(tmp_path):
    """A job with a family that has one model, one with one model per item, and openings of the test split."""
    workspace = job.make(tmp_path / "job")
    fan_out(workspace)
    opening = {"time": "2026-01-01", "run": "alpha", "checkpoint_sha256": "c" * 64, "data_digest": "d" * 64}
    (workspace.root / "runs" / "test_openings.jsonl").write_text(json.dumps(opening | {"purpose": job.EVIL}) + "\n")
    return write_report(workspace)


def test_a_domains_script_runs_once_and_its_style_has_effect(browser, page):
    browser.open(page)
    lines = "[...document.querySelectorAll('.letters')]"
    assert browser.run(f"{lines}.map(l => l.dataset.ran)") == ["1", "1"]
    assert browser.run(f"{lines}.map(l => getComputedStyle(l).letterSpacing)") == ["3px", "3px"]
    assert browser.run("getComputedStyle(document.querySelector('.card')).borderLeftWidth") == "6px"  # the page's own


def test_scripts_in_names_from_files_are_shown_and_not_run(browser, page):
    browser.open(page)
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert "<script>alert(1)</script>" in browser.run("document.querySelector('.letters').innerText")
    assert browser.run("document.querySelectorAll('img').length") == 0


def test_a_script_or_style_that_is_not_the_pages_own_is_blocked(browser, page, tmp_path):
    foreign = tmp_path / "foreign.html"
    added = "<script>document.title = 'run'</script><style>body { color: rgb(1, 2, 3) }</style></body>"
    foreign.write_text(page.read_text().replace("</body>", added))
    browser.open(foreign)
    assert browser.run("document.title") != "run"
    assert browser.run("getComputedStyle(document.body).color") != "rgb(1, 2, 3)"
    assert len(browser.errors) == 2 and all("Content Security Policy" in error for error in browser.errors)
    browser.errors.clear()
    browser.requests.clear()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen_and_its_text_has_enough_contrast(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    for details in ("false", "true"):
        browser.run(f"document.querySelectorAll('details').forEach(d => d.open = {details})")
        assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(CONTRAST) == []
    back = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) < 200) == dark


def test_a_screen_reader_finds_landmarks_names_and_ordered_headings(browser, page):
    browser.open(page)
    nodes = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in browser.tree()]
    assert {"banner", "main", "navigation", "contentinfo"} <= {role for role, _ in nodes}
    named = [(role, name) for role, name in nodes if role in ("image", "link", "region", "article")]
    assert named and all(name for role, name in named if role != "article"), named
    assert ("region", "Items of Beta") in nodes
    headings = browser.run("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert headings[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(headings))


def test_every_link_of_the_navigation_has_a_target(browser, page):
    browser.open(page)
    missing = "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.getAttribute('href')))"
    assert browser.run(f"{missing}.length") == 0 and browser.run("document.querySelectorAll('nav a').length") >= 8
