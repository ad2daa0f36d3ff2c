"""Ridge regression: plain, banded and of reduced rank."""
