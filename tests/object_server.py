"""A real S3 server for tests: SeaweedFS, a separate process, and a proxy before it that has faults."""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

BUCKET = "athanor-test"
ROOT, READER, SECRET = "root", "reader", "not-secret"
WEED = Path(sys.executable).with_name("weed")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


class ObjectServer:
    """SeaweedFS with its files in `folder`, and the bucket BUCKET. User ROOT may do everything, READER only read."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        read = [f"Read:{BUCKET}", f"List:{BUCKET}"]
        users = [(ROOT, ["Admin"]), (READER, read)]
        identities = [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": actions}
            for name, actions in users
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        (folder / "data").mkdir()
        self.ports = free_ports(8)
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
                 "s3.port", "s3.port.grpc")  # fmt: skip
        self.words = [
            str(WEED), "-logtostderr=true", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            *(f"-{name}={port}" for name, port in zip(names, self.ports, strict=True)),
            "-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-s3.autoCreateBucket=false", f"-s3.localSocket={folder / 's3.sock'}", "-master.volumeSizeLimitMB=64",
            "-volume.max=30", "-volume.minFreeSpace=1", "-master.telemetry=false",
        ]  # fmt: skip
        self.folder = folder
        self.endpoint = f"http://127.0.0.1:{self.ports[6]}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, or start it again with what it has stored; returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.words, stdout=log, stderr=log, start_new_session=True, preexec_fn=_end_with_parent
            )
        until = time.monotonic() + 60
        while True:
            try:
                make_bucket(self.endpoint)
                break
            except urllib.error.HTTPError as error:
                if error.code == 409:  # it exists
                    break
                failed: Exception = error
            except OSError as error:
                failed = error
            assert self._process.poll() is None and time.monotonic() < until, (failed, self.folder / "log")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it, and delete what it has stored."""
        self.stop()
        shutil.rmtree(self.folder)


def _end_with_parent() -> None:
    """The server must not outlive tests that are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def environment(endpoint: str, key: str = ROOT, secret: str = SECRET) -> dict[str, str]:
    """The variables with which a client finds a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1", "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost",
    }  # fmt: skip


def signature(method: str, host: str, path: str, body: bytes) -> dict[str, str]:
    """Headers of a request of user ROOT with a signature of version 4; `path` is encoded, without a query."""
    stamp, content = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"), hashlib.sha256(body).hexdigest()
    names, scope = "host;x-amz-content-sha256;x-amz-date", f"{stamp[:8]}/us-east-1/s3/aws4_request"
    headers = f"host:{host}\nx-amz-content-sha256:{content}\nx-amz-date:{stamp}\n"
    canonical = hashlib.sha256(f"{method}\n{path}\n\n{headers}\n{names}\n{content}".encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signed = hmac.new(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical}".encode(), hashlib.sha256).hexdigest()
    authorization = f"AWS4-HMAC-SHA256 Credential={ROOT}/{scope}, SignedHeaders={names}, Signature={signed}"
    return {"Host": host, "x-amz-date": stamp, "x-amz-content-sha256": content, "Authorization": authorization}


def make_bucket(endpoint: str) -> None:
    """Create BUCKET; obstore creates none. Raises OSError, which an HTTPError is."""
    host = endpoint.removeprefix("http://")
    headers = signature("PUT", host, f"/{BUCKET}", b"")
    request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT", headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20):
        pass


class FaultyProxy:
    """Passes requests on to `server`, with faults: `deaf` to conditions (the request is made again without them, since
    they are signed), `failing` (a status for every write), `losing` answers of writes (the store has done them, the
    connection ends), or `down`."""

    def __init__(self, server: ObjectServer):
        self.deaf, self.down, self.losing, self.failing = False, False, 0, 0
        proxy, port = self, server.ports[6]

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.down:
                    self.close_connection = True
                    return
                if proxy.failing and self.command == "PUT":
                    self.send_response(proxy.failing)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                headers = dict(self.headers.items())
                if proxy.deaf and {"if-match", "if-none-match"} & {name.lower() for name in headers}:
                    headers = signature(self.command, headers.get("host", headers.get("Host", "")), self.path, body)
                onward = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                onward.request(self.command, self.path, body, headers)
                answer = onward.getresponse()
                content = answer.read()
                onward.close()
                if proxy.losing and self.command == "PUT" and answer.status == 200:
                    proxy.losing -= 1
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
