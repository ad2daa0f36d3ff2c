"""Compose: the stages run as services."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import pytest


@pytest.fixture
def compose(checkout, trained, place):
    """compose(*arguments) runs `docker compose`, as on a host without a GPU, with an .env like the example's."""
    out = place("compose") / "out"
    for name in ("data", "checkpoints", "exports", "cache", "runs"):
        (out / name).mkdir(parents=True)
    checkout.own(out.parent)
    settings = {
        "ATHANOR_UID": checkout.uid, "ATHANOR_GID": checkout.uid, "ATHANOR_OUT": out,
        "COMPOSE_FILE": "docker-compose.yml:docker-compose.cpu.yml", "ATHANOR_TRAIN_OPTIONS": "--preset debug",
        "COMPOSE_PROJECT_NAME": "athanor-tests",
    }  # fmt: skip
    lines = [f"{key}={value}\n" for key, value in {**checkout.environment, **settings}.items()]
    (checkout.folder / ".env").write_text("".join(lines))

    def call(*arguments, gpu: bool = False, **environment):
        if gpu:
            environment["COMPOSE_FILE"] = "docker-compose.yml"
        return checkout.run("docker", "compose", *arguments, timeout=900, **environment)

    call.out = out
    yield call
    call("--profile", "tensorboard", "down", "--remove-orphans")
    (checkout.folder / ".env").unlink()


def test_up_ends_in_verified_exports_that_belong_to_the_caller(compose, checkout, record_property):
    began = time.monotonic()
    done = compose("up", "--no-color")
    record_property("figure", f"docker compose up, debug job: {time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ended = compose("ps", "--all", "--format", "{{.Service}} {{.ExitCode}}").stdout.split("\n")
    assert sorted(line for line in ended if line) == ["export 0", "prepare 0", "train 0"]
    assert "verified." in done.stdout
    assert (compose.out / "exports/receipt.json").is_file()
    assert [path for path in compose.out.rglob("*") if path.lstat().st_uid != checkout.uid] == []


def test_run_train_ends_with_the_exit_code_of_the_stage(compose, checkout):
    for name in ("data", "cache"):
        shutil.copytree(checkout.folder / name, compose.out / name, dirs_exist_ok=True)
    checkout.own(compose.out)
    done = compose("run", "--rm", "--no-deps", "train")
    assert done.returncode == 3, "the manifests of another place name files that are not here: " + done.stdout[-1500:]
    done = compose("run", "--rm", "train", ATHANOR_TRAIN_OPTIONS="--preset debug --skip-spectocloud")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (compose.out / "checkpoints/midi_generator/best.pt").is_file()


def test_the_services_are_as_confined_as_the_runners_containers(compose, checkout):
    """Row 22 of docs/reliability.md, for the configuration that Compose makes of the files."""
    output = compose("--profile", "tensorboard", "config", "--format", "json", WANDB_API_KEY="a key")
    services = json.loads(output.stdout)["services"]
    assert set(services) == {"prepare", "train", "export", "tensorboard"}
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == f"{checkout.uid}:{checkout.uid}", name
        assert "privileged" not in service and "cap_add" not in service and "network_mode" not in service, name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        for mount in service["volumes"]:
            if mount["target"].startswith("/mnt"):
                assert mount["read_only"]
    assert services["tensorboard"]["ports"]
    assert services["train"]["stop_grace_period"] == "10m0s"
    assert not services["train"].get("deploy")

    devices = json.loads(compose("config", "--format", "json", gpu=True).stdout)["services"]
    for name in ("train", "export"):
        (device,) = devices[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]


def test_tensorboard_is_reachable_only_from_this_host(compose, checkout):
    done = compose("--profile", "tensorboard", "up", "--detach", "tensorboard", ATHANOR_TENSORBOARD_PORT="16006")
    assert done.returncode == 0, done.stderr
    ask = ["curl", "--silent", "--fail", "--retry", "60", "--retry-delay", "1", "--retry-all-errors"]
    page = subprocess.run([*ask, "http://127.0.0.1:16006/"], capture_output=True, text=True, timeout=120)
    assert "TensorBoard" in page.stdout
    bound = subprocess.check_output(["docker", "port", "athanor-tests-tensorboard-1"], text=True)
    assert bound.strip() == "6006/tcp -> 127.0.0.1:16006"


def test_a_gpu_host_without_nvidias_toolkit_refuses_to_start(compose, engine):
    if engine.fake_gpu:
        pytest.skip("this engine hands out GPUs")
    done = compose("run", "--rm", "--no-deps", "train", gpu=True)
    assert done.returncode != 0
    assert 'could not select device driver "nvidia"' in done.stderr
