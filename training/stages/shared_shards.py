"""`publish-shards` and `fetch-shards`: prepared data in an object store, for hosts whose disks do not hold it.

    dataset.json         what there is: manifests, their indices, the shards with their tables; written last
    contents/SHA256      all contents, under their SHA-256: nothing is ever replaced

The host that fetches gets manifests, indices and tables. The contents of the shards come while they are read
(data/remote_shards.py). The files that the data was decoded from are needed on the publishing host only.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from training.data import digests
from training.data.files import printable, sha256, write_atomic
from training.data.index import Shared, note_published
from training.data.objects.address import Address
from training.data.objects.download import download
from training.data.objects.store import SINGLE, ObjectStore, StoreError
from training.data.remote_shards import FETCHED, FetchedShards, key_of_content, put_remote, signature_of
from training.data.schema import SPLITS
from training.data.shard_file import FOOTER
from training.data.store import PART
from training.data.summary import SUMMARY, summary_of
from training.data.writing import QUARANTINE, index_path
from training.domain import Domain
from training.engine.loading.batches import AT_ONCE
from training.errors import DataError, HostError, UsageError
from training.persist.objects.blobs import write
from training.registry import family_of, load_recipe
from training.stages.run_names import all_runs
from training.stages.splits import load_for_publishing
from training.units import counted, size
from training.workspace import Workspace, exclusive

CATALOG = "dataset.json"
FORMAT = 1
MARGIN = 1 << 30  # bytes of the disk that fetched shards leave free


@dataclass(frozen=True)
class _Split:
    """One split of a run: its rows, and the path of its manifest."""

    run: str
    manifest: Path
    rows: Shared


# -- publish -----------------------------------------------------------------------------------------------------------


def publish_shards(domain: Domain, workspace: Workspace, address: Address, say: Callable[[str], None] = print) -> None:
    """Write the prepared data of `workspace` to the object store. Interrupted, the same command continues.

    Raises DataError (nothing is prepared, data that shards alone do not hold), HostError (the store fails).
    """
    summary = summary_of(workspace)
    if summary is None:
        raise DataError(f"Nothing is prepared in {workspace.root}. Run `python -m training prepare` first.")
    splits = [split for run in all_runs(domain, workspace) for split in _splits(run, workspace)]
    store = ObjectStore(address)
    try:
        about: dict[str, Any] = {"format": FORMAT, "domain": domain.word, "synthetic": bool(summary["synthetic"])}
        names = {split.manifest for split in splits} | {workspace.manifests / name for name in (SUMMARY, QUARANTINE)}
        about["files"] = {path.relative_to(workspace.manifests).as_posix(): _put(store, path) for path in sorted(names)}
        about["indices"] = [
            {"run": split.run, "manifest": split.manifest.relative_to(workspace.manifests).as_posix(),
             **_put(store, split.rows.path)}
            for split in splits
        ]  # fmt: skip
        about["shards"], total = {}, 0
        for kind, name in sorted({pair for split in splits for pair in _shards(split.rows)}):
            path = workspace.cache / kind / name
            if not path.is_file():
                raise DataError(f"{path} is in an object store itself: publish from the host that prepared the data.")
            held = _put(store, path)
            bytes_, mtime = signature_of(path)
            about["shards"].setdefault(kind, {})[name] = {**held, "mtime_ns": mtime, "tail": _tail_bytes(path)}
            total += bytes_
            say(f"  {kind}/{name}: {size(bytes_)}")
        write(store, CATALOG, json.dumps(about, indent=1, sort_keys=True).encode() + b"\n")
    except StoreError as error:
        raise HostError(f"{address}: {error.strerror or error} The same command continues.") from error
    count = sum(map(len, about["shards"].values()))
    say(f"Published at {address}: {counted(len(splits), 'manifest')}, {counted(count, 'shard')}, {size(total)}.")


def _splits(run: str, workspace: Workspace) -> Iterator[_Split]:
    recipe = load_recipe(run)
    for split in SPLITS:
        path = workspace.manifest(recipe.data, split)
        if split == "test" and not path.is_file():
            continue
        rows = load_for_publishing(recipe, workspace, split)
        if not isinstance(rows, Shared):  # files that were written just now: see digests.SETTLED
            time.sleep(digests.SETTLED)
            rows = load_for_publishing(recipe, workspace, split)
        if not isinstance(rows, Shared):
            raise DataError(
                f"{printable(path)}: some of its files changed just now, or cannot be decoded. Run it again."
            )
        beside = sorted(key for key, files in rows.table.files.items() if files.keys is None)
        if beside:
            raise DataError(
                f"{run} reads the files under {', '.join(beside)} of its manifest themselves: they are in no shard, so "
                "this data cannot be trained on elsewhere without them."
            )
        if not rows.table.plain:
            raise DataError(f"{printable(path)} names files by relative paths. Prepare the data again.")
        yield _Split(run, path, rows)


def _shards(rows: Shared) -> Iterator[tuple[str, str]]:
    """(kind, name) of each shard that a split needs."""
    for files in rows.table.files.values():
        names = files.layout.shards if files.layout is not None else []
        if any(name.startswith(PART) for name in names):
            raise DataError(f"{files.kind}: shares of several hosts are not merged yet: run `prepare --merge N` first.")
        yield from ((files.kind, name) for name in names)


def _put(store: ObjectStore, path: Path) -> dict[str, Any]:
    """Write a file under its SHA-256, unless it is there, and verify it."""
    digest, length = sha256(path), path.stat().st_size
    key = key_of_content(digest)
    there = store.head(key)
    if there is None or there.size != length:
        if length <= SINGLE:
            write(store, key, path.read_bytes())
        else:
            store.put_file(key, path, lambda: None)
    return {"sha256": digest, "size": length}


def _tail_bytes(path: Path) -> int:
    """The length of a shard's table and footer."""
    with path.open("rb") as file:
        file.seek(-FOOTER.size, 2)
        offset = FOOTER.unpack(file.read(FOOTER.size))[3]
    return path.stat().st_size - int(offset)


# -- fetch -------------------------------------------------------------------------------------------------------------


def fetch_shards(
    domain: Domain, workspace: Workspace, address: Address, gigabytes: float | None = None,
    say: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Make the data that was published at `address` the data of `workspace`. Of its shards at most `gigabytes` GB are
    here at a time (default: half of the free space of the disk).

    Raises DataError (nothing is published there, damaged), UsageError (another domain, other data is here), HostError
    (the store fails, the disk is too small).
    """
    with exclusive(workspace.cache, "fetching shards"):
        try:
            _fetch(domain, workspace, address, gigabytes, say)
        except StoreError as error:
            raise HostError(f"{address}: {error.strerror or error}") from error


def _fetch(
    domain: Domain, workspace: Workspace, address: Address, gigabytes: float | None, say: Callable[[str], None]
) -> None:
    store = ObjectStore(address)
    about = _catalog(store, domain)
    shards = {(kind, name): one for kind, names in about["shards"].items() for name, one in names.items()}
    limit = _limit(workspace, [one["size"] for one in shards.values()], gigabytes)
    _require_no_other_data(workspace, about)
    FetchedShards.limited(workspace.cache, address, limit)
    for (kind, name), one in shards.items():
        path = workspace.cache / kind / name
        if path.is_file() and signature_of(path) == (one["size"], one["mtime_ns"]):
            continue  # this host has it: it published the data
        begin = one["size"] - one["tail"]
        tail = b"".join(store.stream(key_of_content(one["sha256"]), begin))
        try:
            put_remote(path, tail, size=one["size"], sha256=one["sha256"], mtime_ns=one["mtime_ns"])
        except ValueError as error:
            raise DataError(
                f"{address}: the shard {kind}/{name} is damaged ({error}). Publish the data again."
            ) from error
    for name, one in sorted(about["files"].items(), key=lambda item: item[0] == SUMMARY):  # the summary last
        _write(address, one, workspace.manifests / name)
    for one in about["indices"]:
        manifest = workspace.manifests / one["manifest"]
        place = index_path(workspace.cache, family_of(one["run"]), manifest)
        _write(address, one, place)
        note_published(place, workspace.cache, manifest, about["synthetic"])
    total = sum(one["size"] for one in shards.values())
    say(
        f"{address}: {counted(len(about['indices']), 'manifest')}, {counted(len(shards), 'shard')}, {size(total)}. At "
        f"most {size(limit)} of them are kept in {workspace.relative(workspace.cache / FETCHED)}."
    )


def _catalog(store: ObjectStore, domain: Domain) -> dict[str, Any]:
    found = store.get(CATALOG)
    if found is None:
        raise DataError(f"No data is published at {store.address} ({CATALOG} is missing). See `publish-shards`.")
    try:
        about = json.loads(found[0])
        form, word = about["format"], about["domain"]
        names = [*about["files"], *(f"{kind}/{name}" for kind, of in about["shards"].items() for name in of)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{store.address}/{CATALOG} is damaged ({error!r}). Publish the data again.") from error
    if form != FORMAT:
        raise DataError(f"{store.address} was published by another version of this program. Publish the data again.")
    if word != domain.word:
        raise UsageError(f"{store.address} holds data of {word}, and this job is about {domain.word}.")
    odd = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if odd:
        raise DataError(f"{store.address}/{CATALOG}: {printable(odd[0])} is no name of a file below one folder.")
    return about


def _limit(workspace: Workspace, sizes: list[int], gigabytes: float | None) -> int:
    """Bytes of shards that may be here: enough for those that are read at a time, and for the next one."""
    workspace.cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(workspace.cache).free
    held = sum(path.stat().st_size for path in (workspace.cache / FETCHED).glob("*"))
    least = sum(sorted(sizes, reverse=True)[: AT_ONCE + 1])
    limit = int(gigabytes * 1e9) if gigabytes is not None else max(least, (free + held) // 2)
    if limit < least:
        raise UsageError(
            f"--shards-gb {gigabytes:g} is too small: {AT_ONCE} shards are read at a time, and with the next one they "
            f"take {size(least)}."
        )
    if limit + MARGIN > free + held:
        raise HostError(f"{workspace.cache} has {size(free + held)} free, and {size(limit)} are to be kept there.")
    return limit


def _require_no_other_data(workspace: Workspace, about: Mapping[str, Any]) -> None:
    """Raise UsageError if something else is prepared here."""
    path = workspace.manifests / SUMMARY
    if not path.is_file() or sha256(path) == about["files"][SUMMARY]["sha256"]:
        return
    raise UsageError(f"{workspace.manifests} holds manifests of other data. Choose another folder with --out.")


def _write(address: Address, one: Mapping[str, Any], path: Path) -> None:
    if path.is_file() and sha256(path) == one["sha256"]:
        return
    write_atomic(
        path, lambda temporary: download(address, key_of_content(one["sha256"]), temporary, one["size"], one["sha256"])
    )
