"""Every test here knows the toy domains."""

from tests.report.job import toy_domains

__all__ = ["toy_domains"]
