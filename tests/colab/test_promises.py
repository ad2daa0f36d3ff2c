"""Every line of the checklist that Colab support was built from, as a case: what has to be there, and what it does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile

import nbformat
import pytest
import yaml

from training.colab.data import upload_data_files
from training.colab.surroundings import ColabError

from .conftest import PROJECT

NOTEBOOK = PROJECT / "notebooks/train_colab.ipynb"
CONFIG = PROJECT / "training/configs/mistral_lora_config.yaml"
PACK = PROJECT / "scripts/prepare_data_for_upload.sh"


def code() -> list[str]:
    """The code cells of the notebook, after the parameters."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if "parameters" not in cell.metadata.get("tags", [])]


def page() -> str:
    return " ".join((PROJECT / "docs/training_colab_setup.md").read_text().split())


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["training/requirements.txt", "training/configs/mistral_lora_config.yaml", "training/configs/colab_setup.yaml",
     "training/colab_setup.py", "notebooks/train_colab.ipynb", "docs/training_colab_setup.md",
     "scripts/prepare_data_for_upload.sh", "tests/training/test_environment_setup.py", "training/train.py"],
)  # fmt: skip
def test_a_promised_file_is_there_and_tracked(name):
    assert (PROJECT / name).is_file()
    listed = subprocess.run(["git", "ls-files", name], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode == 0:  # a checkout, and no archive of it
        assert listed.stdout.strip() == name


def test_no_data_file_is_tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode == 0:
        large = (".jsonl", ".parquet", ".pt", ".zip", ".safetensors")
        assert [name for name in listed.stdout.split("\0") if name.endswith(large)] == []


def test_the_requirements_are_the_locks():
    lines = [line for line in (PROJECT / "training/requirements.txt").read_text().splitlines() if line[:1] != "#"]
    assert lines == ["-r ../requirements/sql.lock"] and (PROJECT / "requirements/sql.lock").is_file()


def test_the_readme_leads_to_colab():
    text = (PROJECT / "README.md").read_text()
    assert "colab-badge.svg" in text and "docs/training_colab_setup.md" in text
    assert "notebooks/train_colab.ipynb" in text


# -- the notebook --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "holds"),
    [
        (1, "!nvidia-smi"),
        (2, "drive.mount(DRIVE)"),
        (2, '"clone", "--quiet", REPOSITORY'),
        (2, '"checkout", "--quiet", REF'),
        (3, "setup_environment(DOMAIN"),
        (4, "upload_data_files(DATA"),
        (5, "setup_colab_environment("),
        (6, "start_training(DOMAIN"),
        (7, 'notebook.start(f"--logdir {job.out}/runs")'),
        (7, "follow_training()"),
        (8, "finish("),
    ],
)
def test_the_cells_of_the_notebook_do_what_was_promised_in_this_order(cell, holds):
    assert holds in code()[cell - 1]


def test_nothing_in_the_notebook_installs_into_the_kernel_or_links_to_the_drive():
    text = "\n".join(code())
    assert "pip install" not in text and "ln -s" not in text and "symlink" not in text


# -- the configuration ---------------------------------------------------------------------------------------------


def test_the_configuration_has_the_paths_and_intervals_that_were_promised():
    config = yaml.safe_load(CONFIG.read_text())
    assert config["training"]["output_dir"].startswith("/content/drive/MyDrive/")
    assert config["training"]["save_strategy"] == "steps" and config["training"]["save_steps"] == 500
    assert config["training"]["save_total_limit"] == 2
    assert all(config["data"][f"{part}_file"].startswith("/content/data/") for part in ("train", "val", "test"))


def test_a_job_from_the_configuration_keeps_its_copies_where_output_dir_points(tmp_path, monkeypatch):
    from training import train

    ran: list[list[str]] = []
    monkeypatch.setattr(train.os, "execv", lambda program, words: ran.append(words))
    monkeypatch.setenv("ATHANOR_PYTHON", sys.executable)
    train.main(["--config", str(CONFIG), "--dialect", "postgres"])
    train.main(["--config", str(CONFIG), "--persist", str(tmp_path)])
    place = "/content/drive/MyDrive/sql-codegen-models"
    assert ran[0][1:] == ["sql", "--config", str(CONFIG), "--dialect", "postgres", "--persist", place]
    assert ran[1][1:] == ["sql", "--config", str(CONFIG), "--persist", str(tmp_path)]
    (tmp_path / "own.yaml").write_text("training: {epochs: 1}\n")
    train.main(["--config", str(tmp_path / "own.yaml"), "--domain", "music"])
    assert ran[2][1:] == ["music", "--config", str(tmp_path / "own.yaml")]
    assert train.main(["--config", "nowhere.yaml"]) == 2 and len(ran) == 3


def test_the_command_of_the_checklist_starts_the_runner(tmp_path):
    """`python -m training.train --config ...`, up to the refusal of a drive that is not mounted here."""
    words = [sys.executable, "-m", "training.train", "--config", "training/configs/mistral_lora_config.yaml"]
    environment = {**os.environ, "ATHANOR_PYTHON": sys.executable}
    done = subprocess.run([*words, "--dry-run"], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert "is used as --persist" in done.stdout and done.returncode == 2
    assert "is the drive mounted?" in done.stderr


# -- packing data --------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data/processed"
    folder.mkdir(parents=True)
    for part in ("train", "val", "test"):
        (folder / f"{part}_postgres.jsonl").write_text(f'{{"{part}": 1}}\n' * 100)
    return folder


def pack(data, *words):
    command = [PACK, *words]
    return subprocess.run(command, cwd=data.parents[1], capture_output=True, text=True, timeout=60)


def test_data_is_packed_with_a_digest_and_the_lines_to_upload_it(data):
    assert os.access(PACK, os.X_OK)
    done = pack(data)
    assert done.returncode == 0, done.stderr
    archive = data.parents[1] / "data.zip"
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == ["test_postgres.jsonl", "train_postgres.jsonl", "val_postgres.jsonl"]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (archive.parent / "data.zip.sha256").read_text() == f"{digest}  data.zip\n"
    for words in ("Google Drive", "release", "wget", "/content/drive/MyDrive/", "/releases/download/"):
        assert words in done.stdout


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(data):
    pack(data)
    first = (data.parents[1] / "data.zip").read_bytes()
    for path in data.iterdir():
        os.utime(path, (1, 1))
    pack(data)
    assert (data.parents[1] / "data.zip").read_bytes() == first


def test_files_that_are_missing_or_empty_are_refused_with_3(data):
    (data / "val_postgres.jsonl").unlink()
    done = pack(data)
    assert done.returncode == 3 and "must have one file val*.jsonl" in done.stderr
    (data / "val_postgres.jsonl").touch()
    assert pack(data).returncode == 3
    assert pack(data, "data/processed", "test_postgres.jsonl").returncode == 0
    assert pack(data, "data/processed", "other").returncode == 3
    assert pack(data, "nowhere").returncode == 3 and pack(data, "--fast").returncode == 2


def test_an_archive_beyond_the_limit_is_refused_unless_it_is_wanted(data, tmp_path):
    with (data / "train_postgres.jsonl").open("wb") as file:
        file.write(os.urandom(3_000_000))
    limited = tmp_path / "project"
    for name in ("scripts/prepare_data_for_upload.sh", "scripts/environment.sh", "training/configs/colab_setup.yaml"):
        (limited / name).parent.mkdir(parents=True, exist_ok=True)
        (limited / name).write_text((PROJECT / name).read_text().replace("size_limit_mb: 500", "size_limit_mb: 2"))
    script = limited / "scripts/prepare_data_for_upload.sh"
    script.chmod(0o755)
    done = subprocess.run([script], cwd=data.parents[1], capture_output=True, text=True)
    assert done.returncode == 3 and "larger than 2 MB" in done.stderr and "s3://" in done.stderr
    assert not (data.parents[1] / "data.zip").exists()
    done = subprocess.run([script, "--allow-large"], cwd=data.parents[1], capture_output=True, text=True)
    assert done.returncode == 0 and (data.parents[1] / "data.zip").exists()


@pytest.fixture
def many(tmp_path):
    """A folder of many small files, in folders of their own."""
    folder = tmp_path / "project/songs"
    for number in range(30):
        path = folder / f"{'audio' if number % 2 else 'midi'}/ä {number:02}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 40_000)
    return folder


def test_many_small_files_become_a_few_large_ones_that_are_read_straight_from_the_drive(many, tmp_path, capsys):
    done = pack(many.parent / "data/x", "--out", "songs.tar", "--split", "1", "songs", ".")
    assert done.returncode == 0, done.stderr
    assert 'DATA = "/content/drive/MyDrive/FOLDER/songs-*.tar"' in done.stdout
    parts = sorted(many.parent.glob("songs-*.tar"))
    assert [path.name for path in parts] == ["songs-000.tar", "songs-001.tar"]
    before = [path.read_bytes() for path in parts]
    for path in many.rglob("*.bin"):
        os.utime(path, (1, 1))
    pack(many.parent / "data/x", "--out", "songs.tar", "--split", "1", "songs", ".")
    assert [path.read_bytes() for path in parts] == before
    target = upload_data_files(many.parent / "songs-*.tar", ["audio", "midi"], folder=tmp_path / "content")
    names = sorted(path.relative_to(many).as_posix() for path in many.rglob("*.bin"))
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()) == names
    assert all((target / name).read_bytes() == (many / name).read_bytes() for name in names)
    with pytest.raises(ColabError, match=r"has no file songs-\*.tgz"):
        upload_data_files(many.parent / "songs-*.tgz", folder=tmp_path / "other")


@pytest.mark.parametrize("damage", ["bit", "cut", "other"])
def test_a_damaged_tar_leaves_nothing(damage, many, tmp_path):
    assert pack(many.parent / "data/x", "--out", "songs.tar", "songs", ".").returncode == 0
    archive = many.parent / "songs.tar"
    content = bytearray(archive.read_bytes())
    content[600] ^= 1
    archive.write_bytes({"bit": bytes(content), "cut": archive.read_bytes()[:700_000], "other": b"x" * 20_000}[damage])
    with pytest.raises(ColabError, match=r"another file than the one that was packed|is damaged or no .tar"):
        upload_data_files(archive, folder=tmp_path / "content")
    assert list((tmp_path / "content").iterdir()) == []


@pytest.mark.parametrize("name", ["../planted", "/planted", "link", "device"])
def test_a_tar_with_an_entry_that_leads_elsewhere_is_refused(name, tmp_path):
    kinds = {"link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kinds.get(name, tarfile.REGTYPE), "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(ColabError, match=f"has an entry that is refused, '{name}'"):
        upload_data_files(tmp_path / "data.tar", folder=tmp_path / "content")
    assert list((tmp_path / "content").iterdir()) == [] and not (tmp_path / "planted").exists()


def test_parts_need_a_tar_and_a_number(data):
    assert pack(data, "--split", "1").returncode == 2
    assert pack(data, "--out", "a.tar", "--split", "0").returncode == 2


# -- what the page explains ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["58.99", "600 units", "100 of 600 units", "fixed sum a month", "not unlimited runs", "Sessions end", "steps=500",
     "A100, L4 or T4", "only then prints `safe`", "a rented A100", "Run all", "google.colab",
     "papermill 02_train_tabular.ipynb out.ipynb -p SYMBOL MES -p HORIZON 20 -p MODEL xgboost"],
)  # fmt: skip
def test_the_page_explains_what_was_promised(words):
    assert words in page()


def test_what_the_page_prints_of_costs_follows_from_the_settings(monkeypatch):
    from training.colab_setup import load_settings, runs_a_month

    monkeypatch.setenv("ATHANOR_PYTHON", sys.executable)
    settings = load_settings()
    text = runs_a_month(10, settings.compute.units_per_hour["A100"], settings)
    assert text.startswith("100 compute units (9.83 USD); 6 such runs") and "9.83 USD" in page()
