"""Downloads of a base: which files, of which commit, and what is reported where one cannot be had."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.domains.sql.hub_server import HubServer, Repository
from training import cli
from training.domain import Job
from training.domains.sql.bases import hub
from training.domains.sql.bases.choosing import settings_of
from training.domains.sql.bases.origin import origin_of
from training.domains.sql.bases.wanted import wanted_of
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.errors import HostError, UsageError
from training.workspace import Workspace

NAME, FIRST, SECOND = "some-org/Tiny-Llama", "a" * 39 + "1", "b" * 39 + "2"
CARD = "---\nlicense: apache-2.0\n---\n# Tiny\n"
OWN = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
       "chat_template.jinja", "README.md", "LICENSE"}  # fmt: skip


@pytest.fixture
def place(tiny_base, tmp_path):
    """A model as a repository has it, with files that must not be downloaded."""
    folder = shutil.copytree(tiny_base, tmp_path / "first")
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("Apache License\n")
    for name in ("modeling_tiny.py", "pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors",
                 "training_args.bin", ".gitattributes"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not this one")
    return folder


@pytest.fixture
def server(place, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer() as server:
        server.repositories[NAME] = Repository({FIRST: place}, {"main": FIRST}, card={"license": "apache-2.0"})
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def fetch(tmp_path, revision="main", name=NAME):
    lines: list[str] = []
    return hub.fetch(tmp_path / "cache", wanted_of(f"{name}@{revision}"), lines.append), "\n".join(lines)


def test_a_download_holds_the_models_files_and_no_code(server, place, tmp_path):
    folder, lines = fetch(tmp_path)
    assert {path.name for path in folder.iterdir()} == OWN | {"origin.json"}
    assert all((folder / name).read_bytes() == (place / name).read_bytes() for name in OWN)
    assert set(server.files()) == OWN
    assert f"{NAME}, commit {FIRST}, licence: apache-2.0" in lines and f"{NAME}@main is commit {FIRST}" in lines
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}  # no parts are left


def test_a_branch_is_one_commit_in_a_workspace_though_it_moves(server, place, tmp_path):
    folder, _ = fetch(tmp_path)
    assert origin_of(folder)["commit"] == FIRST and origin_of(folder)["revisions"] == ["main"]
    server.repositories[NAME].commits[SECOND] = shutil.copytree(place, tmp_path / "second")
    (tmp_path / "second/README.md").write_text("changed")
    server.repositories[NAME].refs["main"] = SECOND
    asked = len(server.asked)
    assert fetch(tmp_path)[0] == folder and fetch(tmp_path, FIRST)[0] == folder
    assert len(server.asked) == asked  # nothing is asked of the Hub again
    other, _ = fetch(tmp_path, SECOND)
    assert other != folder and (other / "README.md").read_text() == "changed"


def test_shards_are_those_of_the_index_and_complete_ones_are_kept_after_an_interruption(server, place, tmp_path):
    content = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name, part in zip(names, (content[:5000], content[5000:]), strict=True):
        (place / name).write_bytes(part)
    (place / hub.INDEX).write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    server.content = lambda path, content: content[::-1] if path.endswith(names[1]) else content
    with pytest.raises(HostError, match=r"model-00002-of-00002\.safetensors .* was changed on the way"):
        fetch(tmp_path)
    server.content = lambda path, content: content
    server.asked.clear()
    folder, lines = fetch(tmp_path)
    assert server.files() == [names[1]]
    assert b"".join((folder / name).read_bytes() for name in names) == content
    assert f"{names[1]} (2 of 2)" in lines


def test_an_index_may_name_safetensors_of_the_model_alone(server, place, tmp_path):
    (place / hub.INDEX).write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    with pytest.raises(UsageError, match="does not name the safetensors that are there"):
        fetch(tmp_path)


def test_a_model_with_code_or_without_safetensors_is_refused_before_its_weights_are_downloaded(server, place, tmp_path):
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "modeling_tiny.T"}}))
    with pytest.raises(UsageError, match="names Python code"):
        fetch(tmp_path)
    assert "model.safetensors" not in server.files()
    (place / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"holds no model\.safetensors\. Its pytorch_model\.bin may run code"):
        fetch(tmp_path)


def test_a_gated_model_needs_consent_and_the_token_is_sent_to_the_hub_alone(server, tmp_path, monkeypatch):
    server.repositories[NAME].gated, server.repositories[NAME].token = True, "hf_secret"
    with pytest.raises(HostError, match=f"is gated.*{NAME} with your account, set HF_TOKEN"):
        fetch(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HostError, match="check that HF_TOKEN may read it"):
        fetch(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder, lines = fetch(tmp_path)
    elsewhere = [token for _, path, token in server.asked if path.startswith("/elsewhere/")]
    assert elsewhere == [None] and "hf_secret" not in lines + (folder / "origin.json").read_text()


@pytest.mark.parametrize(("text", "words"), [
    (NAME, "name the revision of some-org/Tiny-Llama too"), (f"{NAME}@", "name the revision"),
    ("../../etc@main", "is no name of a model"), (f"{NAME}@two words", "name the revision"),
    ("https://host/model@main", "is no name of a model"),
])  # fmt: skip
def test_a_name_without_a_revision_is_refused_when_the_command_is_planned(text, words, capsys):
    with pytest.raises(UsageError, match=words):
        wanted_of(text)
    assert cli.main(["plan", "sql", "--download", text]) == 2
    assert words in capsys.readouterr().err


def test_what_the_hub_does_not_have_is_named(server, tmp_path):
    with pytest.raises(UsageError, match="has no revision 'v2': name a commit, tag or branch"):
        fetch(tmp_path, "v2")
    with pytest.raises(UsageError, match=r"there is no model some-org/other on http.*private.*set HF_TOKEN"):
        fetch(tmp_path, name="some-org/other")


def test_without_a_connection_the_remedy_is_a_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HostError, match=r"127\.0\.0\.1:9 cannot be reached.*--base DIR"):
        fetch(tmp_path)


@pytest.mark.parametrize(("announced", "words"), [(True, "was cut short on the way"), (False, "cannot be reached")])
def test_a_file_that_is_cut_short_is_no_base(server, tmp_path, monkeypatch, announced, words):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)  # between its attempts
    server.content = lambda path, content: content[:-7] if path.endswith("tokenizer.json") else content
    server.announces_what_it_sends = announced  # if not, the connection is closed early
    with pytest.raises(HostError, match=words):
        fetch(tmp_path)
    assert hub.here(tmp_path / "cache", wanted_of(f"{NAME}@main")) is None


def test_a_disk_without_room_is_reported_before_anything_is_downloaded(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(HostError, match=r"takes .* and 1 kB are free"):
        fetch(tmp_path)
    assert server.files() == []


def test_a_training_uses_it_and_doctor_looks_first(server, tmp_path, capsys):
    words = ["doctor", "--domain", "sql", "--device", "cpu", "--out", str(tmp_path)]
    assert cli.main([*words, "--download", f"{NAME}@main"]) == 0
    assert f"licence: apache-2.0; commit {FIRST}" in capsys.readouterr().out and server.files() == []
    assert cli.main([*words, "--download", f"{NAME}@gone"]) == 2, "as a training would: the command is wrong"
    assert "has no revision 'gone'" in capsys.readouterr().err
    job = Job(Workspace(tmp_path), {"download": f"{NAME}@main"}, say=lambda text: None)
    base = settings_of(job, TextToSqlConfig())["model"]["base"]
    assert base.startswith(str(tmp_path / "cache/bases")) and base.endswith(FIRST[:12])
    with pytest.raises(UsageError, match="Both --base and --download"):
        settings_of(Job(Workspace(tmp_path), {"download": f"{NAME}@main", "base": base}), TextToSqlConfig())
