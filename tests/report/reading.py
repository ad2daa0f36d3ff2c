"""Parses the page for tests: its elements and its visible text."""

from __future__ import annotations

from html.parser import HTMLParser

from training.report.page import write_report
from training.workspace import Workspace

EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "path"}


class Reader(HTMLParser):
    """Collects the elements with their attributes, the open tags, and the visible text."""

    def __init__(self):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in EMPTY:
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> ends {self.open[-3:]}"
        self.open.pop()
        self.text += " "

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def read(workspace: Workspace) -> Reader:
    """Write the page of a job and parse it; asserts that every element is closed."""
    reader = Reader()
    reader.feed(write_report(workspace).read_text(encoding="utf-8"))
    assert reader.open == []
    reader.text = " ".join(reader.text.split())
    return reader


def assert_markup_is_text(workspace: Workspace, scripts: int, least: int) -> str:
    """Assert that markup in names from files is shown as text, `least` times or more, and that the page has only its
    own `scripts`. Returns the page's source."""
    source = write_report(workspace).read_text()
    reader = read(workspace)
    assert "<script>alert" not in source and "<img src=x" not in source
    assert not [a for t, a in reader.elements if t == "img" or "onerror" in a]
    assert sum(t == "script" for t, _ in reader.elements) == scripts
    assert reader.text.count("<script>alert(1)</script>") >= least
    return source
