"""Docker or native mode, the choice of the image, the GPU, and the options of containers: on simulated hosts."""

from __future__ import annotations

import os

import pytest

from .conftest import stages, value

STAGES = ["doctor", "prepare", "train", "train", "evaluate", "evaluate", "export", "verify", "budget"]


# -- which mode ----------------------------------------------------------------------------------------------------


def test_where_an_engine_answers_every_stage_runs_in_a_container(host, tmp_path):
    host.has_docker()
    done, calls = host.run("--cpu", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "Running in containers" in done.stdout
    assert stages(calls)[1] == STAGES


@pytest.mark.parametrize("sign", [".dockerenv", "run/.containerenv", "cgroup", "kubernetes"])
def test_inside_a_container_it_runs_natively_and_reports_that(host, sign):
    host.has_docker()
    environment = {"ATHANOR_PYTHON": "/bin/true"}
    if sign == "cgroup":
        (host.root / "proc/1").mkdir(parents=True)
        (host.root / "proc/1/cgroup").write_text("0::/docker/0123\n")
    elif sign == "kubernetes":
        environment["KUBERNETES_SERVICE_HOST"] = "10.0.0.1"
    else:
        (host.root / sign).parent.mkdir(exist_ok=True)
        (host.root / sign).touch()
    done, calls = host.run("--cpu", **environment)
    assert done.returncode == 0 and not calls
    assert "Running natively: this is a container already." in done.stdout


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "sudo usermod -aG docker"),
        ("Cannot connect to the Docker daemon. Is the docker daemon running?", "sudo systemctl start docker"),
        (None, "Docker is not installed"),
    ],
)
def test_without_an_engine_the_reason_is_printed_and_docker_mode_is_refused(host, says, reason):
    environment = {"ENGINE_SAYS": says} if says else {}
    if says:
        host.has_docker()
    else:
        host.without("docker")
    done, _ = host.run("--docker", "--cpu", **environment)
    assert done.returncode == 6
    assert reason in done.stderr and "--docker" in done.stderr
    done, _ = host.run("--cpu", "--dry-run", **environment)
    assert done.returncode == 0
    assert "Running natively: " in done.stdout and reason in done.stdout


def test_native_is_forced_over_an_engine(host):
    host.has_docker()
    done, calls = host.run("--native", "--cpu", ATHANOR_PYTHON="/bin/true")
    assert done.returncode == 0 and not calls


# -- the image -----------------------------------------------------------------------------------------------------


def build(calls):
    return next((call for call in calls if call[:2] == ["buildx", "build"]), None)


def inputs(call):
    return next(word for word in call if word.startswith("athanor.inputs=")).partition("=")[2]


def test_a_wheel_that_the_host_brings_comes_before_the_choice(host):
    host.has_docker()
    host.has_driver("550.54.15")
    (host.project / "wheelhouse/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    _, calls = host.run(BUILD_ENDS="1")
    assert "TORCH_INDEX=" in build(calls)


def test_it_builds_when_and_only_when_what_the_image_is_made_from_changed(host, tmp_path):
    host.has_docker()
    _, calls = host.run("--cpu", "--out", tmp_path / "out")
    made = inputs(build(calls))
    _, calls = host.run("--cpu", "--out", tmp_path / "out", IMAGE_INPUTS=made)
    assert build(calls) is None
    _, calls = host.run("--cpu", "--out", tmp_path / "out", IMAGE_INPUTS=made, BASE_IMAGE="another")
    assert "BASE_IMAGE=another" in build(calls)
    for changed in ("training/new.py", "requirements/new.lock"):
        (host.project / changed).touch()
        _, calls = host.run("--cpu", "--out", tmp_path / "out", IMAGE_INPUTS=made)
        assert inputs(build(calls)) != made, changed
        (host.project / changed).unlink()
    done, calls = host.run("--cpu", "--skip-build", "--out", tmp_path / "out", IMAGE_INPUTS="other")
    assert build(calls) is None and "other sources" in done.stdout
    done, calls = host.run("--cpu", "--skip-build", "--out", tmp_path / "out")
    assert done.returncode == 6 and "there is no image" in done.stderr
    assert not stages(calls)[0]


def test_the_image_gets_the_packages_of_the_domains_that_are_named(host):
    host.has_docker()
    _, calls = host.run("--cpu", BUILD_ENDS="1")
    music = inputs(build(calls))
    assert "DOMAINS=music" in build(calls)
    _, calls = host.run("--cpu", BUILD_ENDS="1", IMAGE_INPUTS=music, DOMAINS="music ray")
    assert "DOMAINS=music ray" in build(calls) and inputs(build(calls)) != music


def test_a_build_that_fails_or_is_not_possible_stops_everything(host):
    host.has_docker()
    for environment in ({"BUILD_ENDS": "1"}, {"BUILDX": "1"}):
        done, calls = host.run("--cpu", **environment)
        assert done.returncode == 6 and not stages(calls)[0]
        assert "error: " in done.stderr


def test_files_for_a_mirror_are_secrets_of_the_build(host):
    host.has_docker()
    _, calls = host.run("--cpu", ATHANOR_PIP_CONF="/a/pip.conf", ATHANOR_CA_BUNDLE="/a/ca.pem", BUILD_ENDS="1")
    assert "id=pip_conf,src=/a/pip.conf" in build(calls) and "id=ca_bundle,src=/a/ca.pem" in build(calls)
    assert not any("build-arg" in word and "/a/" in word for word in build(calls))


@pytest.mark.parametrize(
    ("driver", "flags", "index"),
    [
        ("580.65.06", [], ""),
        ("550.54.15", [], "https://download.pytorch.org/whl/cu126"),
        ("550.54.15", ["--cpu"], "https://download.pytorch.org/whl/cpu"),
    ],
)
def test_the_image_gets_the_torch_that_fits_the_driver(host, driver, flags, index):
    host.has_docker()
    host.has_driver(driver)
    done, calls = host.run(*flags, BUILD_ENDS="1")
    assert f"TORCH_INDEX={index}" in build(calls), done.stderr


def test_a_driver_that_no_torch_runs_on_is_refused_before_a_build(host):
    host.has_docker()
    host.has_driver("470.82.01")
    done, calls = host.run()
    assert done.returncode == 6 and build(calls) is None
    assert "525.60.13" in done.stderr


# -- the GPU -------------------------------------------------------------------------------------------------------

NO_RUNTIME = 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].'


def test_a_gpu_that_can_be_used_is_given_and_demanded(host, tmp_path):
    host.has_docker()
    host.has_driver()
    done, calls = host.run("--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for call in stages(calls)[0]:
        assert value(call, "--gpus") == "all"
    train = next(call for call in stages(calls)[0] if "train" in call)
    assert value(train, "--device") == "cuda"


@pytest.mark.parametrize(
    ("layers", "output", "expected"),
    [
        (["driver", "broken smi"], NO_RUNTIME, "nvidia-smi fails on this host too"),
        (["driver"], NO_RUNTIME, "missing: the NVIDIA container toolkit"),
        (["driver", "nvidia-ctk"], NO_RUNTIME, "missing: the runtime"),
        (["driver", "nvidia-ctk"], "unknown or invalid runtime name: nvidia", "missing: the runtime"),
        (["driver", "nvidia-ctk"], "nvidia-container-cli: initialization error: nvml error: driver not loaded",
         "broken: the NVIDIA driver, as the toolkit sees it"),
        (["driver", "nvidia-ctk"], "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0",
         "too old: the NVIDIA driver"),
        (["driver", "nvidia-ctk"], 'OCI runtime create failed: exec: "nvidia-container-runtime-hook": not found',
         "broken: the runtime"),
        (["driver", "nvidia-ctk"], "no space left on device", "Docker itself"),
    ],
)  # fmt: skip
def test_the_layer_that_is_missing_is_named(host, layers, output, expected):
    """A host with a GPU that no container can use is refused, with what to do; training never falls back to the CPU."""
    host.has_docker()
    environment = {"PROBE_SAYS": output}
    host.has_driver()
    if "broken smi" in layers:
        # nvidia-smi is called once for the choice of torch, and again here
        environment["SMI_FAILS"] = "Failed to initialize NVML: Driver/library version mismatch"
    if "nvidia-ctk" in layers:
        host.has("nvidia-ctk")
    done, calls = host.run(**environment)
    print(done.stderr)
    assert done.returncode == 6 and not stages(calls)[0]
    assert expected in done.stderr and output in done.stderr and "--cpu" in done.stderr


def test_a_gpu_without_a_driver_is_reported_before_an_image_is_built(host):
    host.has_docker()
    host.has_gpu()
    done, calls = host.run(PROBE_SAYS=NO_RUNTIME)
    print(done.stderr)
    assert done.returncode == 6 and build(calls) is None
    assert "missing: the NVIDIA driver" in done.stderr and "--cpu" in done.stderr
    assert host.run("--cpu", "--dry-run")[0].returncode == 0


def test_a_host_without_a_gpu_trains_on_the_cpu_unless_gpus_are_demanded(host, tmp_path):
    host.has_docker()
    done, calls = host.run("--out", tmp_path / "out", PROBE_SAYS=NO_RUNTIME)
    assert done.returncode == 0 and "no NVIDIA GPU: training on the CPU" in done.stdout
    assert not any("--gpus" in call for call in stages(calls)[0])
    done, calls = host.run("--gpus", "2", "--out", tmp_path / "out", PROBE_SAYS=NO_RUNTIME)
    assert done.returncode == 6 and not stages(calls)[0]
    assert "this host has no NVIDIA GPU" in done.stderr


# -- a container ---------------------------------------------------------------------------------------------------


def test_a_container_is_confined_and_runs_as_the_caller(host, tmp_path):
    """The options that `docker run` gets; tests/docker checks their effect in a real container."""
    host.has_docker()
    (tmp_path / "out").mkdir()
    _, calls = host.run(
        "--cpu", "--out", tmp_path / "out", WANDB_API_KEY="a key", CUDA_VISIBLE_DEVICES="1", GOMP_SPINCOUNT="5",
        HF_TOKEN="a key", HF_HOME="/not/in/a/container",
    )  # fmt: skip
    for call in stages(calls)[0]:
        assert value(call, "--user") == f"{os.getuid()}:{os.getgid()}"
        for word in ("--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"):
            assert word in call
        assert value(call, "--pull") == "never"
        assert not {"-i", "-t", "-it", "--tty", "--interactive", "--privileged", "--publish", "-p"} & set(call)
        assert "WANDB_API_KEY" in call and "CUDA_VISIBLE_DEVICES" in call and "GOMP_SPINCOUNT" in call
        assert "HF_TOKEN" in call and "HF_HOME" not in call
        assert "ATHANOR_RUNNER" in call  # the time between stages is counted
        assert not any("a key" in word for word in call)
        assert any(word.startswith("--shm-size=") for word in call)


def test_an_object_store_is_no_mount_and_its_keys_are_passed_by_name(host, tmp_path):
    """Only where it is used; a file that a variable names is mounted. The image gets the client."""
    host.has_docker()
    key = tmp_path / "service account.json"
    key.write_text("{}")
    environment = {"AWS_SECRET_ACCESS_KEY": "a secret", "AZURE_STORAGE_ACCOUNT_NAME": "name",
                   "GOOGLE_APPLICATION_CREDENTIALS": str(key)}  # fmt: skip
    _, calls = host.run("--cpu", "--out", tmp_path / "out", "--persist", "gs://bucket/x", BUILD_ENDS="1", **environment)
    assert "DOMAINS=music clouds" in build(calls)
    done, calls = host.run("--cpu", "--out", tmp_path / "out", "--persist", "gs://bucket/x", **environment)
    assert done.returncode == 0, done.stderr
    for call in stages(calls)[0]:
        assert {*environment} <= {*call} and not any("a secret" in word for word in call)
        mounts = [call[at + 1] for at, word in enumerate(call) if word == "--mount"]
        assert f'type=bind,"source={key}","target={key}",readonly' in mounts
        assert not any("bucket" in mount for mount in mounts)
    _, calls = host.run("--cpu", "--out", tmp_path / "out", **environment)
    assert not any({*environment} & {*call} for call in stages(calls)[0]), "without an object store they are not needed"


def test_data_is_mounted_read_only_under_its_own_name_and_outputs_writable(host, tmp_path):
    host.has_docker()
    songs = tmp_path / 'so"ngs, all'
    for name in ("audio", "midi"):
        (songs / name).mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(songs / "midi")
    out = tmp_path / "out"
    _, calls = host.run("--cpu", "--data-mount", songs, "--midi-root", link, "--out", f"{out}/x/..")
    call = stages(calls)[0][1]
    mounts = [call[i + 1] for i, word in enumerate(call) if word == "--mount"]
    name = str(songs).replace('"', '""')
    assert f'type=bind,"source={name}/audio","target={name}/audio",readonly' in mounts
    assert f'type=bind,"source={name}","target={name}",readonly' in mounts
    assert f'type=bind,"source={link}","target={link}",readonly' in mounts
    assert f'type=bind,"source={name}/midi","target={name}/midi",readonly' in mounts
    for folder in ("data", "checkpoints", "exports", "cache", "runs"):
        assert f'type=bind,"source={out}/{folder}","target={out}/{folder}"' in mounts
        assert (out / folder).is_dir(), "Docker would have made it, as root"
    assert len(mounts) == 9
    assert value(call, "--midi-root") == str(link)


@pytest.mark.parametrize("folder", ["/", "/usr", "/usr/lib", "/proc", "/tmp"])
def test_a_folder_that_would_hide_the_image_is_refused(host, folder):
    host.has_docker()
    done, calls = host.run("--cpu", "--midi-root", folder, "--skip-spectocloud")
    assert done.returncode == 6 and not stages(calls)[0]
    assert "cannot be mounted" in done.stderr


@pytest.mark.parametrize(("code", "end"), [(3, 3), (75, 75), (137, 137), (125, 6)])
def test_the_runner_ends_with_the_exit_code_of_the_stage(host, tmp_path, code, end):
    """125 is Docker's own: the container never started."""
    host.has_docker()
    done, calls = host.run("--cpu", "--out", tmp_path / "out", FAIL_AT="prepare", FAIL_WITH=str(code))
    assert done.returncode == end
    assert stages(calls)[1] == ["doctor", "prepare"]


def test_several_hosts_start_torchrun_and_reach_each_other(host, tmp_path):
    host.has_docker()
    host.has_driver()
    flags = ["--nnodes", "2", "--master-addr", "10.0.0.1", "--gpus", "4", "--out", tmp_path / "out"]
    done, calls = host.run(*flags, "--node-rank", "1")
    assert done.returncode == 0, done.stderr
    runs, verbs = stages(calls)
    assert verbs == ["doctor", "prepare", "train", "train"], "rank 0 alone has checkpoints to evaluate and export"
    words = runs[2][runs[2].index("--") + 2 :]
    assert words[:6] == [
        "-m", "training.runner.launch", "--nnodes=2", "--node_rank=1", "--nproc_per_node=4", "--master_addr=10.0.0.1",
    ]  # fmt: skip
    assert value(runs[2], "--network") == "host"
    _, calls = host.run(*flags, "--node-rank", "0")
    assert stages(calls)[1] == STAGES


def test_dry_run_prints_the_commands_and_starts_no_container(host, tmp_path):
    host.has_docker()
    done, calls = host.run("--dry-run", "--out", tmp_path / "new")
    assert done.returncode == 0 and not stages(calls)[0] and build(calls) is None
    assert done.stdout.count("docker run ") == len(STAGES)
    assert not (tmp_path / "new").exists()


# -- a host without Python -----------------------------------------------------------------------------------------


def test_a_host_with_docker_alone_plans_in_the_image(host, tmp_path):
    """The folders that the command names are mounted into that container, and the plan is the same."""
    host.has_docker()
    host.without("python", "docker")
    data = tmp_path / "some data"
    data.mkdir()
    words = [
        "--cpu",
        "--midi-root",
        data,
        "--skip-spectocloud",
        "--persist",
        tmp_path / "drive",
        "--out",
        tmp_path / "out",
    ]
    done, calls = host.run(*words)
    assert done.returncode == 0, done.stderr
    looks = [call for call in calls if "training.runner" in call]
    assert [("--paths" in call) for call in looks] == [True, False]
    mounts = [looks[1][at + 1] for at, word in enumerate(looks[1]) if word == "--mount"]
    assert f'type=bind,"source={data}","target={data}",readonly' in mounts
    assert f'type=bind,"source={tmp_path}","target={tmp_path}",readonly' in mounts, "the folder around a new one"
    assert stages(calls)[1] == [
        "doctor",
        "restore",
        "prepare",
        "train",
        "evaluate",
        "export",
        "verify",
        "budget",
        "persist",
    ]
    assert calls.index(build(calls)) < calls.index(looks[0])
    done, calls = host.run("--cpu", "--midi-root", tmp_path / "nowhere")
    assert done.returncode == 2 and "is not a folder" in done.stderr and not stages(calls)[0]
    done, calls = host.run("--cpu", "--out", tmp_path / "out", "--persist", "s3://bucket/x")
    assert done.returncode == 0, done.stderr
    assert "DOMAINS=music clouds" in build(calls)


def test_a_host_with_neither_python_nor_docker_is_refused_with_what_to_install(host):
    host.without("python", "docker")
    done, calls = host.run()
    assert done.returncode == 6 and not calls
    assert "sudo apt-get install python3 python3-venv" in done.stderr


def test_an_image_has_what_data_by_url_and_wandb_need_and_only_then_the_keys(host):
    host.has_docker()
    key = {"AWS_ACCESS_KEY_ID": "a", "ATHANOR_MIDI_ROOT": "s3://bucket/midi"}
    _, calls = host.run("--cpu", "--wandb", "project", **key)
    assert "DOMAINS=music clouds wandb" in build(calls)
    runs, verbs = stages(calls)
    assert verbs[0] == "fetch" and all("AWS_ACCESS_KEY_ID" in run for run in runs)
    _, calls = host.run("--cpu", AWS_ACCESS_KEY_ID="a")
    assert all("AWS_ACCESS_KEY_ID" not in run for run in stages(calls)[0])
