"""A folder served to a browser, with the checks that every live page must pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.report.browser import PROGRAM, Browser
from training.play.runtime import INSTALLED
from training.play.server import server_of

UNTESTED = "NO RUNTIME FOR BROWSERS HERE: the live pages are NOT TESTED (npm ci in hosts/browser)"
needs_runtime = pytest.mark.skipif(not INSTALLED.is_dir(), reason=UNTESTED)


LOADING = 300.0  # seconds, at most: WebGPU in software takes as long as the other processes of the host let it


@contextmanager
def opened(
    folder: Path, profile: Path, query: str = "", flags: Sequence[str] = (), expected: Sequence[str] = ()
) -> Iterator[Browser]:
    """The page in `folder`, with its models loaded; at the end: it logged no error but those with a text of `expected`,
    and asked no other host. `flags`: of the browser."""
    with server_of(folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser = Browser(PROGRAM, profile, flags)
        try:
            browser.open(address + query, width=1400, height=1000)
            browser.run("athanor.ready", LOADING)
            yield browser
            # of the graphics driver, about screenshots, and of the browser, about adapters of WebGPU: not of the page
            known = ("GL Driver Message", "No available adapters", *expected)
            errors = [error for error in browser.errors if not any(text in error for text in known)]
            assert errors == [], errors
            own = (address, "data:", f"blob:{address}")
            assert all(url.startswith(own) for url in browser.requests), browser.requests
        finally:
            browser.close()
            server.shutdown()


def unnamed_controls(page: Browser) -> list[str]:
    """The roles of controls and pictures without a name for screen readers."""
    roles = {"button", "slider", "spinbutton", "combobox", "radio", "image", "Canvas"}
    nodes = [node for node in page.tree() if node.get("role", {}).get("value") in roles]
    assert len(nodes) > 5
    return [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value")]
