"""`fetch`: data from a real S3 server; complete, continued where it stopped, and never over files of the user."""

import json

import pytest

from tests.object_server import BUCKET, FaultyProxy, ObjectServer, environment
from training.cli import main
from training.data.objects import store as objects
from training.data.objects.address import Address
from training.data.objects.store import ObjectStore
from training.stages import fetch as stage

FILES = {"a.mid": b"one", "deep/er/b c.mid": b"two" * 400_000, "empty": b"", "ü#%.txt": b"three"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = ObjectServer(tmp_path_factory.mktemp("objects") / "server")
    yield made
    made.close()


@pytest.fixture
def place(server, request, monkeypatch):
    """An address with FILES below it."""
    for name, value in environment(server.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "RETRIES", 0)
    monkeypatch.setattr(stage, "PAUSE", 0.0)
    address = Address("s3", BUCKET, request.node.name.replace("[", "-").replace("]", ""))
    for name, content in FILES.items():
        ObjectStore(address).put(name, content)
    return address


def files_in(folder):
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != stage.RECORD}


def test_all_files_are_fetched_and_none_twice(place, tmp_path, capsys, monkeypatch):
    assert main(["fetch", str(place), str(tmp_path / "data")]) == 0
    assert files_in(tmp_path / "data") == FILES
    assert "4 files, 1.2 MB. To fetch: 4 files, 1.2 MB" in capsys.readouterr().out
    monkeypatch.setattr(ObjectStore, "stream", lambda *_: pytest.fail("it was fetched before"))
    assert main(["fetch", str(place), str(tmp_path / "data")]) == 0
    assert "To fetch: 0 files" in capsys.readouterr().out


def test_one_object_may_be_named(place, tmp_path):
    assert main(["fetch", f"{place}/a.mid", str(tmp_path)]) == 0
    assert files_in(tmp_path) == {"a.mid": b"one"}


def test_an_interrupted_download_continues_at_the_byte_where_it_stopped(place, tmp_path, monkeypatch, capsys):
    real, begun = ObjectStore.stream, []

    def cut(self, key, begin=0, version=None):
        begun.append((key, begin))
        for piece in real(self, key, begin, version):
            yield piece[:200_000]
            if begin < 600_000:
                raise objects.StoreError(5, "the store does not answer.")

    monkeypatch.setattr(ObjectStore, "stream", cut)
    monkeypatch.setattr(stage, "ATTEMPTS", 1)
    for _ in range(3):
        assert main(["fetch", str(place), str(tmp_path)]) == 6
        assert "the same command continues" in capsys.readouterr().err
    monkeypatch.setattr(ObjectStore, "stream", lambda *arguments: (begun.append(arguments[1:3]), real(*arguments))[1])
    assert main(["fetch", str(place), str(tmp_path)]) == 0
    assert files_in(tmp_path) == FILES
    large = [begin for key, begin in begun if key.startswith("deep")]
    assert large[0] == 0 and large == sorted(set(large)) and large[-1] >= 400_000


def test_a_network_that_fails_for_a_moment_does_not_end_it(place, server, tmp_path, monkeypatch):
    proxy = FaultyProxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    real, failures = ObjectStore.stream, []

    def failing(self, key, begin=0, version=None):
        proxy.down = len(failures) < 3
        failures.append(key)
        return real(self, key, begin, version)

    monkeypatch.setattr(ObjectStore, "stream", failing)
    assert main(["fetch", str(place), str(tmp_path)]) == 0
    assert files_in(tmp_path) == FILES
    proxy.close()


def test_an_object_that_was_replaced_is_fetched_again_and_never_mixed(place, tmp_path, monkeypatch, capsys):
    assert main(["fetch", str(place), str(tmp_path)]) == 0
    ObjectStore(place).put("a.mid", b"new content")
    assert main(["fetch", str(place), str(tmp_path)]) == 0
    assert (tmp_path / "a.mid").read_bytes() == b"new content"
    found = stage._listed(place)[1]
    ObjectStore(place).put("a.mid", b"newer content")  # between the list and the download
    monkeypatch.setattr(stage, "_listed", lambda address: (address, found))
    (tmp_path / "a.mid").unlink()
    capsys.readouterr()
    assert main(["fetch", str(place), str(tmp_path)]) == 3
    assert "a.mid was replaced or deleted while it was fetched" in capsys.readouterr().err


def test_files_of_the_user_are_never_replaced(place, tmp_path, capsys):
    (tmp_path / "a.mid").write_bytes(b"mine, and longer")
    assert main(["fetch", str(place), str(tmp_path)]) == 3
    assert f"would be replaced: {tmp_path / 'a.mid'}" in capsys.readouterr().err
    assert files_in(tmp_path) == {"a.mid": b"mine, and longer"}
    (tmp_path / "a.mid").write_bytes(b"few")  # the size of the object
    assert main(["fetch", str(place), str(tmp_path)]) == 0
    assert (tmp_path / "a.mid").read_bytes() == b"few" and "1 file of the same size" in capsys.readouterr().out


def test_a_disk_without_room_is_refused_before_the_first_byte(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda _: stage.shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    assert main(["fetch", str(place), str(tmp_path)]) == 6
    assert "1.2 MB are to be fetched, and 1 MB are free" in capsys.readouterr().err
    assert not files_in(tmp_path)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((), "There is nothing below"),
        (("..\\x",), "cannot be the name of a file here"),
        (("a", "a/b"), "also a folder"),
    ],
    ids=["empty", "odd name", "file and folder"],
)
def test_what_cannot_be_a_folder_of_files_is_refused(server, request, monkeypatch, tmp_path, capsys, names, why):
    for name, value in environment(server.endpoint).items():
        monkeypatch.setenv(name, value)
    address = Address("s3", BUCKET, "refused")
    found = [objects.Stored(name, 1, None, objects.Version("e", None)) for name in names]
    if names:  # this server itself refuses the last pair
        monkeypatch.setattr(stage, "_listed", lambda address: (address, found))
    assert main(["fetch", str(address), str(tmp_path)]) == 3
    assert why in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_damaged_record_is_reported_and_only_costs_knowledge(place, tmp_path, capsys):
    assert main(["fetch", str(place), str(tmp_path)]) == 0
    assert "is damaged" not in capsys.readouterr().out
    (tmp_path / stage.RECORD).write_text("{")
    assert main(["fetch", str(place), str(tmp_path)]) == 0
    assert f"{stage.RECORD} is damaged (JSONDecodeError" in capsys.readouterr().out
    assert json.loads((tmp_path / stage.RECORD).read_text())["files"] == {} and files_in(tmp_path) == FILES
