"""Tasks on the nodes of a Ray cluster: all are run, in order, with this code; nodes that do not answer are an error."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.domains.music.corpora import job, make_corpus, run
from training.cli import main
from training.data.store import Store
from training.domains.music.sharding import ENCODERS
from training.errors import DataError, HostError
from training.stages import cluster as stage
from training.stages.cluster import connected, run_on_cluster
from training.workspace import PROJECT

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_ray_is_optional_and_its_absence_is_reported():
    with pytest.raises(HostError, match=r"setup_env\.sh WORD ray"):
        run_on_cluster("auto", len, [("a",)])


def test_nodes_import_from_where_this_process_does(monkeypatch, tmp_path):
    """PYTHONPATH replaces the nodes' own: a folder that is left out of it (Ray's) would keep workers from starting."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), "", str(tmp_path / "absent"), *sys.path])
    monkeypatch.setenv("ATHANOR_DOMAINS", "elsewhere:DOMAIN")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    variables = stage.nodes_environment()
    folders = variables["PYTHONPATH"].split(os.pathsep)
    assert folders[:2] == [str(PROJECT), str(tmp_path)]
    assert str(Path(pytest.__file__).parents[1]) in folders
    assert str(Path(os.__file__).parent) not in folders, "the standard library is each node's own"
    assert variables["ATHANOR_DOMAINS"] == "elsewhere:DOMAIN"
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE" and "OMP_NUM_THREADS" not in variables, "a node has its own CPUs"


def test_nodes_do_not_import_from_the_folder_of_the_user(monkeypatch, tmp_path):
    """A torch.py or random.py in it. Ray takes the folder in which it is started onto the path of its workers."""
    seen = {}

    def init(**options):
        seen["folder"], seen["variables"] = Path.cwd(), options["runtime_env"]["env_vars"]
        raise ConnectionError("no one there")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HostError, match="no one there"):
        run_on_cluster("auto", len, [("a",)])
    assert seen["folder"] == PROJECT and Path.cwd() == tmp_path
    assert seen["variables"]["PYTHONSAFEPATH"] == "1"


# -- a cluster on this host --------------------------------------------------------------------------------------------

needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (scripts/setup_env.sh music ray --dev)")


@contextmanager
def two_nodes():
    """A cluster of two nodes of one processor each, on this host."""
    from ray.cluster_utils import Cluster

    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        two.add_node(num_cpus=1)
        two.wait_for_nodes()
        yield two
    finally:
        two.shutdown()


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as two:
        yield two


@pytest.fixture
def own_cluster():
    """A cluster that is used once: a node waits a minute for each worker that could not start before it starts the
    next, so that it would not answer a later test in time.
    """
    with two_nodes() as two:
        yield two


def double(number: int) -> tuple[int, str, int]:
    import ray

    import training

    return 2 * number, ray.get_runtime_context().get_node_id(), len(training.__name__)


def refuse() -> None:
    raise DataError("nothing to train on")


def crash() -> None:
    os._exit(1)


@pytest.mark.ray
@needs_ray
def test_more_tasks_than_nodes_come_back_in_order(cluster, capsys):
    found = run_on_cluster(cluster.address, double, [(number,) for number in range(5)])
    assert [number for number, _, _ in found] == [0, 2, 4, 6, 8]
    assert len({node for _, node, _ in found}) == 2, "both nodes work"
    assert "5 tasks on 2 nodes" in capsys.readouterr().out


@pytest.mark.ray
@needs_ray
def test_an_athanor_error_in_a_task_is_raised_here(cluster):
    with pytest.raises(DataError, match="nothing to train on"):
        run_on_cluster(cluster.address, refuse, [()])
    with pytest.raises(HostError, match="lost a node"):
        run_on_cluster(cluster.address, crash, [()])


@pytest.mark.ray
@needs_ray
def test_nodes_whose_workers_cannot_start_end_the_command(own_cluster, monkeypatch):
    """Their workers fail and are started again, forever: as it was where Ray lay outside of the environment."""
    broken = Path(os.environ.get("TMPDIR", "/tmp")) / "no such environment"
    monkeypatch.setattr(stage, "nodes_environment", lambda: {"PYTHONHOME": str(broken)})
    monkeypatch.setattr(stage, "ANSWER_SECONDS", 8.0)
    with (
        pytest.raises(HostError, match=r"2 of 2 nodes .* did not run a trivial task within 8 s"),
        connected(own_cluster.address),
    ):
        pass


@pytest.mark.ray
@needs_ray
def test_nodes_without_this_program_are_named(own_cluster, monkeypatch):
    """Their workers start, and have none of this project's packages."""
    folders = [str(Path(__import__("ray").__file__).parents[1])]
    monkeypatch.setattr(stage, "nodes_environment", lambda: {"PYTHONPATH": os.pathsep.join(folders)})
    monkeypatch.setattr(stage, "PROJECT", Path("/"))  # Ray is started in it, and its workers import from there
    with pytest.raises(HostError, match=r"cannot run this program: .*No module named"), connected(own_cluster.address):
        pass


@pytest.mark.ray
@needs_ray
def test_an_address_where_no_one_listens_is_refused_at_once():
    begin = time.monotonic()
    with pytest.raises(HostError, match=r"There is no Ray cluster at 127\.0\.0\.1:1"):
        run_on_cluster("127.0.0.1:1", len, [("a",)])
    assert time.monotonic() - begin < 10


def keys_of(store: Store) -> list[bytes]:
    return sorted(key.tobytes() for shard in store.shards() for key in shard.table["key"])


@pytest.mark.ray
@needs_ray
def test_a_cluster_of_two_makes_the_store_of_one_host(cluster, tmp_path, capsys):
    corpus = make_corpus(tmp_path / "corpus")
    out = tmp_path / "by ray"
    folders = ["--audio-root", str(corpus / "audio"), "--midi-root", str(corpus / "midi"), "--out", str(out)]
    assert main(["prepare", *folders, "--ray", cluster.address]) == 0
    messages = capsys.readouterr().out
    assert "2 nodes of the Ray cluster" in messages and "shard 1/2:" in messages and "shard 2/2:" in messages
    assert "2 shards merged" in messages
    run(corpus)
    for encoder in ENCODERS:
        here, there = (Store.at(place / "cache" / encoder.kind) for place in (job(corpus).workspace.root, out))
        keys = [
            sorted(key for shard in store.shards() for key in map(bytes, shard.table["key"])) for store in (here, there)
        ]
        assert keys[0] == keys[1] and len(keys[0]) == 9
