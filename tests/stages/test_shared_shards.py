"""Prepared data in an object store (a real S3 server): trained on by a host whose disk holds a part of it, with the
same bits whatever is killed and however little fits."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from tests.object_server import BUCKET, ObjectServer, environment
from tests.toy_domain.curve import Curve
from tests.toy_domain.domain import TOY
from tests.toy_domain.readings import SESSION
from training.cli import main
from training.data import digests, index, remote_shards
from training.data import store as stores
from training.data.identity import is_synthetic
from training.data.index import shard_of_each
from training.data.objects.address import Address
from training.data.objects.download import download
from training.data.objects.store import ObjectStore
from training.data.remote_shards import FETCHED, FetchedShards, key_of_content
from training.engine.checkpoints import checkpoint_file
from training.engine.loading import batches
from training.engine.loading.batches import BatchPlan, Shards
from training.errors import HostError, UsageError
from training.registry import load_recipe
from training.stages import shared_shards as stage
from training.stages.splits import load_split
from training.stages.train import train
from training.workspace import PROJECT, Workspace

DEVICES, SESSIONS = 5, 8
SHARDS = DEVICES + 1  # one of each device, and one with the limits that all rows refer to
HELD = 4_700  # bytes: of three devices and the limits; two shards are read at a time
EPOCHS = 2
WORLD = {"ATHANOR_DOMAINS": "tests.toy_domain.domain:TOY"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = ObjectServer(tmp_path_factory.mktemp("objects") / "server")
    yield made
    made.close()


@pytest.fixture(scope="module")
def here(server, tmp_path_factory):
    """An address, the workspace that was published there, and the credentials. Files count as settled at once."""
    patch = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("publisher")
    for name, value in (environment(server.endpoint) | WORLD).items():
        patch.setenv(name, value)
    for module in (digests, index):
        patch.setattr(module, "SETTLED", -3600)
    writer = stores.Writer
    patch.setattr(stores, "Writer", lambda store, folder, _: writer(store, folder, 500))
    (root / "readings").mkdir()
    for device in range(DEVICES):
        random = np.random.default_rng(device)
        lines = (f"{x:.6f},{np.sin(x):.6f}\n" for x in random.uniform(-1, 1, SESSIONS * SESSION))
        (root / "readings" / f"device{device}.csv").write_text("".join(lines))
    words = ["--domain", "toy", "--out", str(root)]
    assert main(["prepare", *words, "--readings", str(root / "readings")]) == 0
    address = Address("s3", BUCKET, "published")
    assert main(["publish-shards", str(address), *words]) == 0
    patch.undo()
    return address, Workspace(root), environment(server.endpoint)


@pytest.fixture
def there(here, server, monkeypatch):
    """The address; the credentials are set, and few shards are read at a time."""
    for name, value in (environment(server.endpoint) | WORLD).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(batches, "AT_ONCE", 2)
    monkeypatch.setattr(stage, "AT_ONCE", 2)
    return here[0]


@pytest.fixture
def fetched(monkeypatch):
    """The shards that are fetched, in order; without a process for each, except where data loader workers do it."""
    monkeypatch.setattr(FetchedShards, "_fetch", in_this_process(names := []))
    return names


def in_this_process(names):
    """A function in the place of FetchedShards._fetch that appends to `names`, and checks the limit."""

    def fetch(self, sha256, size):
        names.append(sha256)
        temporary = self.folder / remote_shards.TEMPORARY
        download(self.address, key_of_content(sha256), temporary, size, sha256)
        temporary.replace(self.folder / sha256)
        held = sum(path.stat().st_size for path in self._here())
        assert held <= self.limit, f"{held} bytes are on the disk"

    return fetch


def fetch(there, root, held=HELD):
    stage.fetch_shards(TOY, Workspace(root), there, held / 1e9)
    return Workspace(root)


def trained(workspace, workers=0):
    """A training on the rows of all devices; returns its last checkpoint, and the rows."""
    boost = load_recipe("boost")
    load = partial(load_split, boost, workspace)
    recipe = load_recipe(
        "curve", overrides=[f"training.epochs={EPOCHS}", "training.eval_steps=null", f"data.num_workers={workers}"]
    )
    done = train(recipe, workspace, device="cpu", load=load)
    return checkpoint_file.read(done.last)


def same(one, other):
    return all(one["model"][name].equal(other["model"][name]) for name in one["model"])


@pytest.fixture(scope="module")
def straight(here, tmp_path_factory):
    """The last checkpoint of a training that nothing disturbs, on a disk that holds all shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "AT_ONCE", 2)
        patch.setenv("ATHANOR_DOMAINS", WORLD["ATHANOR_DOMAINS"])
        for name, value in here[2].items():
            patch.setenv(name, value)
        patch.setattr(FetchedShards, "_fetch", in_this_process(names := []))
        done = trained(fetch(here[0], tmp_path_factory.mktemp("straight"), 10**6))
    assert sorted(names) == sorted(set(names)) and len(names) == SHARDS, "each shard once, as all have room"
    return done


def test_a_disk_that_holds_a_part_trains_to_the_same_bits_as_one_that_holds_all(there, straight, tmp_path, fetched):
    small = fetch(there, tmp_path)
    assert not list(small.cache.glob("*/*.shard"))
    assert same(trained(small), straight)
    # The statistics, each epoch and the two passes of its evaluation read the shards one after the other. In a random
    # order, each second of the thirty rows of an epoch would need one that is not here (42 fetched).
    assert len(fetched) <= SHARDS + 3 * EPOCHS * DEVICES
    assert is_synthetic({"train": load_split(load_recipe("boost"), small, "train")}) is False


def killed(root, at):
    """A training that is killed when the shard of number `at` is to be fetched, by one of its data loader workers."""
    batches.AT_ONCE = 2
    made, real, parent = root / "made", FetchedShards._fetch, os.getpid()

    def counted(self, sha256, size):
        with made.open("ab") as file:
            file.write(b".")
        if made.stat().st_size == at:
            (self.folder / f"{remote_shards.TEMPORARY}half").write_bytes(b"half of a shard")
            os.kill(parent, signal.SIGKILL)
        real(self, sha256, size)

    FetchedShards._fetch = counted
    trained(Workspace(root), workers=2)
    sys.exit("it was not killed")


def test_a_training_killed_while_a_worker_fetches_a_shard_ends_in_the_same_bits(there, straight, tmp_path, fetched):
    small = fetch(there, tmp_path)
    code = "import pathlib, sys; from tests.stages import test_shared_shards as test; "
    code += f"test.killed(pathlib.Path(sys.argv[1]), {SHARDS + 3})"
    child = subprocess.run([sys.executable, "-c", code, small.root], cwd=PROJECT, timeout=600)
    assert child.returncode == -signal.SIGKILL
    assert same(trained(small), straight)
    assert not list((small.cache / FETCHED).glob(f"{remote_shards.TEMPORARY}*")), "the half of a shard is still here"


def test_a_new_host_with_an_empty_disk_continues_from_the_bucket_alone(there, tmp_path, fetched):
    """Checkpoints come from --persist, the data from the published shards; the files of the readings are nowhere."""
    copies = Address(there.scheme, there.bucket, "copies")
    one = fetch(there, tmp_path / "one")
    words = ["boost", "--domain=toy", "--preset=debug", "--persist", str(copies)]
    assert main(["train", *words, "--out", str(one.root), "--epochs=2"]) == 0
    shutil.rmtree(one.root)
    other = tmp_path / "other"
    assert main(["restore", "--out", str(other), "--persist", str(copies)]) == 0
    assert main(["fetch-shards", str(there), "--domain=toy", "--out", str(other)]) == 0
    assert main(["train", *words, "--out", str(other), "--epochs=4"]) == 0
    assert main(["evaluate", "boost", "--domain=toy", "--out", str(other)]) == 0
    assert checkpoint_file.read(other / "checkpoints/boost/last.pt")["progress"]["step"] == 4
    assert (other / "exports/metrics.json").is_file()


def test_the_order_by_shard_is_a_function_of_the_epoch_and_reads_few_shards_at_a_time():
    of_sample = np.random.default_rng(0).integers(0, 40, 1000)
    plan = BatchPlan(1000, 8, 1, 1, seed=3, shards=Shards(of_sample))

    def order(plan, epoch):
        return np.concatenate(
            [plan.step_samples(epoch * plan.steps_per_epoch + n) for n in range(plan.steps_per_epoch)]
        )

    first, second = order(plan, 0), order(plan, 1)
    for found in (first, second):
        assert sorted(found.tolist()) == [*range(1000)]
        groups = [set(of_sample[found].tolist()[at : at + 100]) for at in range(0, 1000, 100)]
        assert max(map(len, groups)) <= 2 * batches.AT_ONCE, "so many shards within a hundred samples"
    assert not np.array_equal(first, second)
    assert not np.array_equal(of_sample[first], np.sort(of_sample[first])), "shards are in a random order"
    again = BatchPlan(1000, 4, 1, 2, seed=3, shards=Shards(of_sample.copy()))
    assert np.array_equal(order(again, 1), second), "the same for any number of processes"
    assert np.array_equal(order(BatchPlan(1000, 8, 1, 1, seed=3), 0), np.random.default_rng([3, 0]).permutation(1000))


def test_a_family_that_does_not_state_where_its_samples_are_is_refused(there, tmp_path, fetched, monkeypatch):
    monkeypatch.setattr(Curve, "rows_of_samples", lambda *_: None)
    with pytest.raises(UsageError, match="cannot be trained on shards in an object store"):
        trained(fetch(there, tmp_path))


def test_what_is_published_elsewhere_or_does_not_fit_is_refused(there, here, tmp_path, capsys):
    words = ["--domain=toy", "--out", str(tmp_path)]

    def refused(url, *more):
        code = main(["fetch-shards", str(url), *words, *more])
        return code, capsys.readouterr().err

    code, text = refused(f"{there}-not")
    assert code == 3 and "No data is published at s3://" in text
    code, text = refused(there, "--shards-gb=0.000002")
    assert code == 2 and "2 shards are read at a time, and with the next one they take " in text
    code, text = refused(there, "--shards-gb=900000")
    assert code == 6 and "are to be kept there" in text
    about = json.loads(ObjectStore(there).get(stage.CATALOG)[0])
    for change, expected in (
        ({"domain": "music"}, (2, "holds data of music")),
        ({"format": 99}, (3, "by another version of this program")),
        ({"files": {"../x": {}}}, (3, "is no name of a file below one folder")),
        ({"shards": 1}, (3, "is damaged (AttributeError")),
    ):
        other = Address(there.scheme, there.bucket, f"changed {next(iter(change))}")
        ObjectStore(other).put(stage.CATALOG, json.dumps(about | change).encode())
        code, text = refused(other)
        assert (code, expected[1] in text) == (expected[0], True), text
    assert not list(tmp_path.glob("data/**/*.jsonl")), "something of what was refused is here"
    (tmp_path / "data/manifests").mkdir(parents=True)
    (tmp_path / "data/manifests/summary.json").write_text('{"synthetic": false}')
    code, text = refused(there)
    assert code == 2 and "holds manifests of other data" in text


def test_a_shard_that_is_damaged_or_missing_in_the_store_is_named(there, tmp_path, fetched):
    workspace = fetch(there, tmp_path)
    copy = Address(there.scheme, there.bucket, "damaged")
    (key,) = {shard.sha256 for shard in stores.Store(workspace.cache / "limits").shards()}
    held = FetchedShards.limited(workspace.cache, copy, 10**6)
    ObjectStore(copy).put(key_of_content(key), b"x" * 320)
    with pytest.raises(HostError, match=r"does not match its SHA-256. Delete the object"):
        held.read(key, 320, 0, 64)
    ObjectStore(copy).delete([key_of_content(key)])
    with pytest.raises(HostError, match=r"is missing. Publish the data again"):
        held.read(key, 320, 0, 64)


def test_a_process_started_afresh_fetches_the_shard_and_names_what_failed(there, here, tmp_path):
    workspace = fetch(there, tmp_path)
    (shard,) = stores.Store(workspace.cache / "limits").shards()
    assert bytes(shard.read(0, 320)) == (here[1].cache / "limits/00000001.shard").read_bytes()
    other = FetchedShards.limited(workspace.cache, Address(there.scheme, there.bucket, "empty"), 10**6)
    with pytest.raises(HostError, match=r"could not be fetched: s3://.*is missing"):
        other.read("0" * 64, 320, 0, 64)
    assert [path.name for path in other.folder.iterdir() if path.name != ".lock"] == [shard.sha256]


def test_a_transfer_that_breaks_off_is_continued_at_its_byte(there, tmp_path, monkeypatch):
    content = os.urandom(3000)
    real, begun = ObjectStore.stream, []
    ObjectStore(there).put("content", content)

    def cut(self, key, begin=0, version=None):
        begun.append(begin)
        piece = b"".join(real(self, key, begin, version))
        yield piece[:1000]
        if len(begun) < 3:
            raise stage.StoreError(5, "the store does not answer.")

    monkeypatch.setattr(ObjectStore, "stream", cut)
    digest = hashlib.sha256(content).hexdigest()
    download(there, "content", tmp_path / "file", 3000, digest, pause=0)
    assert (tmp_path / "file").read_bytes() == content and begun == [0, 1000, 2000]


def test_the_rows_know_their_shards_only_where_these_were_fetched(there, here, tmp_path, monkeypatch):
    for module in (digests, index):
        monkeypatch.setattr(module, "SETTLED", -3600)
    boost = load_recipe("boost")
    rows = load_split(boost, fetch(there, tmp_path), "train")
    assert len(np.unique(shard_of_each(rows))) == SHARDS - 1
    assert shard_of_each(load_split(boost, here[1], "train")) is None, "the publisher has all of them"
