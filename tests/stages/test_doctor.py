"""`doctor`: each check finds what is missing on a host."""

from __future__ import annotations

import importlib.machinery
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from training.cli import main
from training.data.rows import NO_SCHEMA
from training.domain import Domain, FamilyFacts, Finding
from training.errors import DataError, HostError, UsageError
from training.option import Option
from training.stages import doctor as room
from training.stages.doctor import doctor
from training.workspace import PROJECT, Workspace

GIB = 2**30


class Photos(Domain):
    """A domain whose stores take seven tenths of its files, and that needs a program."""

    word, title, sentence = "photos", "Photos", "Photographs."
    families = (
        FamilyFacts("first", "First", "", Path(), {}, "a", checkpoint_bytes=GIB // 4, export_bytes=GIB // 4),
        FamilyFacts("second", "Second", "", Path(), {}, "b", checkpoint_bytes=GIB // 12, export_bytes=GIB // 4),
    )
    options = (Option("photo-root", "folder", "photographs"), Option("photo-list", "file", "their names"))

    def schema(self):
        return NO_SCHEMA

    def demo(self, job):
        return {}

    def prepare(self, job):
        pass

    def checks(self, job):
        if shutil.which("develop"):
            yield Finding("ok", "develop", "installed")
        elif job.path("photo_root") is not None:
            yield Finding("fails", "develop", "missing", "Install it.")
        if job.path("photo_root") is not None and job.path("photo_root").name == "empty":
            yield Finding("fails", "photographs", "there are none", "Take some.", DataError.exit_code)

    def store_bytes(self, job):
        root = job.path("photo_root")
        return int(0.7 * sum(path.stat().st_size for path in root.iterdir())) if root else 0


PHOTOS = Photos()


@pytest.fixture
def look(tmp_path, capsys):
    """look(**options) -> findings by what they are about; `device` is cpu unless given."""

    def call(**options):
        options = {"device": "cpu", **options}
        named = {name: options.pop(name) for name in [*options] if name.endswith(("_root", "_list"))}
        found = doctor(Workspace(tmp_path / "out"), PHOTOS, named, **options)
        return {finding.about: finding for finding in found}

    (tmp_path / "out").mkdir()
    return call


def usage(total=100 * GIB, free=50 * GIB):
    return types.SimpleNamespace(total=total, used=total - free, free=free)


def test_this_host_is_ready_and_every_finding_is_printed(look, capsys):
    found = look()
    assert set(found) == {"host", "torch", "compiler", "/dev/shm", "disk", "clock", "outputs"}
    printed = capsys.readouterr().out
    assert all(finding.text in printed for finding in found.values())


def test_it_leaves_nothing_behind(look, tmp_path):
    look()
    assert list((tmp_path / "out").rglob("*")) == []


def test_the_verb_ends_with_the_environments_exit_code(tmp_path, monkeypatch, capsys):
    assert main(["doctor", "--out", str(tmp_path), "--device", "cpu"]) == 0
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage(free=10 * 2**20))
    assert main(["doctor", "--out", str(tmp_path), "--device", "cpu"]) == 6
    assert "disk" in capsys.readouterr().err


@pytest.mark.parametrize(("free", "state"), [(0.01, "fails"), (1.5, "note"), (50, "ok")])
def test_free_disk_space_is_compared_with_what_a_full_run_writes(look, monkeypatch, free, state):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage(free=int(free * GIB)))
    if state == "fails":
        with pytest.raises(HostError, match="disk"):
            look()
    else:
        assert look()["disk"].state == state


def test_the_needed_disk_space_is_that_of_the_domain_and_its_families(look, monkeypatch, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    with (photos / "a.raw").open("wb") as file:
        file.truncate(10 * GIB)  # sparse
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage(free=5 * GIB))
    monkeypatch.setattr(room.shutil, "which", lambda name: f"/bin/{name}")
    found = look(photo_root=photos)["disk"]
    assert found.state == "note"
    assert "checkpoints 2.0, cache 7.0, exports 0.5" in found.text


def test_space_used_by_earlier_runs_is_not_required_again(look, monkeypatch, tmp_path):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage(free=int(1.2 * GIB)))
    assert look()["disk"].state == "note"
    (tmp_path / "out" / "checkpoints").mkdir()
    with (tmp_path / "out" / "checkpoints" / "best.pt").open("wb") as file:
        file.truncate(3 * GIB)
    assert look()["disk"].state == "ok"


def test_small_shared_memory_is_noted(look, monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda p: usage(64 * 2**20) if str(p) == "/dev/shm" else usage())
    found = look()["/dev/shm"]
    assert found.state == "note" and "64 MiB" in found.text and "--shm-size" in found.do


def test_a_check_of_the_domain_can_refuse_the_host(look, monkeypatch, tmp_path):
    monkeypatch.setattr(room.shutil, "which", lambda name: f"/bin/{name}")
    assert look()["develop"].state == "ok"
    monkeypatch.setattr(room.shutil, "which", lambda name: None if name == "develop" else f"/bin/{name}")
    (tmp_path / "photos").mkdir()
    with pytest.raises(HostError, match="develop: missing"):
        look(photo_root=tmp_path / "photos")


def test_data_that_cannot_be_used_end_with_the_code_of_refused_data_unless_the_host_is_at_fault_too(
    look, monkeypatch, tmp_path
):
    monkeypatch.setattr(room.shutil, "which", lambda name: f"/bin/{name}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="photographs: there are none"):
        look(photo_root=tmp_path / "empty")
    monkeypatch.setattr(room.shutil, "which", lambda name: None if name == "develop" else f"/bin/{name}")
    with pytest.raises(HostError, match="not ready: develop: missing; photographs"):
        look(photo_root=tmp_path / "empty")


def test_a_missing_compiler_is_noted(look, monkeypatch):
    monkeypatch.setattr(room.shutil, "which", lambda name: "/bin/ffmpeg" if name == "ffmpeg" else None)
    assert look()["compiler"].state == "note"


def test_a_clock_that_is_behind_is_noted(look, monkeypatch):
    monkeypatch.setattr(room.time, "time", lambda: 1_000_000_000.0)
    assert look()["clock"].state == "note"


def test_outputs_of_someone_else_are_refused_by_name(tmp_path):
    """As an ordinary user in root's folder, or, for an ordinary user, in a folder that is closed."""
    folder = tmp_path / "out"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints").chmod(0o555)
    words = [sys.executable, "-m", "training", "doctor", "--out", str(folder), "--device", "cpu"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv here")
        if not all(parent.stat().st_mode & 1 for parent in (PROJECT, *PROJECT.parents)):
            pytest.skip("this checkout is in a folder that an ordinary user cannot enter")
        for parent in (folder, *folder.parents):
            if not parent.stat().st_mode & 1:
                parent.chmod(parent.stat().st_mode | 0o11)
        # without root's right to write everywhere
        words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups", *words]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)})
    assert done.returncode == 6 and "outputs: uid" in done.stderr, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  FAILS outputs")]
    assert str(folder / "checkpoints") in line and "chown" in done.stdout


def test_data_that_cannot_be_read_is_named(look, tmp_path, monkeypatch):
    monkeypatch.setattr(room.shutil, "which", lambda name: f"/bin/{name}")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "gone.raw").symlink_to("/nowhere/gone.raw")
    monkeypatch.setattr(PHOTOS.__class__, "store_bytes", lambda self, job: 0)
    found = look(photo_root=photos)["data"]
    assert found.state == "note" and "gone.raw" in found.text and "--data-mount" in found.do
    with pytest.raises(HostError, match="cannot be read"):
        look(photo_root=tmp_path / "absent")
    with pytest.raises(HostError, match=r"absent\.txt cannot be read"):
        look(photo_list=tmp_path / "absent.txt")
    (tmp_path / "names.txt").write_text("a")
    assert look(photo_list=tmp_path / "names.txt")["data"].state == "ok"


# -- the GPU: a simulated torch ----------------------------------------------------------------------------------------


class FakeCuda:
    def __init__(self, available=True, free=23 * GIB, total=24 * GIB, major=8, fails=""):
        self.available, self.memory, self.major, self.fails = available, (free, total), major, fails

    def is_available(self):
        return self.available

    def device_count(self):
        return 1

    def mem_get_info(self, index):
        return self.memory

    def get_arch_list(self):
        return ["sm_80", "sm_90"]

    def get_device_properties(self, index):
        return types.SimpleNamespace(name="A card", major=self.major, minor=0)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """installed(cuda, driver): simulate that such a torch is installed, before the real one, and that driver loaded."""
    site, loaded = tmp_path / "site", tmp_path / "driver"

    def call(cuda, driver):
        (site / "torch").mkdir(parents=True, exist_ok=True)
        (site / "torch-2.13.0.dist-info").mkdir(exist_ok=True)
        (site / "torch-2.13.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.13.0\n")
        (site / "torch" / "version.py").write_text(f"cuda: Optional[str] = {cuda!r}\n")
        spec = importlib.machinery.ModuleSpec("torch", None, origin=str(site / "torch" / "__init__.py"))
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__spec__=spec))
        loaded.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Tue Sep  1\n" if driver else "")
        monkeypatch.setattr(room, "DRIVER", loaded)
        monkeypatch.syspath_prepend(str(site))
        return sys.modules["torch"]

    return call


@pytest.fixture
def gpu(installed, look):
    def call(driver="580.65.06", **facts):
        cuda = FakeCuda(**facts)

        def ones(*_, **__):
            if cuda.fails:
                raise RuntimeError(cuda.fails)
            one = types.SimpleNamespace(item=lambda: 16.0)
            one.sum = lambda: one
            return type("Ones", (), {"__add__": lambda self, other: one})()

        vars(installed("13.0", driver)).update(cuda=cuda, ones=ones)
        return look(device="cuda")

    return call


def test_a_good_gpu_is_reported_with_its_memory(gpu):
    found = gpu()
    assert found["GPU 0"].state == "ok" and "23.0 of 24.0 GiB" in found["GPU 0"].text
    assert "580.65.06" in found["torch"].text and "CUDA 13.0" in found["torch"].text


@pytest.mark.parametrize(
    ("facts", "do"),
    [
        ({"free": 9 * GIB}, "nvidia-smi"),
        ({"free": 10 * GIB, "total": 11 * GIB}, "data.batch_size"),
        ({"major": 7}, "float16"),
    ],
)
def test_what_to_know_about_a_gpu_is_noted(gpu, facts, do):
    found = gpu(**facts)["GPU 0"]
    assert found.state == "note" and do in found.do


def test_a_gpu_that_torch_cannot_use_is_refused_with_the_build_that_fits(gpu, monkeypatch, tmp_path, capsys):
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\ncase $1 in *driver*) echo 550.54.15 ;; *) echo 8.6 ;; esac\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    with pytest.raises(HostError, match="finds no usable GPU"):
        gpu(driver="550.54.15", available=False)
    assert "CUDA 12.6" in capsys.readouterr().out
    with pytest.raises(HostError, match="no kernel image"):
        gpu(fails="CUDA error: no kernel image is available for execution on the device")


def test_a_torch_without_cuda_is_refused_where_a_gpu_is_demanded(installed, look, monkeypatch, tmp_path):
    installed(None, "580.65.06")
    with pytest.raises(HostError, match=r"a GPU is requested \(driver: 580\.65\.06\)"):
        look(device="cuda")
    installed(None, "")
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert look(device="auto")["GPU"].state == "note"


def test_too_few_gpus_are_refused(gpu, look):
    gpu()
    with pytest.raises(HostError, match="2 are requested"):
        look(device="cuda", gpus=2)


def test_the_build_is_read_without_importing_torch(tmp_path):
    code = (
        "import sys; from training.cli import main\n"
        f"code = main(['doctor', '--out', {str(tmp_path)!r}, '--device', 'cpu'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    assert f"torch {torch.__version__}, built for {built}; no GPU is requested" in done.stdout


def test_programs_get_the_findings_as_json_also_of_a_host_that_is_not_ready(tmp_path, capsys):
    words = ["doctor", "--out", str(tmp_path), "--json"]
    assert main([*words, "--device", "cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] and {"state": "ok", "about": "torch"}.items() <= report["findings"][1].items()
    (tmp_path / "file").touch()
    assert main(["doctor", "--out", str(tmp_path / "file"), "--device", "cpu", "--json"]) == 6
    out = capsys.readouterr()
    report = json.loads(out.out)
    failed = [finding for finding in report["findings"] if finding["state"] == "fails"]
    assert not report["ready"] and failed and failed[0]["do"] and failed[0]["text"] in out.err


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        (["midi_generator:training.epochs=2", "midi_generator:training.min_epochs=1"], ""),
        (["spectocloud:data.batch_size=4", "midi_generator:optim.learning_rate=1"], "midi_generator:.*not a setting"),
        (["midi_generator:training.epochs=many"], "training.epochs=many"),
    ],
)
def test_a_misspelt_setting_is_refused_before_data_is_prepared(changes, mistake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(room, "doctor", lambda *_, **__: [])
    words = [f"--set={change}" for change in changes]
    assert main(["doctor", "--out", str(tmp_path), *words]) == (UsageError.exit_code if mistake else 0)
    assert re.search(mistake, capsys.readouterr().err, re.DOTALL)
