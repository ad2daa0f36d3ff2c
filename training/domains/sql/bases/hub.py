"""Downloads a base model from the Hugging Face Hub, or from a server like it (HF_ENDPOINT): `--download NAME@REVISION`.

Only the configuration, the tokenizer, the safetensors, the card and the licence are downloaded, of one commit: a branch
or a tag is resolved to its commit once, which is written into the folder, so that later commands use the same bytes.
The hash of every file is compared with the Hub's. It was tried with a server that imitates the Hub, not with the Hub.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from training.data.files import sha256, write_atomic
from training.domains.sql.bases.making import made_once
from training.domains.sql.bases.origin import ORIGIN, origin_of
from training.domains.sql.bases.wanted import FORM, Wanted
from training.errors import AthanorError, HostError, UsageError
from training.pretrained import NOT_STATED, licence_in, refuse_code
from training.units import size

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
#: Files that are downloaded beside the weights: never code, nor pickled weights.
FILES = re.compile(
    r"config\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|tokenizer\.model|vocab\.json|"
    r"merges\.txt|special_tokens_map\.json|added_tokens\.json|chat_template\.(jinja|json)|README\.md|"
    r"model\.safetensors\.index\.json|(LICEN[SC]E|NOTICE|COPYING|USE_POLICY)[\w.-]*"
)
_TIMEOUT = 30.0  # seconds for an answer of the Hub
_SPARE = 1.05  # of the files' size that must be free


@dataclass(frozen=True)
class Remote:
    """What the Hub states about a revision."""

    wanted: Wanted
    commit: str
    licence: str  # as its card states it, or NOT_STATED
    sizes: Mapping[str, int]  # of the files that are downloaded, without the shards of the weights
    shards: Mapping[str, int]  # of all safetensors beside the configuration
    hashes: Mapping[str, str]  # file -> SHA-256, or the SHA-1 of a git blob

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values()) + sum(self.shards.values())


def here(cache: Path, wanted: Wanted) -> Path | None:
    """The folder of a revision that was downloaded before; None: it was not."""
    for folder in sorted((cache / "bases").glob(f"{_slug(wanted.name)}-*")):
        origin = origin_of(folder)
        if origin.get("model") == wanted.name and wanted.revision in (origin["commit"], *origin["revisions"]):
            return folder
    return None


def fetch(cache: Path, wanted: Wanted, say: Callable[[str], None] = print) -> Path:
    """The base as a folder under `cache`, downloaded once. Raises UsageError for a model, revision or content that
    cannot be used, HostError without a connection, permission or space."""
    folder = here(cache, wanted)
    if folder is None:
        remote = look(wanted)
        folder = cache / "bases" / f"{_slug(wanted.name)}-{remote.commit[:12]}"
        if not folder.is_dir():
            _require_space(folder, remote)
            say(
                f"  base: {wanted.name}, commit {remote.commit}, licence: {remote.licence}; {size(remote.bytes)} are "
                "downloaded, once"
            )
        made_once(folder, lambda place: _download(place, remote, say))
        _note_revision(folder, wanted)
    commit = origin_of(folder)["commit"]
    if wanted.revision != commit:
        say(f"  base: {wanted} is commit {commit} in this workspace; the same elsewhere: {wanted.name}@{commit}")
    return folder


def look(wanted: Wanted) -> Remote:
    """Ask the Hub about a revision. Raises as `fetch`."""
    from huggingface_hub import HfApi

    with _explained(wanted):
        found = HfApi(endpoint=_endpoint()).model_info(
            wanted.name, revision=wanted.revision, files_metadata=True, timeout=_TIMEOUT
        )
    files = {one.rfilename: one for one in found.siblings or ()}
    shards = {name: one.size or 0 for name, one in files.items() if re.fullmatch(r"[\w.-]+\.safetensors", name)}
    if WEIGHTS not in shards and INDEX not in files:
        pickled = sorted(name for name in files if name.endswith((".bin", ".pt", ".pth")))
        more = f" Its {pickled[0]} may run code when it is read, and is not downloaded." if pickled else ""
        raise UsageError(f"{FORM}: {wanted} holds no {WEIGHTS}.{more} Choose a revision or a model that has it.")
    if INDEX not in files:
        shards = {WEIGHTS: shards[WEIGHTS]}
    else:  # "consolidated.safetensors" and the like hold the same weights once more
        shards = {name: count for name, count in shards.items() if re.match(r"model-\d+-of-\d+\.", name)} or shards
    card = found.card_data.to_dict() if found.card_data is not None else {}
    return Remote(
        wanted, str(found.sha), licence_in(card) or NOT_STATED,
        {name: one.size or 0 for name, one in files.items() if FILES.fullmatch(name)}, shards,
        {name: one.lfs.sha256 if one.lfs else one.blob_id or "" for name, one in files.items()},
    )  # fmt: skip


# -- downloading -------------------------------------------------------------------------------------------------------


def _download(folder: Path, remote: Remote, say: Callable[[str], None]) -> None:
    """Fill `folder`. Complete files of an attempt that was interrupted are used."""
    parts = folder.parent / f".parts-{_slug(remote.wanted.name)}-{remote.commit[:12]}"
    hashes = {name: _file(parts, name, remote) for name in sorted(remote.sizes)}
    if not (parts / "config.json").is_file():
        raise UsageError(f"{FORM}: {remote.wanted} holds no config.json.")
    refuse_code(parts / "config.json", FORM)
    names = sorted(_shards(parts, remote))
    for number, name in enumerate(names, 1):
        began = time.monotonic()
        hashes[name] = _file(parts, name, remote)
        taken = max(time.monotonic() - began, 1e-3)
        count = remote.shards[name]
        say(f"  base: {name} ({number} of {len(names)}), {size(count)} in {taken:.0f} s, {size(count / taken)}/s")
    for name in hashes:
        (parts / name).rename(folder / name)
    origin = {"model": remote.wanted.name, "commit": remote.commit, "revisions": [], "endpoint": _endpoint(),
              "licence": remote.licence, "files": dict(sorted(hashes.items()))}  # fmt: skip
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(parts, ignore_errors=True)


def _file(parts: Path, name: str, remote: Remote) -> str:
    """Download a file, unless it is there; returns its SHA-256. Raises HostError for bytes other than the Hub's."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    # One way of downloading, over HTTP as the tests try it; the other one, hf_xet, would also need a cache in the home
    # folder, which containers do not have. The variable of this name is read when the library is imported.
    constants.HF_HUB_DISABLE_XET = True
    with _explained(remote.wanted):
        path = Path(hf_hub_download(
            remote.wanted.name, name, revision=remote.commit, local_dir=parts, endpoint=_endpoint(),
            etag_timeout=_TIMEOUT,
        ))  # fmt: skip
    digest, stated = sha256(path), remote.hashes[name]
    own = digest if len(stated) == 64 else _git_hash(path)
    if own != stated:
        path.unlink()
        raise HostError(
            f"{FORM}: {name} of {remote.wanted} has the hash {own[:12]}..., and the Hub states {stated[:12] or 'none'}"
            "...: it was changed on the way. Run the same command again."
        )
    return digest


def _shards(parts: Path, remote: Remote) -> set[str]:
    """The files that hold the weights. The index names them where there are several; it may only name safetensors of
    the same revision."""
    if not (parts / INDEX).is_file():
        return {WEIGHTS}
    try:
        names = set(json.loads((parts / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        names = set()
    if not names or not names <= set(remote.shards):
        raise UsageError(f"{FORM}: {INDEX} of {remote.wanted} does not name the safetensors that are there.")
    return names


def _git_hash(path: Path) -> str:
    """The SHA-1 by which git, and so the Hub, knows a small file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _note_revision(folder: Path, wanted: Wanted) -> None:
    """Write down that the branch or tag is this commit, for the commands that follow."""
    origin = origin_of(folder)
    if wanted.revision not in (origin["commit"], *origin["revisions"]):
        origin["revisions"].append(wanted.revision)
        write_atomic(folder / ORIGIN, (json.dumps(origin, indent=1) + "\n").encode())


def _require_space(folder: Path, remote: Remote) -> None:
    above = next(path for path in folder.parents if path.is_dir())
    free = shutil.disk_usage(above).free
    if free < remote.bytes * _SPARE:
        raise HostError(
            f"{FORM}: {remote.wanted} takes {size(remote.bytes)}, and {size(free)} are free in {above}. Make room, or "
            "choose another --out."
        )


def _slug(name: str) -> str:
    return name.replace("/", "--").lower()


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


@contextmanager
def _explained(wanted: Wanted) -> Iterator[None]:
    """Errors of the library as those of this project, with what to do."""
    try:
        yield
    except Exception as error:
        found = _explanation(error, wanted)
        if found is None:
            raise
        raise found from None


def _explanation(error: BaseException, wanted: Wanted) -> AthanorError | None:
    """None for an error that is not about the Hub."""
    from huggingface_hub import errors

    cause = (isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__) or error
    token = "set HF_TOKEN" if not os.environ.get("HF_TOKEN") else "check that HF_TOKEN may read it"
    if isinstance(cause, errors.GatedRepoError):
        return HostError(
            f"{FORM}: {wanted.name} is gated: its owner asks for consent first. Give it at {_endpoint()}/{wanted.name} "
            f"with your account, {token}, and run the same command again."
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return UsageError(f"{FORM}: {wanted.name} has no revision {wanted.revision!r}: name a commit, tag or branch.")
    if isinstance(cause, errors.RepositoryNotFoundError):
        return UsageError(
            f"{FORM}: there is no model {wanted.name} on {_endpoint()}, or it is private. Check the name; for a "
            f"private model, {token}."
        )
    if isinstance(cause, errors.HfHubHTTPError):
        status = cause.response.status_code
        more = f" Your token was refused: {token}." if status in (401, 403) else " Try again later."
        return HostError(f"{FORM}: {_endpoint()} answered {status} for {wanted}.{more}")
    if isinstance(cause, errors.HFValidationError):
        return UsageError(f"{FORM}: {wanted.name} is no name of a model on the Hub ({cause}).")
    if isinstance(cause, errors.OfflineModeIsEnabled | errors.HTTPError | errors.LocalEntryNotFoundError):
        why = (str(cause).splitlines() or [type(cause).__name__])[0]
        return HostError(
            f"{FORM}: {_endpoint()} cannot be reached ({why}). Download the model on a host with a connection, and "
            "name its folder: --base DIR."
        )
    if isinstance(cause, OSError) and cause.errno is None:  # of the library: fewer bytes came than were announced
        return HostError(f"{FORM}: a file of {wanted} was cut short on the way. Run the same command again.")
    return None
