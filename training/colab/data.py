"""Data files on the session's own disk: copied once from the drive, downloaded, or uploaded with the browser; verified,
and unpacked with care."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from training.colab.settings import ColabSettings
from training.colab.surroundings import PROJECT, ColabError, colab_module, environment_python

OBJECT_STORES = ("s3://", "gs://", "az://")
REFUSED = "{} has an entry that is refused, '{}': it is a link, or leads out of the folder."
MOST_UNPACKED = 200e9  # bytes: Colab's disks are not larger
BLOCK = 1 << 20


def upload_data_files(
    source: str | Path,
    files: Sequence[str] = (),
    *,
    sha256: str = "",
    folder: Path | None = None,
    settings: ColabSettings | None = None,
) -> Path:
    """Bring data to the session's disk once; returns its folder, /content/data by default.

    `source`: a file or folder on the drive; a URL (a release's data.zip, http, s3://, gs://, az://); or "browser". A
    .zip or .tar is unpacked. `sha256`: of the file; a file NAME.sha256 beside it on the drive is used if this is empty.
    `files`: names that must be there afterwards. Raises ColabError that names what is missing, too large or another
    content.
    """
    settings = settings or ColabSettings()
    target = Path(folder or settings.data.local_path)
    target.mkdir(parents=True, exist_ok=True)
    if not files or missing(target, files):
        _bring(str(source), target, sha256)
    lost = missing(target, files)
    if lost:
        raise ColabError(
            f"{target} does not have {', '.join(lost)}; {source} has brought {_listed(target)}. Pack them with "
            "scripts/prepare_data_for_upload.sh (docs/training_colab_setup.md shows the three ways)."
        )
    count = sum(1 for path in target.rglob("*") if path.is_file())
    print(f"Data: {target}, {count} files.")
    return target


def missing(folder: Path, files: Sequence[str]) -> list[str]:
    """Those of the names that are no file or folder in it, or empty."""
    return [name for name in files if not (folder / name).exists() or _empty(folder / name)]


def _empty(path: Path) -> bool:
    return path.stat().st_size == 0 if path.is_file() else not any(path.iterdir())


def _bring(source: str, target: Path, digest: str) -> None:
    if source.startswith(OBJECT_STORES):
        done = subprocess.run(
            [environment_python(), "-m", "training", "fetch", source, str(target)], cwd=PROJECT, check=False
        )
        if done.returncode:
            raise ColabError(f"{source} was not fetched (exit {done.returncode}); its message is above.")
    elif source.startswith(("http://", "https://")):
        _arrived(_download(source, target), target, digest)
    elif source == "browser":
        for name, content in colab_module("files").upload().items():
            path = target / Path(name).name
            path.write_bytes(content)
            _arrived(path, target, digest)
    else:
        _copy(Path(source), target, digest)


def _copy(source: Path, target: Path, digest: str) -> None:
    """From a mounted drive. A folder is copied with what is below it."""
    if "*" in source.name:
        parts = sorted(path for path in source.parent.glob(source.name) if path.suffix != ".sha256")
        if not parts:
            raise ColabError(f"{source.parent} has no file {source.name}: is the drive mounted, and the name right?")
        for path in parts:
            _copy(path, target, "")
    elif source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                _copy_file(path, target / path.relative_to(source))
    elif source.is_file():
        listed = source.with_name(f"{source.name}.sha256")
        if not digest and listed.is_file():
            digest = listed.read_text(encoding="utf-8").split()[0]
        if source.suffix == ".tar":  # straight from the drive: the disk needs room for the files alone
            unpack_tar(source, target, digest)
        else:
            _arrived(_copy_file(source, target / source.name), target, digest)
    else:
        raise ColabError(
            f"{source} is not there. On the drive? Run the cell that mounts it first; is the path spelt as in the file "
            "browser on the left?"
        )


def _copy_file(source: Path, target: Path) -> Path:
    if target.is_file() and (target.stat().st_size, _sha256(target)) == (source.stat().st_size, _sha256(source)):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.copying")
    shutil.copyfile(source, temporary)
    if temporary.stat().st_size != source.stat().st_size:
        raise ColabError(f"{source} changed while it was copied: run the cell again.")
    temporary.replace(target)
    return target


def _download(url: str, target: Path) -> Path:
    name = Path(urllib.parse.urlsplit(url).path).name or "data"
    path, temporary = target / name, target / f".{name}.downloading"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, temporary.open("wb") as file:
            expected = answer.headers.get("Content-Length")
            shutil.copyfileobj(answer, file, BLOCK)
    except OSError as error:
        raise ColabError(f"{url} was not downloaded: {error}.") from error
    if expected is not None and temporary.stat().st_size != int(expected):
        raise ColabError(f"{url}: {temporary.stat().st_size} of {expected} bytes arrived. Run the cell again.")
    temporary.replace(path)
    return path


def _arrived(path: Path, target: Path, digest: str) -> None:
    """Verify one file, and unpack it if it is a .zip."""
    if digest and (found := _sha256(path)) != digest:
        path.unlink()
        _require_digest(path, found, digest)
    if path.suffix in (".zip", ".tar"):
        (unpack if path.suffix == ".zip" else unpack_tar)(path, target)
        path.unlink()


def unpack(archive: Path, target: Path) -> None:
    """Unpack a .zip. Raises ColabError for names that lead out of the folder, for links, for a size beyond the disk,
    and for a damaged archive: nothing of it is left then."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            total = sum(member.file_size for member in members)
            room = shutil.disk_usage(target).free
            if total > min(room, MOST_UNPACKED):
                raise ColabError(
                    f"{archive.name} unpacks to {total / 1e9:.1f} GB, and the disk has {room / 1e9:.1f} GB free."
                )
            for member in members:
                place = os.path.normpath(target / member.filename)
                if not Path(place).is_relative_to(target) or stat.S_ISLNK(member.external_attr >> 16):
                    raise ColabError(REFUSED.format(archive.name, member.filename))
            damaged = packed.testzip()
            if damaged:
                raise ColabError(f"{archive.name} is damaged at {damaged}: upload or download it again.")
            packed.extractall(target)
    except zipfile.BadZipFile as error:
        raise ColabError(f"{archive.name} is damaged or no .zip ({error}): upload or download it again.") from error


def unpack_tar(archive: Path, target: Path, digest: str = "") -> None:
    """Unpack a .tar in one pass, without a copy of it. Raises ColabError as `unpack`, and if the SHA-256 of what was
    read is not `digest`; nothing of it is left then."""
    room, needed = shutil.disk_usage(target).free, archive.stat().st_size
    if needed > room:
        raise ColabError(f"{archive.name} unpacks to {needed / 1e9:.1f} GB, and the disk has {room / 1e9:.1f} GB free.")
    begun = target / f".{archive.name}.unpacking"
    shutil.rmtree(begun, ignore_errors=True)
    try:
        with archive.open("rb") as file:
            reader = _Hashing(file)
            with tarfile.open(fileobj=reader, mode="r|", bufsize=BLOCK) as packed:
                for member in packed:
                    inside = Path(os.path.normpath(begun / member.name)).is_relative_to(begun)
                    if not inside or not (member.isfile() or member.isdir()):
                        raise ColabError(REFUSED.format(archive.name, member.name))
                    packed.extract(member, begun, filter="data")
            while reader.read(BLOCK):  # what follows the last entry
                pass
        _require_digest(archive, reader.sum.hexdigest(), digest)
        for path in sorted(begun.rglob("*")):
            if path.is_file():
                (target / path.relative_to(begun)).parent.mkdir(parents=True, exist_ok=True)
                path.replace(target / path.relative_to(begun))
    except (tarfile.TarError, EOFError) as error:
        raise ColabError(f"{archive.name} is damaged or no .tar ({error}): upload or download it again.") from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)


class _Hashing:
    """A file that is read once, with the SHA-256 of what was read."""

    def __init__(self, file: BinaryIO):
        self.file, self.sum = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        block = self.file.read(size)
        self.sum.update(block)
        return block


def _require_digest(path: Path, found: str, digest: str) -> None:
    if digest and found != digest:
        raise ColabError(
            f"{path.name} is another file than the one that was packed: its SHA-256 does not match {digest[:12]}... "
            "Upload or download it again."
        )


def _listed(folder: Path) -> str:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
