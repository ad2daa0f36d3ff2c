"""The toy domains are registered in every test here; fixtures for tests that open the page in a browser."""

from tests.report.browser import browser, clean_page
from tests.report.job import toy_domains

__all__ = ["browser", "clean_page", "toy_domains"]
