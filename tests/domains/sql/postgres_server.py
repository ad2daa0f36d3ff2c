"""A PostgreSQL server for the tests: in a new folder, on a Unix socket alone, as a user without rights."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

#: The user "no one" of Unix, as which the server runs when the tests run as root: PostgreSQL refuses root.
UNPRIVILEGED = 65534


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name.split(".")[0]))
    on_path = shutil.which("pg_ctl")
    candidates = [*reversed(folders), *([Path(on_path).resolve().parent] if on_path else [])]
    return next((folder for folder in candidates if (folder / "initdb").is_file()), None)


def why_not() -> str | None:
    """Why the tests of this server are skipped; None if they can run."""
    if programs() is None:
        return "PostgreSQL (initdb, pg_ctl) is not installed: apt-get install postgresql"
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and setpriv (util-linux) is not installed"
    return None


class TemporaryServer:
    """A server between `with` and its end. `admin` is the URL of a superuser, `reader` of a role that may SELECT."""

    def __enter__(self) -> TemporaryServer:
        # not pytest's folder: it is readable for its owner alone, and a socket's path may have 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._as_user: list[str] = []
        if os.getuid() == 0:
            os.chown(self.folder, UNPRIVILEGED, UNPRIVILEGED)
            number = str(UNPRIVILEGED)
            self._as_user = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
        try:
            self._run("initdb", "-D", self.data, "-U", "admin", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
            options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
            self._run("pg_ctl", "-D", self.data, "-w", "-l", f"{self.folder}/log", "-o", options, "start")
            self.execute("CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if Path(self.data, "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def data(self) -> str:
        return f"{self.folder}/data"

    @property
    def admin(self) -> str:
        return f"postgresql://admin@/postgres?host={self.folder}"

    @property
    def reader(self) -> str:
        return f"postgresql://reader@/postgres?host={self.folder}"

    def execute(self, statements: str) -> list[tuple]:
        """Execute statements as the superuser; the rows of the last one, if it has any."""
        with psycopg.connect(self.admin, autocommit=True) as connection:
            cursor = connection.execute(statements)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_user, str(programs() / program), *arguments],
            cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} ended with code {done.returncode}: {done.stderr[-500:]}")
