"""The CPUs and the memory that a process may use on a host and in a container, with simulated /proc and /sys."""

import os

import pytest

from training import host

GIB = 1 << 30


@pytest.fixture
def root(tmp_path, monkeypatch):
    """put(path, text) writes a file of the simulated host, which has eight CPUs and 64 GiB."""
    monkeypatch.setattr(host, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}.__getitem__)

    def put(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return put


def test_without_limits_all_cpus_and_memory_are_available(root):
    assert (host.available_cpus(), host.available_memory()) == (8, 64 * GIB)


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 8), ("odd", 8)]
)
def test_the_cpu_quota_of_cgroup_2_applies(root, quota, cpus):
    root("sys/fs/cgroup/cpu.max", quota + "\n")
    assert host.available_cpus() == cpus


@pytest.mark.parametrize(("quota", "cpus"), [(-1, 8), (300_000, 3), (50_000, 1)])
def test_the_cpu_quota_of_cgroup_1_applies(root, quota, cpus):
    root("sys/fs/cgroup/cpu/cpu.cfs_quota_us", f"{quota}\n")
    root("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert host.available_cpus() == cpus


def test_the_limits_of_enclosing_groups_apply_too(root):
    """As for a systemd service or a batch job, whose limit is on a parent group of the process's group."""
    root("proc/self/cgroup", "0::/jobs/17/task\n")
    root("sys/fs/cgroup/jobs/17/cpu.max", "400000 100000")
    root("sys/fs/cgroup/jobs/17/task/cpu.max", "max 100000")
    root("sys/fs/cgroup/jobs/memory.max", str(16 * GIB))
    root("sys/fs/cgroup/jobs/17/memory.max", str(8 * GIB))
    assert (host.available_cpus(), host.available_memory()) == (4, 8 * GIB)


def test_groups_of_cgroup_1_are_found_by_their_controllers(root):
    root("proc/self/cgroup", "5:cpu,cpuacct:/jobs\n4:memory:/jobs\n1:name=systemd:/jobs\n")
    root("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "200000")
    root("sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000")
    root("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", str(4 * GIB))
    assert (host.available_cpus(), host.available_memory()) == (2, 4 * GIB)


@pytest.mark.parametrize("limit", ["max", str(1 << 62)])
def test_a_memory_limit_above_the_hosts_memory_is_ignored(root, limit):
    root("sys/fs/cgroup/memory.max", limit)
    assert host.available_memory() == 64 * GIB


def test_a_processor_without_a_model_name_is_named_by_its_machine_type(root, monkeypatch):
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    assert host.cpu_name() == "aarch64"
    root("proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 9654\n\nmodel name\t: other\n")
    assert host.cpu_name() == "AMD EPYC 9654"


def test_an_error_of_nvidia_smi_is_reported(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.nvidia_smi("name") == ([], "")
    tool.write_text("#!/bin/sh\necho NVML: Driver mismatch; exit 9\n")
    tool.chmod(0o755)
    assert host.nvidia_smi("name") == ([], "nvidia-smi: NVML: Driver mismatch")
    tool.write_text("#!/bin/sh\nexec /bin/sleep 9\n")
    lines, why_not = host.nvidia_smi("name", seconds=0.2)
    assert lines == [] and "nvidia-smi failed" in why_not and "timed out" in why_not
    tool.write_text("#!/bin/sh\necho 'NVIDIA L4'; echo; echo 'NVIDIA L4'\n")
    assert host.gpus() == ["NVIDIA L4", "NVIDIA L4"]


@pytest.mark.parametrize(("ratio", "factor"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.1, 4), (3.9, 4), (8.4, 16), (500, 32)])
def test_limits_grow_on_hosts_that_are_much_slower(monkeypatch, ratio, factor):
    ticks = iter(range(100))
    monkeypatch.setattr(host.time, "process_time", lambda: next(ticks) * ratio * host.WORK_SECONDS)
    host.slow_factor.cache_clear()
    try:
        assert host.slow_factor() == factor
    finally:
        host.slow_factor.cache_clear()


def test_a_time_limit_is_that_of_this_host(monkeypatch):
    from training.data import sandbox

    monkeypatch.setattr(sandbox, "slow_factor", lambda: 4)
    assert sandbox.TimeLimit(60.0, 4.0).on_this_host() == sandbox.TimeLimit(240.0, 16.0)
    monkeypatch.setattr(sandbox, "slow_factor", lambda: 1)
    assert sandbox.TimeLimit(60.0, 4.0).on_this_host() == sandbox.TimeLimit(60.0, 4.0)
