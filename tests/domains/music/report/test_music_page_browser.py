"""The report in a browser, opened from disk: no requests, no console errors, previews play and clouds rotate."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.domains.music.report import job
from tests.report.browser import CONTRAST, needs_browser
from training.report.page import write_report

pytestmark = [needs_browser, pytest.mark.usefixtures("clean_page")]
PIXELS = "document.querySelector('canvas[data-side={}]').toDataURL()"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(job.make(tmp_path_factory.mktemp("job")))


def test_names_from_files_run_no_script_and_are_shown(browser, page):
    browser.open(page)
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert "<script>alert(1)</script>" in browser.run("document.querySelector('.choices').innerText")
    assert browser.run("document.querySelectorAll('img').length") == 0


def test_a_preview_plays_and_its_playhead_moves(browser, page):
    browser.open(page)
    browser.run("document.querySelector('audio').play().then(() => 1)")
    deadline = time.monotonic() + 30
    while browser.run("document.querySelector('audio').currentTime") < 0.3 and time.monotonic() < deadline:
        browser.frames(2)
    assert browser.run("document.querySelector('audio').currentTime") >= 0.3
    assert float(browser.run("parseFloat(document.querySelector('.playhead').style.left)")) > 0
    assert browser.run("document.querySelector('audio').duration") == pytest.approx(3.0, abs=0.2)
    browser.run("document.querySelectorAll('audio')[1].play().then(() => 1)")
    assert browser.run("document.querySelector('audio').paused")  # one plays at a time


def test_the_midi_file_can_be_saved_as_it_is(browser, page):
    browser.open(page)
    link = "document.querySelector('a[download]')"
    assert browser.run(f"{link}.download") == "happy.mid"
    head = browser.run(f"atob({link}.href.split(',')[1]).slice(0, 4)")
    assert head == "MThd"


@pytest.mark.parametrize("side", ["target", "predicted"])
def test_dragging_rotates_both_clouds(browser, page, side):
    browser.open(page)
    browser.run("document.getElementById('viewer').scrollIntoView()")
    before = browser.run(PIXELS.format(side))
    x, y = browser.run("(b => [b.x + b.width / 2, b.y + 80])(document.querySelector('canvas').getBoundingClientRect())")
    browser.drag(x, y, 120, 30)
    turned = browser.run(PIXELS.format(side))
    assert turned != before
    browser.drag(x, y, 0, 0)
    assert browser.run(PIXELS.format(side)) == turned  # released: it does not move


def test_arrow_keys_rotate_home_resets_and_the_view_is_announced(browser, page):
    browser.open(page)
    browser.run("document.querySelector('canvas').focus()")
    first = browser.run(PIXELS.format("target"))
    seen = {first}
    for key in ("ArrowLeft", "ArrowUp", "+"):
        browser.press(key)
        seen.add(browser.run(PIXELS.format("target")))
    assert len(seen) == 4
    assert "above" in browser.run("document.getElementById('cloud-status').textContent")
    browser.press("Home")
    assert browser.run(PIXELS.format("target")) == first


def test_another_window_shows_other_clouds(browser, page):
    browser.open(page)
    before = browser.run(PIXELS.format("predicted"))
    browser.run("document.querySelectorAll('input[name=cloud]')[1].click()")
    browser.frames()
    assert browser.run(PIXELS.format("predicted")) != before
    assert "sad/rain" in browser.run("document.querySelector('canvas').getAttribute('aria-label')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen_with_enough_contrast(browser, page, width, dark, tmp_path):
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    for details in ("false", "true"):
        browser.run(f"document.querySelectorAll('details').forEach(d => d.open = {details})")
        assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(CONTRAST) == []
    back = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) < 200) == dark
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_a_screen_reader_finds_landmarks_names_and_a_live_region(browser, page):
    browser.open(page)
    nodes = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in browser.tree()]
    roles = [role for role, _ in nodes]
    assert {"banner", "main", "navigation", "contentinfo", "status"} <= set(roles)
    named = [(role, name) for role, name in nodes if role in ("image", "button", "radio", "link", "region", "Audio")]
    assert named and all(name for _, name in named), [n for n in named if not n[1]]
    assert any("Piano roll of happy" in name for _, name in nodes)
    assert any("Target cloud" in name for _, name in nodes)
    headings = browser.run("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert headings[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(headings))


def test_every_control_is_reached_by_tab(browser, page):
    browser.open(page)
    browser.run("document.body.focus()")
    reached = set()
    for _ in range(60):
        browser.press("Tab")
        kind = "e.tagName + (e.dataset.turn || e.dataset.side || e.type || '')"
        reached.add(browser.run(f"(e => {kind})(document.activeElement)"))
    turned = {"CANVAStarget", "CANVASpredicted", "BUTTONleft", "BUTTONhome", "INPUTradio"}
    assert turned | {"AUDIO", "A", "SUMMARY"} <= reached
