"""A headless Chromium, controlled over its debugging pipe (DevTools protocol) with only the standard library."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0  # seconds for one answer: the host may be busy

UNTESTED = "NO BROWSER HERE: how the report looks, plays and turns is NOT TESTED (apt-get install chromium)"
#: Texts whose contrast is below 4.5 to 1 (WCAG 2.1, 1.4.3), as a JavaScript expression.
CONTRAST = """
(() => {
  const parts = c => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (a, b) => { const k = a.length > 3 ? a[3] : 1; return [0, 1, 2].map(i => a[i] * k + b[i] * (1 - k)); };
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => e ? over(parts(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255];
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(e.tagName)) continue;
    const back = behind(e), ink = over(parts(getComputedStyle(e).color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.trim().slice(0, 40)}`);
  }
  return bad;
})()
"""


def find() -> str | None:
    """The browser of this host, or the one that the environment variable CHROMIUM names."""
    named = os.environ.get("CHROMIUM")
    return named or next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)


PROGRAM = find()
if PROGRAM is None:
    warnings.warn(UNTESTED, stacklevel=1)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason=UNTESTED)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser per test module."""
    browser = Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def clean_page(browser, page):
    """Fails a test during which the module's `page` logs an error or requests another address."""
    browser.errors.clear()
    browser.requests.clear()
    yield
    assert browser.errors == []
    assert {url for url in browser.requests if not url.startswith("data:")} <= {page.as_uri()}


class Browser:
    """One tab. `errors`: console messages and exceptions of the page; `requests`: addresses that were requested."""

    def __init__(self, program: str, profile: Path, flags: Sequence[str] = ()):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def hand_over() -> None:  # Chromium reads descriptor 3 and writes 4
            reading, writing = os.dup(to_browser), os.dup(from_browser)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self._process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={profile}",
             "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio", "--no-first-run", "--disable-component-update",
             "--disable-background-networking", "--autoplay-policy=no-user-gesture-required",
             "--enable-unsafe-swiftshader", *flags, "about:blank"],
            close_fds=False, preexec_fn=hand_over, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._numbers, self._heard = itertools.count(1), b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        page = next(t for t in self._ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session: str | None = None
        self._session = self._ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, path: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file or an address, and wait until it is painted."""
        self.show(width=width, height=height, dark=dark)
        self._loaded = False
        self._ask("Page.navigate", url=path if isinstance(path, str) else path.absolute().as_uri())
        until = time.monotonic() + PATIENCE
        while not self._loaded and time.monotonic() < until:
            self._listen(1.0)
        assert self._loaded, f"{path} was not loaded within {PATIENCE:.0f} s"
        self.frames()

    def show(self, *, width: int, height: int, dark: bool) -> None:
        """Set the window's size, and whether the user prefers a dark colour scheme."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def frames(self, count: int = 3) -> None:
        """Wait until the page was painted `count` times."""
        paint = "const f = () => n-- ? requestAnimationFrame(f) : done(1); f()"
        self.run(f"new Promise(done => {{ let n = {count}; {paint} }})")

    def run(self, script: str, patience: float = PATIENCE) -> Any:
        """The value of a JavaScript expression; of a promise, its result, within `patience` seconds."""
        evaluated = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self._ask("Runtime.evaluate", patience, **evaluated)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def drag(self, x: float, y: float, dx: float, dy: float) -> None:
        for kind, at in (("mousePressed", 0.0), ("mouseMoved", 0.5), ("mouseMoved", 1.0), ("mouseReleased", 1.0)):
            self._ask(
                "Input.dispatchMouseEvent", type=kind, x=x + dx * at, y=y + dy * at, button="left",
                buttons=0 if kind == "mouseReleased" else 1, clickCount=1,
            )  # fmt: skip
        self.frames()

    def press(self, key: str) -> None:
        code = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "Tab": 9}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        self.frames()

    def picture(self, path: Path, *, full: bool = True) -> None:
        """A PNG of the page."""
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self._ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=full, **({"clip": clip} if full else {})
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    def tree(self) -> list[dict[str, Any]]:
        """The nodes of the accessibility tree, which screen readers use."""
        return [n for n in self._ask("Accessibility.getFullAXTree")["nodes"] if not n.get("ignored")]

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    # -- the pipe ------------------------------------------------------------------------------------------------------

    def _ask(self, method: str, patience: float = PATIENCE, /, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + patience
        while time.monotonic() < until:
            for received in self._listen(until - time.monotonic()):
                if received.get("id") == number:
                    assert "error" not in received, f"{method}: {received['error']}"
                    return received["result"]
        raise AssertionError(f"Chromium did not answer {method} within {patience:.0f} s")

    def _listen(self, seconds: float) -> list[dict[str, Any]]:
        """The messages received within `seconds`; events among them are recorded."""
        if not select.select([self._read], [], [], max(0.0, seconds))[0]:
            return []
        data = os.read(self._read, 1 << 20)
        assert data, "Chromium has ended"
        *messages, self._heard = (self._heard + data).split(b"\0")
        received = [json.loads(message) for message in messages]
        for one in received:
            self._note(one.get("method", ""), one.get("params", {}))
        return received

    def _note(self, method: str, about: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.errors.append(json.dumps(about["args"]))
        elif method == "Log.entryAdded":
            self.errors.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
