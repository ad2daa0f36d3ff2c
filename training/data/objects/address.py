"""Addresses in object stores. Uses the standard library only: the runner parses them without an environment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from training.errors import UsageError

#: Scheme -> what it names, and the environment variables that hold its credentials.
SCHEMES = {
    "s3": ("an S3 bucket", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "gs": ("a bucket of Google's (GCS)", "GOOGLE_APPLICATION_CREDENTIALS (the file of a service account's key)"),
    "az": ("an Azure container", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_KEY)"),
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_LONGEST = 512  # bytes of a prefix; keys may have 1,024, and what is stored below it needs the rest


def is_url(text: str) -> bool:
    """Whether `text` is a URL of any scheme, not the path of a folder."""
    return _URL.match(text) is not None


@dataclass(frozen=True)
class Address:
    """A place in an object store: everything in `bucket` whose key begins with `prefix`/ (all of it, if empty)."""

    scheme: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address `text`, SCHEME://BUCKET/PREFIX. Raises UsageError if it is none."""
        found = _URL.match(text)
        if found is None or found[1] not in SCHEMES:
            shown = f"{found[1]}://" if found else text  # the rest may be a password
            raise UsageError(f"{shown} is not supported: use {', '.join(f'{s}://' for s in SCHEMES)} or a folder.")
        bucket, _, prefix = text[found.end() :].partition("/")
        prefix = prefix.strip("/")
        if "@" in bucket:
            raise UsageError(
                f"{found[0]}... contains a password or key. Name only the bucket, and set {SCHEMES[found[1]][1]}."
            )
        if not _BUCKET.fullmatch(bucket):
            raise UsageError(
                f"{found[0]}{bucket} does not name a bucket: 3 to 222 lower-case letters, digits, dots and hyphens."
            )
        parts = prefix.split("/")
        if (
            not prefix.isprintable()
            or any(part in ("", ".", "..") for part in parts if prefix)
            or set(prefix) & {*"?#\\"}
        ):
            raise UsageError(f"{text!r}: the part after the bucket must be names separated by single slashes.")
        if len(prefix.encode()) > _LONGEST:
            raise UsageError(f"{found[0]}{bucket}/...: the part after the bucket is longer than {_LONGEST} bytes.")
        return cls(found[1], bucket, prefix)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def credentials(self) -> str:
        """The environment variables that hold the credentials, for people."""
        return SCHEMES[self.scheme][1]
