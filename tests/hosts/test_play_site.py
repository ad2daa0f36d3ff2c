"""The command `play`: the folder that it writes, the runtime that the page uses, and the server's limits."""

from __future__ import annotations

import http.client
import json
import shutil
import threading

import pytest

from training.cli import main
from training.domains.music.play import write_page
from training.errors import HostError
from training.play import runtime
from training.play.server import HOST, server_of
from training.workspace import PROJECT


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A runtime of two small files, pinned by their hashes."""
    folder = tmp_path / "installed" / "node_modules" / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    about = runtime.pinned()
    for file in (file for build in ("files", "webgpu") for file in about[build].values()):
        (folder / file["name"]).write_text(file["name"])
        file["integrity"] = runtime.integrity(folder / file["name"])
    monkeypatch.setattr(runtime, "pinned", lambda: about)
    return folder


def request(port: int, path: str, host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request("GET", path, headers={"Host": host or f"{HOST}:{port}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_the_folder_holds_all_that_the_page_loads_and_needs_no_other_host(exports, installed, tmp_path):
    folder = write_page(exports, tmp_path / "play", installed)
    about = json.loads((folder / "play.json").read_text())
    assert about["runtime"]["local"] and set(about["models"]) == {
        "midi_generator_step", "spectocloud_frontend", "spectocloud"
    }  # fmt: skip
    for graph, model in about["models"].items():
        assert (folder / model["file"]).read_bytes() == (exports / f"{graph}.onnx").read_bytes()
        assert model["integrity"] == runtime.integrity(exports / f"{graph}.onnx")
    for file in (file for build in ("files", "webgpu") for file in about["runtime"][build].values()):
        assert (folder / "runtime" / file["name"]).is_file()
    assert "https:" not in (folder / "index.html").read_text()


def test_without_an_installed_runtime_the_page_loads_the_pinned_one_with_hashes(exports, tmp_path):
    folder = write_page(exports, tmp_path / "play", tmp_path / "none")
    about = json.loads((folder / "play.json").read_text())["runtime"]
    assert not about["local"] and about["base"].startswith("https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/")
    for build in ("files", "webgpu"):
        assert all(file["integrity"].startswith("sha384-") for file in about[build].values())
    page = (folder / "index.html").read_text()
    assert "https://cdn.jsdelivr.net;" in page and about["base"] in about["text"]


def test_a_page_without_webgpu_gets_none_of_its_files(installed, tmp_path):
    assert "webgpu" not in runtime.bring(tmp_path, installed)
    names = {file["name"] for file in runtime.pinned()["files"].values()}
    assert {path.name for path in (tmp_path / "runtime").iterdir()} == names


@pytest.mark.parametrize("build", ["files", "webgpu"])
def test_a_runtime_of_another_version_is_refused(exports, installed, tmp_path, build):
    (installed / runtime.pinned()[build]["wasm"]["name"]).write_text("another")
    with pytest.raises(HostError, match="npm ci"):
        write_page(exports, tmp_path / "play", installed)


def test_the_lock_of_npm_has_the_pinned_version():
    lock = json.loads((PROJECT / "hosts" / "browser" / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/onnxruntime-web"]["version"] == runtime.pinned()["version"]


def test_the_command_needs_exports_and_writes_below_them(exports, tmp_path, capsys):
    assert main(["play", "music", "--write-only", "--out", str(tmp_path)]) == 2
    assert "There are no exports" in capsys.readouterr().err
    shutil.copytree(exports, tmp_path / "exports", ignore=shutil.ignore_patterns("play", "samples"))
    assert main(["play", "music", "--write-only", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "exports" / "play" / "index.html").is_file()
    assert main(["verify", str(tmp_path / "exports")]) in (0, 4)  # samples are missing here; the page is no model


@pytest.mark.parametrize("port", ["-1", "80.5", "70000", "nan"])
def test_a_port_that_is_none_is_refused(port, tmp_path, capsys):
    assert main(["play", "music", f"--port={port}", "--out", str(tmp_path)]) == 2
    assert "whole number from 0" in capsys.readouterr().err


def test_the_server_answers_this_host_only_and_never_leaves_its_folder(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "page.js").write_text("1")
    (tmp_path / "secret").write_text("2")
    with server_of(tmp_path / "site", 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert request(port, "/page.js") == (200, b"1")
        assert request(port, "/page.js", "localhost:1")[0] == 200
        assert request(port, "/page.js", "example.org")[0] == 403
        assert request(port, "/../secret")[0] == 404
        assert request(port, "/")[0] == 404  # no listing
        with pytest.raises(HostError, match="--port"):
            server_of(tmp_path, port)
        server.shutdown()
