"""clouds/: what runs on a rented host is a command of the runner, keys are never in a file, and a job is stopped and
continued as it says. `make check-clouds` validates two of the files with the schemas of the programs that read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from training.registry import domains
from training.runner.options import parse
from training.workspace import PROJECT

CLOUDS = PROJECT / "clouds"
#: Names of RunPod's PodCreateInput (POST https://rest.runpod.io/v1/pods).
RUNPOD = {
    "allowedCudaVersions", "cloudType", "computeType", "containerDiskInGb", "containerRegistryAuthId",
    "countryCodes", "cpuFlavorIds", "cpuFlavorPriority", "dataCenterIds", "dataCenterPriority", "dockerEntrypoint",
    "dockerStartCmd", "env", "globalNetworking", "gpuCount", "gpuTypeIds", "gpuTypePriority", "imageName",
    "interruptible", "locked", "minDiskBandwidthMBps", "minDownloadMbps", "minRAMPerGPU", "minUploadMbps",
    "minVCPUPerGPU", "name", "networkVolumeId", "ports", "supportPublicIp", "templateId", "vcpuCount", "volumeInGb",
    "volumeMountPath",
}  # fmt: skip
JOB = "market --bars s3://bucket/bars --symbols 'MES,MGC' --preset small"


@pytest.fixture
def pod(tmp_path):
    """A host with a copy of the project, whose runner writes its words to `words` and ends with `code`."""

    class Pod:
        project, tools = tmp_path / "workspace/athanor", tmp_path / "tools"

        def run(self, script: str, folder, *, code: int = 0, **environment: str):
            (self.project / "train_cuda.sh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > words\nexit {code}\n')
            (self.project / "train_cuda.sh").chmod(0o755)
            clean = {"PATH": f"{self.tools}:{os.environ['PATH']}", "JOB": JOB, "COPIES": "s3://bucket/copies"}
            done = subprocess.run(
                ["bash", "-c", script], cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=60
            )
            return done, self.words()

        def words(self):
            file = self.project / "words"
            return file.read_text().splitlines() if file.exists() else []

        def has(self, name: str, text: str) -> None:
            (self.tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.tools / name).chmod(0o755)

    made = Pod()
    made.tools.mkdir()
    made.project.mkdir(parents=True)
    shutil.copytree(CLOUDS, made.project / "clouds", ignore=shutil.ignore_patterns("__pycache__"))
    (made.project / "scripts").mkdir()
    for name in ("stop_host.sh", "environment.sh"):
        shutil.copy2(PROJECT / "scripts" / name, made.project / "scripts")
    for name in ("ffmpeg", "git", "apt-get", "sudo"):
        made.has(name, f'echo {name} "$@" >> {tmp_path}/calls')
    return made


def accepted(words, tmp_path):
    """The words as the runner parses them."""
    assert words[-2:] == ["--persist", "s3://bucket/copies"] and "--native" in words
    command = parse([*words, "--out", str(tmp_path)], domains())
    assert command.domain.word == "market" and command.options["symbols"] == "MES,MGC" and command.preset == "small"
    assert [str(one.address) for one in command.fetched] == ["s3://bucket/bars"]


def test_skypilot_runs_the_job_and_recovers_from_75_alone(pod, tmp_path):
    content = yaml.safe_load((CLOUDS / "skypilot.yaml").read_text())
    done, words = pod.run(content["run"], pod.project)
    assert done.returncode == 0, done.stderr
    accepted(words, tmp_path)
    resources = content["resources"]
    assert resources["job_recovery"]["recover_on_exit_codes"] == [75] and resources["use_spot"]
    assert resources["job_recovery"]["max_restarts_on_errors"] == 0 and resources["autostop"]["down"]
    done, _ = pod.run(content["run"], pod.project, COPIES="")
    assert done.returncode != 0 and "--env COPIES=s3://" in done.stderr
    pod.has("setup_env.sh", 'printf "%s " "$@" > words')
    shutil.copy2(pod.tools / "setup_env.sh", pod.project / "scripts")
    assert pod.run(content["setup"], pod.project)[1] == ["market clouds "]


def test_dstack_runs_the_job_and_continues_it_after_an_interruption(pod, tmp_path):
    content = yaml.safe_load((CLOUDS / "dstack.yml").read_text())
    assert content["shell"] == "bash", "the words of a job are an array"
    done, words = pod.run("\n".join(content["commands"]), pod.project)
    assert done.returncode == 0, done.stderr
    accepted(words, tmp_path)
    assert content["retry"]["on_events"] == ["no-capacity", "interruption"]


def test_a_pod_of_runpod_clones_the_code_and_runs_the_job(pod, tmp_path):
    content = json.loads((CLOUDS / "runpod.json").read_text())
    assert set(content) <= RUNPOD, f"RunPod does not know {set(content) - RUNPOD}"
    script = content["dockerStartCmd"][-1].replace("/workspace", str(pod.project.parent))
    done, words = pod.run(script, tmp_path, REPOSITORY="r", REF="abc")
    assert done.returncode == 0, done.stderr
    accepted(words, tmp_path)
    assert (tmp_path / "calls").read_text() == "git -C athanor checkout --quiet abc\n", "the code is there already"


def test_a_start_of_a_vast_instance_runs_the_job_in_the_background(pod, tmp_path):
    text = (CLOUDS / "vast_onstart.sh").read_text()
    assert len(text) < 4048, "Vast.ai's limit"
    script = text.replace("/workspace", str(pod.project.parent)) + "\nwait\n"
    done, words = pod.run(script, tmp_path, REPOSITORY="r")
    assert done.returncode == 0, done.stderr
    accepted(words, tmp_path)


@pytest.mark.parametrize(("code", "stopped"), [(0, False), (2, True), (6, True), (75, False)])
def test_a_job_that_was_refused_does_not_leave_a_pod_running(pod, tmp_path, code, stopped):
    """One that began stops the pod itself: see test_stop_host.py."""
    pod.has("runpodctl", f'echo runpodctl "$@" >> {tmp_path}/calls')
    done, _ = pod.run("exec bash clouds/pod.sh", pod.project, code=code, ATHANOR_STOP_HOST="1", RUNPOD_POD_ID="a")
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else ""
    assert ("runpodctl stop pod a" in calls) == stopped


def test_no_file_holds_a_key():
    for path in CLOUDS.iterdir():
        if path.is_file():
            for name, value in re.findall(
                r"(AWS_\w*KEY\w*|\w*TOKEN\w*|\w*API_KEY)[\"']?\s*[:=]\s*(\S+)", path.read_text()
            ):
                assert value.strip("\",'\\") in ("", "...", "{{") or value.startswith('"{{'), (
                    f"{path.name}: {name}={value}"
                )
