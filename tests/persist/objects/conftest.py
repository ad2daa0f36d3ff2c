"""Fixtures: a place in a real S3 server, and the same through a proxy that has faults."""

import itertools
import os

import pytest

from tests.object_server import BUCKET, FaultyProxy, ObjectServer, environment
from training.data.objects import store as objects
from training.data.objects.address import Address

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    made = ObjectServer(tmp_path_factory.mktemp("objects") / "server")
    yield made
    made.close()


@pytest.fixture
def there(server, monkeypatch):
    """An empty place for one test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(server.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "RETRIES", 1)
    return Address.parse(f"s3://{BUCKET}/place {next(_numbers)}")


@pytest.fixture
def proxy(server, there, monkeypatch):
    """The way to the server, with faults."""
    made = FaultyProxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
    yield made
    made.close()
