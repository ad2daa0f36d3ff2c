"""The environment of a Colab notebook (training/colab_setup.py): where it runs, the drive, the GPU, checkpoints,
data."""

from __future__ import annotations

import functools
import hashlib
import http.server
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tests.colab.conftest import drive, session  # noqa: F401  fixtures
from training import colab_setup
from training.colab.surroundings import ColabError
from training.colab_setup import (
    check_gpu,
    detect_colab,
    setup_checkpointing,
    setup_colab_environment,
    setup_wandb,
    upload_data_files,
)

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """`gpu(NAME)`: nvidia-smi of a host with such a GPU; an empty name: none."""

    def set_up(name: str, memory: int = 40960, driver: str = "580.65.06") -> None:
        tool = tmp_path / "bin/nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\necho '{name}, {memory}, {driver}'\n" if name else "#!/bin/sh\nexit 9\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")

    return set_up


# -- where it runs -------------------------------------------------------------------------------------------------


def test_colab_colab_enterprise_and_other_hosts_are_distinguished(monkeypatch):
    assert detect_colab() == "colab"
    monkeypatch.setenv("VERTEX_PRODUCT", "COLAB_ENTERPRISE")
    assert detect_colab() == "enterprise"  # elsewhere: tests/colab/test_session.py


# -- the table -----------------------------------------------------------------------------------------------------


def test_a_session_with_everything_is_ready(drive, gpu, capsys):  # noqa: F811
    gpu("NVIDIA A100-SXM4-40GB")
    found = setup_colab_environment(settings=drive.settings(), needs_gpu=True)
    assert found.ok and found.persist == str(drive.place) and "A100" in found.gpu
    printed = capsys.readouterr().out
    for row in ("host    ok      Google Colab", "copies  ok", "GPU     ok", "time    ok", "Ready."):
        assert row in printed, printed


def test_every_problem_is_a_row_and_a_session_with_one_is_not_ready(drive, gpu, capsys):  # noqa: F811
    gpu("")
    (drive.control / "refuse").touch()
    found = setup_colab_environment(settings=drive.settings(), data="/nowhere/data.zip", needs_gpu=True)
    assert not found.ok and len(found.problems) == 3
    for part in ("copies: The drive was not mounted", "data: /nowhere/data.zip is not there", "GPU: There is no GPU"):
        assert any(problem.startswith(part) for problem in found.problems), found.problems
    assert "NOT ready: 3 problems" in capsys.readouterr().out


def test_copies_may_go_elsewhere_or_nowhere(session, gpu, tmp_path):  # noqa: F811
    gpu("Tesla T4")
    settings = session.settings()
    assert setup_colab_environment(persist="none", settings=settings).persist == ""
    assert setup_colab_environment(persist="gs://bucket/a", settings=settings).persist == "gs://bucket/a"
    assert setup_colab_environment(persist=str(tmp_path / "copies"), settings=settings).persist.endswith("copies")
    (tmp_path / "file").touch()
    assert not setup_colab_environment(persist=str(tmp_path / "file/a"), settings=settings).ok


# -- the GPU -------------------------------------------------------------------------------------------------------


def test_the_expected_gpu_is_named_with_its_units(gpu, capsys):
    gpu("NVIDIA A100-SXM4-40GB")
    found = check_gpu("A100")
    assert (found.memory_gb, found.units_per_hour, found.ok) == (40.0, 10.0, True)
    assert "WARNING" not in found.message and "10 compute units an hour: 60 hours a month" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Tesla T4", "NVIDIA L4", "Tesla V100-SXM2-16GB"])
def test_another_gpu_is_warned_about(gpu, name):
    gpu(name)
    assert "WARNING: not the A100 that was expected" in check_gpu("A100").message


def test_no_gpu_stops_and_an_old_driver_for_blackwell_too(gpu):
    gpu("")
    with pytest.raises(ColabError, match=r"no GPU in this session: Runtime -> Change runtime type"):
        check_gpu()
    assert not check_gpu(required=False).ok
    gpu("NVIDIA RTX PRO 6000 Blackwell", 97887, "550.54.15")
    with pytest.raises(ColabError, match=r"needs driver 580 or newer, and this session has 550"):
        check_gpu()


# -- checkpoints ---------------------------------------------------------------------------------------------------


def test_checkpoints_are_saved_by_minutes_and_by_steps(session):  # noqa: F811
    assert setup_checkpointing() == ["--set=training.save_minutes=10"]
    assert setup_checkpointing(5, 500, 2) == [
        "--set=training.save_minutes=5", "--set=training.save_steps=500", "--set=training.keep=2",
    ]  # fmt: skip
    settings = session.settings(save_steps=500, save_minutes=30)
    assert setup_checkpointing(settings=settings)[:2] == [
        "--set=training.save_minutes=30", "--set=training.save_steps=500",
    ]  # fmt: skip


def test_the_key_of_wandb_comes_from_the_secrets_and_is_not_printed(session, monkeypatch, capsys):  # noqa: F811
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not setup_wandb() and "W&B is off: there is no secret WANDB_API_KEY" in capsys.readouterr().out
    (session.control / "secrets").mkdir()
    (session.control / "secrets/WANDB_API_KEY").write_text("a" * 40)
    import os

    assert setup_wandb() and os.environ["WANDB_API_KEY"] == "a" * 40 and "aaa" not in capsys.readouterr().out
    monkeypatch.setenv("WANDB_API_KEY", "")  # undone at the end


# -- data ----------------------------------------------------------------------------------------------------------


def packed(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_data_is_copied_to_the_local_disk_once_and_what_is_missing_is_named(session, tmp_path):  # noqa: F811
    settings, source = session.settings(), tmp_path / "raw"
    source.mkdir()
    (source / "train.jsonl").write_text("1\n")
    (source / "val.jsonl").touch()
    with pytest.raises(ColabError, match=r"does not have val.jsonl, test.jsonl; .*has brought train.jsonl, val.jsonl"):
        upload_data_files(source, ["train.jsonl", "val.jsonl", "test.jsonl"], settings=settings)
    folder = upload_data_files(source, ["train.jsonl"], settings=settings)
    assert (folder / "train.jsonl").read_text() == "1\n" and folder == session.content / "data"
    (source / "train.jsonl").unlink()
    assert upload_data_files(source, ["train.jsonl"], settings=settings) == folder, "it is not read again"


def test_an_archive_is_verified_by_the_digest_beside_it_and_unpacked(session, tmp_path):  # noqa: F811
    archive = packed(tmp_path / "data.zip", **{"train.jsonl": "1\n", "more/a": "2"})
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (tmp_path / "data.zip.sha256").write_text(f"{digest}  data.zip\n")
    folder = upload_data_files(archive, ["train.jsonl", "more"], settings=session.settings())
    assert (folder / "more/a").read_text() == "2" and not (folder / "data.zip").exists()
    (tmp_path / "data.zip.sha256").write_text(f"{'0' * 64}  data.zip\n")
    with pytest.raises(ColabError, match="another file than the one that was packed"):
        upload_data_files(archive, settings=session.settings(), folder=tmp_path / "other")


def test_archives_that_lead_out_of_the_folder_or_are_damaged_are_refused(session, tmp_path):  # noqa: F811
    target, settings = tmp_path / "data", session.settings()
    for name in ("../evil", "/tmp/evil-athanor"):
        with pytest.raises(ColabError, match=r"has an entry that is refused"):
            upload_data_files(packed(tmp_path / "a.zip", **{name: "1", "good": "2"}), folder=target, settings=settings)
        assert not (target / "good").exists() and not (tmp_path / "evil").exists()
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ColabError, match="'link': it is a link"):
        upload_data_files(tmp_path / "b.zip", folder=target, settings=settings)
    content = packed(tmp_path / "c.zip", a="x" * 1000).read_bytes()
    (tmp_path / "c.zip").write_bytes(content.replace(b"x" * 500, b"y" * 500, 1))
    with pytest.raises(ColabError, match="damaged at a"):
        upload_data_files(tmp_path / "c.zip", folder=target, settings=settings)
    (tmp_path / "d.zip").write_bytes(content[:100])
    with pytest.raises(ColabError, match=r"damaged or no \.zip"):
        upload_data_files(tmp_path / "d.zip", folder=target, settings=settings)


def test_data_is_downloaded_or_uploaded_with_the_browser(session, tmp_path):  # noqa: F811
    packed(tmp_path / "data.zip", **{"train.jsonl": "1\n"})
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/data.zip"
        folder = upload_data_files(url, ["train.jsonl"], settings=session.settings())
        assert (folder / "train.jsonl").read_text() == "1\n"
        with pytest.raises(ColabError, match="was not downloaded: HTTP Error 404"):
            upload_data_files(url.replace("data", "other"), settings=session.settings())
        server.shutdown()
    (session.control / "uploads").mkdir()
    (session.control / "uploads/a.jsonl").write_text("3\n")
    assert (upload_data_files("browser", settings=session.settings()) / "a.jsonl").read_text() == "3\n"


def test_the_notebooks_folder_has_the_same_functions():
    from tests.colab.conftest import PROJECT

    sys.path.insert(0, str(PROJECT / "notebooks"))
    try:
        from utils import colab_setup as found

        assert Path(found.__file__) == PROJECT / "notebooks/utils/colab_setup.py"
        for name in ("estimate_training_time_remaining", "setup_colab_environment"):
            assert getattr(found, name) is getattr(colab_setup, name)
    finally:
        sys.path.remove(str(PROJECT / "notebooks"))
        for name in [name for name in sys.modules if name == "utils" or name.startswith("utils.")]:
            del sys.modules[name]
