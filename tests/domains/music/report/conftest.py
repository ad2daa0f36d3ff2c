"""Fixtures for tests that open the report in a browser."""

from tests.report.browser import browser, clean_page

__all__ = ["browser", "clean_page"]
