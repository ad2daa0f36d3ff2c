"""Data that options name by URLs: where it is downloaded to, and which options a dataset's URL stands for. Uses the
standard library only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from training.data.objects.address import Address, is_url
from training.domain import Domain
from training.errors import UsageError
from training.option import Option
from training.runner.values import amount, text


@dataclass(frozen=True)
class Fetched:
    """Data that an option names by a URL, and where it is downloaded to."""

    option: str  # its name
    address: Address
    folder: str
    path: str  # the option's value: the folder, or a file in it

    @classmethod
    def of(cls, option: Option, address: Address, out: str) -> Fetched:
        """A separate folder for each address, so that data of two never mix. Where the option takes a file or a
        folder, a URL whose last part has a suffix (take1.wav) is a file. Raises UsageError."""
        name = PurePosixPath(address.prefix).name
        if option.kind == "file" and not name:
            raise UsageError(f"{option.flag} {address} names a bucket, not a file in it.")
        # Of a `path`, which may be either, the name decides, as nothing was fetched yet.
        is_file = option.kind == "file" or (option.kind == "path" and PurePosixPath(name).suffix != "")
        folder = f"{out}/data/fetched/{option.name}-{hashlib.sha256(str(address).encode()).hexdigest()[:8]}"
        return cls(option.name, address, folder, f"{folder}/{name}" if is_file else folder)


def given(option: Option, values: Mapping[str, Any]) -> Any:
    """The value of an option on the command line or, if it has none there, in its environment variable."""
    value = values.get(option.attribute)
    return os.environ.get(option.environment) or None if value is None and option.environment else value


def parts_of(domain: Domain, values: Mapping[str, Any]) -> dict[str, str]:
    """The options for which another one stands that has a URL, with the URLs of its parts; without those that have a
    value of their own."""
    found = {}
    for option in domain.options:
        url = given(option, values) if option.parts else None
        if url is not None and is_url(url):
            missing = [other for other in domain.options if given(other, values) is None]
            names = {other.attribute for other in missing} & {*option.parts}
            found |= {name: f"{Address.parse(url)}/{option.parts[name]}" for name in names}
    return found


@dataclass(frozen=True)
class PublishedShards:
    """Data that another host has prepared and published: the job prepares none."""

    address: Address
    gigabytes: str | None  # of the disk, for shards

    @property
    def words(self) -> list[str]:
        """The arguments of `fetch-shards`."""
        return [str(self.address), *([] if self.gigabytes is None else ["--shards-gb", self.gigabytes])]


def add_shards(group: Any) -> None:
    """The options that name published data."""
    group.add_argument(
        "--shards", metavar="URL", type=text,
        help="train on data that `python -m training publish-shards URL` wrote; it may be larger than this disk",
    )  # fmt: skip
    group.add_argument(
        "--shards-gb", metavar="GB", type=text, help="of --shards, how much is on this disk at a time (default: half)"
    )


def shards_of(domain: Domain, values: dict[str, Any]) -> PublishedShards | None:
    """The published data that was named; its values are taken out of `values`. Raises UsageError."""
    given, gigabytes = values.pop("shards"), amount("shards_gb", values.pop("shards_gb"))
    if given is None:
        if gigabytes is not None:
            raise UsageError("--shards-gb goes with --shards.")
        return None
    named = [option.flag for option in domain.data_options() if values.get(option.attribute) is not None]
    if named:
        raise UsageError(f"--shards is data that is prepared already: leave out {', '.join(named)}.")
    return PublishedShards(Address.parse(given), gigabytes)
