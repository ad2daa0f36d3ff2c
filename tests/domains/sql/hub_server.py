"""A server that answers as the Hugging Face Hub does what `huggingface_hub` asks to download a model: what a revision
holds, and its files. Large files are elsewhere, under another host name, as on the Hub."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    commits: dict[str, Path]  # commit -> folder
    refs: dict[str, str]  # branch or tag -> commit
    gated: bool = False
    token: str = ""  # which may read it
    card: dict = field(default_factory=dict)  # the front matter of its README.md


class HubServer:
    """`with HubServer() as hub`: `hub.url` is the endpoint, `hub.asked` its requests as (method, path, authorization).
    `hub.content(path, bytes)` may change what is sent of a file."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.announces_what_it_sends = False
        self.content = lambda path, content: content
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.elsewhere = f"http://localhost:{self.server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self) -> list[str]:
        """Names of the files whose bytes were requested."""
        return [path.rpartition("/")[2] for method, path, _ in self.asked if method == "GET" and "/api/" not in path]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Authorization")))
        if path.startswith("/api/models/"):
            self._about(*path.removeprefix("/api/models/").split("/revision/"))
        elif path.startswith("/elsewhere/"):
            name, _, rest = path.removeprefix("/elsewhere/").partition("/resolve/")
            self._send(self._file(self.hub.repositories[name], rest), {}, path)
        elif "/resolve/" in path:
            self._resolve(*path[1:].split("/resolve/"))
        else:  # the library asks for more than is needed
            self._error(404, "")

    do_HEAD = do_GET

    def _about(self, name: str, revision: str) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._error(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._error(404, "RevisionNotFound")
        folder = repository.commits[commit]
        siblings = [_sibling(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
        about = {"id": name, "sha": commit, "gated": "manual" if repository.gated else False, "cardData":
                 repository.card, "siblings": siblings}  # fmt: skip
        return self._send(json.dumps(about).encode(), {}, "")

    def _resolve(self, name: str, rest: str) -> None:
        repository = self.hub.repositories[name]
        if repository.gated and self.headers.get("Authorization") != f"Bearer {repository.token}":
            return self._error(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        commit, _, file = rest.partition("/")
        path = repository.commits[commit] / file
        if not path.is_file():
            return self._error(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit}
        content = path.read_bytes()
        if not _large(path):
            return self._send(content, headers | {"ETag": f'"{_git_hash(content)}"'}, self.path)
        headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content)),
                    "Location": f"{self.hub.elsewhere}/elsewhere/{name}/resolve/{rest}"}  # fmt: skip
        return self._send(b"", headers, "", 302)

    @staticmethod
    def _file(repository: Repository, rest: str) -> bytes:
        commit, _, file = rest.partition("/")
        return (repository.commits[commit] / file).read_bytes()

    def _send(self, content: bytes, headers: dict[str, str], path: str, status: int = 200) -> None:
        sent = self.hub.content(path, content) if path and self.command == "GET" else content
        announced = len(sent if self.hub.announces_what_it_sends else content)
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(announced)}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        self.close_connection = len(sent) != announced

    def _error(self, status: int, code: str) -> None:
        self._send(b"{}", {"X-Error-Code": code}, "", status)

    def log_message(self, *_arguments: object) -> None:
        pass


def _large(path: Path) -> bool:
    return path.suffix in (".safetensors", ".bin")


def _sibling(folder: Path, path: Path) -> dict:
    content = path.read_bytes()
    about = {"rfilename": path.relative_to(folder).as_posix(), "size": len(content), "blobId": _git_hash(content)}
    if _large(path):
        about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return about


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
