"""What an error of an object store means, in words: the cause, and what to do about it."""

from __future__ import annotations

import os
import re

from training.data.objects.address import Address

_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>|\(code: (\w+)\)")
_STATUS = re.compile(r"status code: (\d{3})")
_NETWORK = ("error sending request", "timed out", "dns error", "error decoding response body",
            "request or response body error")  # fmt: skip
_NO_CREDENTIALS = (
    "/latest/api/token",
    "Missing AccessKeyId",
    "Missing SecretAccessKey",
    "169.254.169.254",
    "metadata.google.internal",
    "token request",
    "Account must be specified",
    "MissingAccount",
)
_WRONG_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthenticationFailed",
              "InvalidSecurity", "TokenRefreshRequired")  # fmt: skip
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist", "InvalidBucketName")
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect", "IllegalLocationConstraint")


def explained(error: Exception, address: Address, doing: str) -> str:
    """The message for `error`, which occurred while `doing` something (read, write, list, delete) at `address`.

    Nothing of the error's text is passed on but its code: it may contain parts of a signature.
    """
    text = str(error).partition("Debug source")[0]
    code = next((one or other for one, other in _CODE.findall(text)), "")
    status = found[1] if (found := _STATUS.search(text)) else ""
    shown = " ".join(part for part in (status, code) if part) or type(error).__name__
    if any(sign in text for sign in _NO_CREDENTIALS):
        return f"there are no credentials for it. Set {address.credentials}{_profile(address)}."
    if code in _WRONG_KEY or "Unauthenticated" in type(error).__name__ or status == "401":
        return (
            f"the store does not accept the key ({shown}). Check {address.credentials}; a temporary key may have "
            "expired."
        )
    if any(sign in text for sign in _NO_BUCKET):
        return (
            f"there is no {'container' if address.scheme == 'az' else 'bucket'} {address.bucket}{_at(address)} "
            f"({shown}). Create it, or check the name."
        )
    if code in _ELSEWHERE or status in ("301", "307"):
        return f"the bucket {address.bucket} is in another region ({shown}). Set AWS_REGION to its region."
    if "PermissionDenied" in type(error).__name__ or status == "403":
        return (
            f"the key may not {doing} there ({shown}). It needs the rights to read, write, list and delete below "
            f"{address}; or the bucket belongs to another account."
        )
    if status.startswith("5") or status == "429":
        return f"the store failed ({shown})"
    if any(sign in text.lower() for sign in _NETWORK):
        return f"the store{_at(address)} does not answer. Check the network{_endpoint_hint(address)}."
    first = re.sub(r"\s+", " ", text.partition("<?xml")[0]).strip()
    return f"the store refused to {doing} ({shown}): {first[:200]}"


def endpoint(address: Address) -> str:
    """The URL of the store, where the environment names one (S3-compatible stores, emulators); else empty."""
    return next((os.environ[name] for name in _ENDPOINTS[address.scheme] if os.environ.get(name)), "")


def _at(address: Address) -> str:
    return f" at {endpoint(address)}" if endpoint(address) else ""


def _endpoint_hint(address: Address) -> str:
    if endpoint(address):
        return f" and {next(name for name in _ENDPOINTS[address.scheme] if os.environ.get(name))}"
    return " (for a store other than Amazon's, set AWS_ENDPOINT_URL)" if address.scheme == "s3" else ""


def _profile(address: Address) -> str:
    """Profiles in ~/.aws are not read: how to get a key out of one."""
    if address.scheme != "s3":
        return ""
    return ' (from a profile: eval "$(aws configure export-credentials --format env)")'
