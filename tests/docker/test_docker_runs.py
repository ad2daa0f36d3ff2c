"""The runner in Docker mode, with real containers: the job, unusual folders, stops, several hosts, no GPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from .conftest import HOME, NOTHING, tools

SECRET = "k3y-that-is-nobodys"


def wait_for(what, seconds: float = 180):
    """Wait until `what()` returns a true value, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = what()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"did not happen within {seconds:g} s")


def running() -> str:
    """The name of the runner's container; empty if none runs."""
    names = subprocess.check_output(["docker", "ps", "--format", "{{.Names}}"], text=True).split()
    return next((name for name in names if name.startswith("athanor-")), "")


def foreign(folder: Path, uid: int) -> list[Path]:
    """The paths below `folder` that do not belong to `uid`."""
    return [path for path in folder.rglob("*") if path.lstat().st_uid != uid]


class Output:
    """Collects what a runner prints while it runs."""

    def __init__(self, process: subprocess.Popen):
        self.process, self.text = process, ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.text += line

    def code(self, seconds: float = 120) -> int:
        code = self.process.wait(seconds)
        self.reader.join(10)
        return code


def test_the_job_ends_in_verified_exports_that_belong_to_the_caller(checkout, trained, record_property):
    assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-3000:]
    assert "verified." in trained.stdout
    assert (checkout.folder / "exports" / "receipt.json").is_file()
    for name in ("data", "checkpoints", "exports", "cache", "runs"):
        assert foreign(checkout.folder / name, checkout.uid) == []
    record_property("figure", f"{checkout.timings}")


def test_folders_with_any_name_are_mounted_under_the_same_path(checkout, trained, place):
    """With commas, quotes, colons, `$( )`, a newline and a leading dash in the name."""
    top = place("odd")
    odd = top / '-it\'s a, "set": $(touch pwned);\nreadonly'
    demo = checkout.folder / "data" / "demo"
    songs = sorted((demo / "midi").rglob("*.mid"))[::6]
    for song in songs:
        for kind, suffix in (("midi", ".mid"), ("audio", ".wav")):
            name = song.relative_to(demo / "midi").with_suffix(suffix)
            (odd / kind / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(demo / kind / name, odd / kind / name)
    linked = top / "linked"
    linked.symlink_to(odd / "audio")
    out = top / "o u:t,"
    out.mkdir()
    checkout.own(top)
    done = checkout.runner(
        "--cpu", "--audio-root", linked, "--midi-root", odd / "midi", "--out", out,
        "--skip-spectocloud", "--skip-midi", "--skip-export",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = [json.loads(x) for x in (out / "data/manifests/spectocloud_train.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        assert Path(row["audio_path"]).is_file() and Path(row["midi_path"]).is_file()
    assert foreign(out, checkout.uid) == []
    assert not list(top.rglob("pwned"))


def test_a_container_cannot_write_the_data(checkout, image):
    done = checkout.run(
        "bash", "-c",
        'root=$PWD cpu=yes gpu=no gpus= nnodes= dry_run=no out=$PWD persist= mounts=("$1"); image=$2; '
        'source scripts/docker.sh; prepare_container; "${container[@]}" sh -c "touch \\"\\$1/x\\" /x" - "$1"',
        "-", checkout.folder / "data", image,
    )  # fmt: skip
    # data/ belongs to the outputs, which are writable; naming it as a mount does not change that.
    assert "cannot touch '/x'" in done.stderr and done.returncode == 1
    (checkout.folder / "data" / "x").unlink()
    songs = checkout.folder / "data" / "demo"
    done = checkout.run(
        "bash", "-c",
        'root=$PWD cpu=yes gpu=no gpus= nnodes= dry_run=no out=$PWD persist= mounts=("$1"); image=$2; '
        'source scripts/docker.sh; prepare_container; "${container[@]}" touch "$1/x"',
        "-", songs, image,
    )  # fmt: skip
    assert done.returncode == 1 and "Read-only file system" in done.stderr


def test_what_a_container_may_do_and_how_it_stops(checkout, workspace, record_property):
    """Row 22 of docs/reliability.md; and `docker stop` during a training: it saves and ends with 75, and the same
    command continues."""
    command = (
        checkout.folder / "train_cuda.sh", "--docker", "--cpu", "--preset", "demo", "--epochs", 5000,
        "--out", workspace, "--midi-root", workspace / "data/demo/midi",
        "--skip-manifests", "--skip-spectocloud", "--skip-export",
    )  # fmt: skip
    process = checkout.start(*command, WANDB_API_KEY=SECRET)
    output = Output(process)
    try:
        wait_for(lambda: "step " in output.text or process.poll() is not None)
        assert process.poll() is None, output.text
        name = running()
        about = json.loads(subprocess.check_output(["docker", "inspect", name]))[0]
        host = about["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"]
        assert "no-new-privileges" in host["SecurityOpt"] and host["NetworkMode"] in ("default", "bridge")
        assert not host["PortBindings"] and host["ShmSize"] >= 2**30 and host["PidsLimit"] > 0
        assert about["Config"]["User"] == f"{checkout.uid}:{checkout.uid}"
        assert not about["Config"]["Tty"], "there is no terminal here"
        writable = {mount["Destination"] for mount in about["Mounts"] if mount["RW"]}
        assert writable == {f"{workspace}/{x}" for x in ("data", "checkpoints", "exports", "cache", "runs")}
        status = tools.run("docker", "exec", name, "cat", "/proc/1/status").stdout
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert facts["CapEff"] == facts["CapPrm"] == facts["CapBnd"] == "0" * 16 and facts["NoNewPrivs"] == "1"
        assert f"WANDB_API_KEY={SECRET}" in about["Config"]["Env"]
        arguments = subprocess.check_output(["ps", "-eo", "args"], text=True)
        assert SECRET not in arguments

        # alive, hung, alive again
        def health(seconds: str) -> subprocess.CompletedProcess:
            ask = ["docker", "exec", "--env", f"ATHANOR_HEALTH_SECONDS={seconds}", name, "python"]
            return subprocess.run([*ask, f"{HOME}/code/scripts/health.py"], capture_output=True, text=True)

        alive = wait_for(lambda: health("30").stdout.startswith("1 training") and health("30"))
        assert alive.returncode == 0
        pid = tools.run("docker", "exec", name, "ls", "/tmp/athanor-heartbeat").stdout.split()[0]
        tools.run("docker", "exec", name, "sh", "-c", f"kill -STOP {pid}")
        hung = wait_for(lambda: (h := health("8")).returncode and h, 60)
        assert f"process {pid} has made no step" in hung.stdout
        tools.run("docker", "exec", name, "sh", "-c", f"kill -CONT {pid}")
        wait_for(lambda: health("8").returncode == 0, 60)

        began = time.monotonic()
        tools.run("docker", "stop", name)
        code = output.code()
        record_property("figure", f"docker stop: saved and gone in {time.monotonic() - began:.1f} s, exit {code}")
        assert code == 75, output.text
        assert "everything is saved" in output.text
    finally:
        process.send_signal(signal.SIGTERM)
        output.code()
    index = json.loads((workspace / "checkpoints/midi_generator/index.json").read_text())
    assert "last.pt" in json.dumps(index)
    assert SECRET not in output.text
    for path in workspace.rglob("*"):
        if path.is_file() and path.suffix not in (".npy", ".wav"):
            assert SECRET.encode() not in path.read_bytes(), path

    # the same command continues; SIGTERM to the runner itself is passed through
    process = checkout.start(*command)
    output = Output(process)
    wait_for(lambda: "resumed at step" in output.text or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    assert output.code() == 75, output.text
    assert "resumed at step" in output.text
    assert foreign(workspace, checkout.uid) == []
    assert not running()


@pytest.mark.parametrize("killed", ["the runner", "the client"])
def test_a_container_whose_runner_or_client_is_killed_saves_and_ends(checkout, workspace, record_property, killed):
    """No one could stop it any more: it would continue to train unattended, and keep the folder locked."""
    command = (
        checkout.folder / "train_cuda.sh", "--docker", "--cpu", "--preset", "demo", "--epochs", 5000,
        "--out", workspace, "--midi-root", workspace / "data/demo/midi",
        "--skip-manifests", "--skip-spectocloud", "--skip-export",
    )  # fmt: skip
    process = checkout.start(*command)
    output = Output(process)
    wait_for(lambda: "step " in output.text or process.poll() is not None)
    assert process.poll() is None, output.text
    began = time.monotonic()
    if killed == "the runner":
        process.kill()
    else:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (client,) = [pid for pid in children if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(int(client), signal.SIGKILL)
    code = output.code()
    assert code == {"the runner": -signal.SIGKILL, "the client": 137}[killed], output.text
    wait_for(lambda: not running(), 60)
    record_property(
        "figure", f"{killed} killed: the container had saved and gone {time.monotonic() - began:.1f} s later"
    )

    process = checkout.start(*command)
    output = Output(process)
    wait_for(lambda: "resumed at step" in output.text or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    assert output.code() == 75 and "resumed at step" in output.text, output.text
    assert not running()


def test_two_hosts_train_one_model(checkout, workspace, record_property):
    """Two containers on a network act as two hosts: one command each, one run, saved only by rank 0."""
    network = "athanor-tests"
    subprocess.run(["docker", "network", "rm", network], capture_output=True)
    tools.run("docker", "network", "create", network)
    other = workspace.parent / "other"
    shutil.copytree(workspace, other)
    checkout.own(other)
    began = time.monotonic()
    processes = []
    try:
        for rank, out in enumerate((workspace, other)):
            command = [
                checkout.folder / "train_cuda.sh", "--docker", "--cpu", "--preset", "debug", "--out", out,
                "--midi-root", out / "data/demo/midi", "--skip-manifests", "--skip-spectocloud",
                "--nnodes", 2, "--node-rank", rank, "--master-addr", "node0",
            ]  # fmt: skip
            if rank == 0:
                command.append("--skip-export")
            place_in_network = f"--network {network} --network-alias node{rank}"
            processes.append(checkout.start(*command, ATHANOR_DOCKER_RUN=place_in_network))
        output = [Output(process) for process in processes]
        codes = [one.code(240) for one in output]
        assert codes == [0, 0], output[0].text + output[1].text
        record_property("figure", f"two hosts, two ranks: {time.monotonic() - began:.0f} s")
        assert "on CPU x 2" in output[0].text
        assert (workspace / "checkpoints/midi_generator/best.pt").is_file()
        assert not (other / "checkpoints/midi_generator/best.pt").exists()
        assert "Export" not in output[1].text
    finally:
        for process in processes:
            process.terminate()
            process.wait(60)
        subprocess.run(["docker", "network", "rm", network], capture_output=True)


def test_a_torch_without_cuda_is_refused_on_a_gpu_host(engine, checkout, image):
    """On a fake GPU host: the probe succeeds, `--gpus all` reaches the container, and a torch without CUDA is refused
    instead of training on the CPU in silence."""
    if not engine.fake_gpu:
        pytest.skip("an engine was running before the tests: it was not started with the fake GPU toolkit")
    done = checkout.runner(*NOTHING)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "a GPU is requested" in done.stdout + done.stderr
    seen = checkout.run("docker", "run", "--rm", "--gpus", '"device=0,1"', "--entrypoint", "env", image).stdout
    assert "NVIDIA_VISIBLE_DEVICES=0,1" in seen


def test_a_host_without_a_gpu_trains_on_the_cpu_with_a_message(engine, checkout, image):
    if engine.fake_gpu or Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this engine hands out GPUs")
    done = checkout.runner(*NOTHING)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no NVIDIA GPU: training on the CPU" in done.stdout
