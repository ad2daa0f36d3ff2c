"""Every test here knows the toy domains, and may look at its page in a browser."""

from tests.report.browser import browser, clean_page
from tests.report.job import toy_domains

__all__ = ["browser", "clean_page", "toy_domains"]
