"""A test here may look at its page in a browser."""

from tests.report.browser import browser, clean_page

__all__ = ["browser", "clean_page"]
