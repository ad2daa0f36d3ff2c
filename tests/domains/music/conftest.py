"""A corpus of nine songs, decoded once."""

import shutil
from pathlib import Path

import pytest

from tests.domains.music.corpora import make_corpus, run


@pytest.fixture(scope="session")
def encoded(tmp_path_factory) -> Path:
    """A corpus of nine songs and a cache with their decoded arrays; tests work on copies."""
    root = make_corpus(tmp_path_factory.mktemp("corpus"))
    run(root)
    return root


@pytest.fixture
def root(encoded, tmp_path) -> Path:
    shutil.copytree(encoded / "audio", tmp_path / "audio")
    shutil.copytree(encoded / "midi", tmp_path / "midi")
    shutil.copytree(encoded / "out" / "cache", tmp_path / "out" / "cache")
    return tmp_path
