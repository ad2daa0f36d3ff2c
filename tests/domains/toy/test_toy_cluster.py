"""Plan nodes on a Ray cluster of two nodes on this host give the same bytes as on one host."""

from __future__ import annotations

import importlib.util

import pytest

from training import cli

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (scripts/setup_env.sh music ray --dev)"
)


@pytest.fixture
def cluster(known):
    from ray.cluster_utils import Cluster

    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    two.add_node(num_cpus=1)
    two.wait_for_nodes()
    yield two
    two.shutdown()


@pytest.mark.ray
@needs_ray
def test_independent_nodes_run_on_the_nodes_of_a_cluster(done, cluster, capsys):
    blend = (done.out / "runs" / "blend.json").read_bytes()
    for path in (done.out / "runs" / "nodes").glob("*.json"):
        path.unlink()
    words = ["--domain", "toy", "--out", str(done.out), "--device", "cpu", "--ray", cluster.address]
    assert cli.main(["node", "blend", "predict-curve", "predict-boost", *words]) == 0
    out = capsys.readouterr().out
    assert "2 tasks on 2 nodes" in out and "Predictions of curve: done" in out
    assert (done.out / "runs" / "blend.json").read_bytes() == blend
    assert len(list((done.out / "runs" / "nodes").glob("*.json"))) == 3
