"""Serves a folder on this host alone (127.0.0.1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from training.errors import HostError, Interrupted

HOST = "127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json",
        ".onnx": "application/octet-stream",
    }  # fmt: skip

    def send_head(self) -> Any:
        """Only requests for this host's own name: a page elsewhere, whose name was made to lead here, gets nothing."""
        name = self.headers.get("Host", "").rpartition(":")[0]
        if name not in (HOST, "localhost"):
            self.send_error(403, "this server answers to 127.0.0.1 and localhost only")
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        self.send_error(404, "no listing")

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged."""


def server_of(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server that is not yet running; port 0: any that is free. Raises HostError if the port is taken."""
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise HostError(f"Port {port} of {HOST} cannot be used: {error}. Choose another with --port N.") from None


def serve(folder: Path, port: int, say: Callable[[str], None] = print) -> None:
    """Serve `folder` until a stop signal. Raises HostError."""
    with server_of(folder, port) as server:
        say(f"http://{HOST}:{server.server_address[1]}/   (on this host only; Ctrl-C ends it)")
        try:
            server.serve_forever()
        except Interrupted:
            say("Stopped.")
