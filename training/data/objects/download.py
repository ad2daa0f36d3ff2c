"""`python -m training.data.objects.download ADDRESS KEY FILE BYTES SHA256`: one object into a new file, verified. A
separate process for data loader workers (remote_shards.py). Exit code 6 with the reason as its only output."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from training.data.objects.address import Address
from training.data.objects.store import Conflict, ObjectStore, StoreError
from training.errors import AthanorError, HostError
from training.parent import follow

ATTEMPTS = 5  # in a row without a byte
PAUSE = 5.0  # seconds before the next one


def download(address: Address, key: str, file: Path, size: int, sha256: str, pause: float = PAUSE) -> None:
    """Write the object to `file`. A transfer that breaks off is continued. Raises HostError."""
    hashed, done, failures = hashlib.sha256(), 0, 0
    store = ObjectStore(address)
    with file.open("wb") as target:
        while done < size:
            try:
                for piece in store.stream(key, done):
                    target.write(piece)
                    hashed.update(piece)
                    done, failures = done + len(piece), 0
            except FileNotFoundError:
                raise HostError(f"{address}/{key} is missing. Publish the data again.") from None
            except Conflict as error:
                raise HostError(f"{address}/{key}: {error.strerror}") from error
            except StoreError as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise HostError(f"{address}/{key}: {error.strerror or error}") from error
                time.sleep(pause)
    if done != size or hashed.hexdigest() != sha256:
        raise HostError(f"{address}/{key} does not match its SHA-256. Delete the object and publish the data again.")


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    address, key, file, size, sha256 = words
    try:
        download(Address.parse(address), key, Path(file), int(size), sha256)
    except AthanorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:  # of the disk
        print(f"{file}: {os.strerror(error.errno) if error.errno else error}", file=sys.stderr)
        return HostError.exit_code
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a data loader worker ignores it, and this process inherits that
    follow(lambda: False)
    sys.exit(main(sys.argv[1:]))
