"""The clouds of `play music` by WebGPU, on the browser's adapter in software: what they are, and when WASM is used.

Which of the two is faster is never asserted for real models.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.hosts.pages import needs_runtime, opened
from tests.hosts.test_browser_music import assert_clouds_are_golden
from tests.report.browser import Browser, needs_browser
from training.domains.music.play import write_page
from training.export.receipt import merge_family, read_receipt
from training.play.runtime import pinned

pytestmark = [needs_browser, needs_runtime]
FLAGS = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
ADAPTER = "navigator.gpu ? navigator.gpu.requestAdapter().then(adapter => adapter !== null) : false"
DEVICE = "document.getElementById('device').textContent"


@pytest.fixture(scope="module")
def site(exports, tmp_path_factory) -> Path:
    """The page with the clouds alone, which loads quickly."""
    folder = tmp_path_factory.mktemp("clouds")
    shutil.copytree(exports, folder, ignore=shutil.ignore_patterns("play", "samples"), dirs_exist_ok=True)
    families = read_receipt(folder)["families"]
    (folder / "receipt.json").unlink()
    merge_family(folder, "spectocloud", families["spectocloud"])
    return write_page(folder, tmp_path_factory.mktemp("site") / "play")


def needs_adapter(page: Browser) -> None:
    if not page.run(ADAPTER):
        pytest.skip("this Chromium has no adapter for WebGPU in software: the clouds by WebGPU are NOT TESTED")


@pytest.fixture(scope="module")
def page(site, tmp_path_factory):
    """The page that must take WebGPU."""
    with opened(site, tmp_path_factory.mktemp("profile"), "?device=webgpu", FLAGS) as browser:
        needs_adapter(browser)
        yield browser


def test_clouds_by_webgpu_equal_the_golden_ones(page, exports):
    assert page.run(DEVICE) == "Clouds: WebGPU (as ?device=webgpu says)."
    assert_clouds_are_golden(page, exports)


def compared(page: Browser, values: list[float], milliseconds: list[float], wanted: str | None = None) -> dict:
    """What is chosen for two graphs with these values as results, by a clock that each run moves."""
    return page.run(f"""(async () => {{
      const {{ compared }} = await import('./device.js');
      let time = 0;
      const graphs = {json.dumps(list(zip(values, milliseconds, strict=True)))}.map(([value, took]) => ({{
        run: async () => {{ time += took; return {{ x: {{ data: [0, value] }} }}; }} }}));
      return await compared(...graphs, {{}}, {json.dumps(wanted)}, () => time);
    }})()""")


@pytest.fixture(scope="module")
def plain(site, tmp_path_factory):
    """The page in a browser without an adapter, and without the files that only WebGPU needs."""
    folder = tmp_path_factory.mktemp("plain") / "play"
    shutil.copytree(site, folder)
    for file in pinned()["webgpu"].values():
        (folder / "runtime" / file["name"]).unlink()
    with opened(folder, tmp_path_factory.mktemp("profile")) as browser:
        if browser.run(ADAPTER):
            pytest.skip("this Chromium has an adapter for WebGPU: a page without one is NOT TESTED")
        yield browser


def test_without_an_adapter_the_page_says_so_loads_no_more_and_works(plain, exports):
    assert re.fullmatch(r"Clouds: WASM \(.*(no WebGPU|no adapter).*\)\.", plain.run(DEVICE))
    assert plain.run("document.getElementById('problem').textContent") == ""
    assert_clouds_are_golden(plain, exports)


def test_the_faster_one_is_kept_if_both_give_the_same(plain):
    assert compared(plain, [1, 1.0005], [14, 6]) == {"use": "webgpu", "text": "WebGPU 6.0 ms, WASM 14 ms"}
    assert compared(plain, [1, 1.0005], [14, 60]) == {"use": "wasm", "text": "WASM 14 ms, WebGPU 60 ms"}
    assert compared(plain, [1, 1.0005], [14, 60], "webgpu")["use"] == "webgpu"
    for wanted in (None, "webgpu"):
        found = compared(plain, [1, 1.002], [14, 6], wanted)
        assert found == {"use": "wasm", "text": "WASM (the result of WebGPU differs by 0.0020)"}
    nothing = plain.run("import('./device.js').then(({ compared }) => compared(...[1, NaN].map(value => "
                        "({ run: async () => ({ x: { data: [value] } }) })), {}))")  # fmt: skip
    assert nothing["use"] == "wasm" and "NaN" in nothing["text"]


@pytest.mark.parametrize(("webgpu", "lost", "reason"), [
    ("async () => { throw new Error('out of memory'); }", "new Promise(() => {})", "out of memory"),
    ("() => new Promise(() => {})", "Promise.resolve({ message: 'taken' })", "its device was lost: taken"),
])  # fmt: skip
def test_when_webgpu_fails_later_wasm_is_used_and_it_is_reported_once(plain, webgpu, lost, reason):
    """A run that fails, and one that never ends since the device was lost."""
    made = plain.run(f"""(async () => {{
      const {{ GraphWithSpare }} = await import('./device.js');
      const reasons = [], wasm = {{ run: async inputs => inputs + 1 }};
      const graph = new GraphWithSpare({{ run: {webgpu} }}, wasm, {lost}, why => reasons.push(why));
      return [await graph.run(1), await graph.run(2), reasons];
    }})()""")
    assert made == [2, 3, [reason]]


def test_without_a_query_both_are_timed_and_the_page_says_by_how_much(site, exports, tmp_path):
    """Its runtime is loaded as one from another host: checked by its hash, and imported from memory."""
    folder = tmp_path / "play"
    shutil.copytree(site, folder)
    about = json.loads((folder / "play.json").read_text())
    about["runtime"]["local"] = False
    (folder / "play.json").write_text(json.dumps(about))
    with opened(folder, tmp_path / "profile", flags=FLAGS) as page:
        needs_adapter(page)
        times = r"(WASM [\d.]+ ms, WebGPU [\d.]+ ms|WebGPU [\d.]+ ms, WASM [\d.]+ ms)"
        assert re.fullmatch(rf"Clouds: {times}\.", page.run(DEVICE))
        assert_clouds_are_golden(page, exports)


@pytest.mark.parametrize(("query", "files", "text"), [
    ("?device=wasm", True, "Clouds: WASM (as ?device=wasm says)."),
    ("?device=webgpu", False, "Clouds: WASM (WebGPU failed: ./runtime/ort-wasm-simd-threaded.asyncify.wasm is missing"),
])  # fmt: skip
def test_wasm_is_used_by_wish_and_where_webgpu_cannot_be_loaded(site, tmp_path, query, files, text):
    folder = tmp_path / "play"
    shutil.copytree(site, folder)
    if not files:
        (folder / "runtime" / pinned()["webgpu"]["wasm"]["name"]).unlink()
    logged = () if files else ("status of 404", "Failed to find a valid digest", pinned()["webgpu"]["wasm"]["name"])
    with opened(folder, tmp_path / "profile", query, FLAGS, logged) as page:
        needs_adapter(page)
        assert page.run(DEVICE).startswith(text)
        assert page.run("document.getElementById('listen').disabled") is False
