"""`google.colab.userdata`: the notebook's secrets, from the folder `secrets` of STANDIN_CONTROL."""

import os
from pathlib import Path


class SecretNotFoundError(Exception):
    pass


class NotebookAccessError(Exception):
    pass


def get(key):
    path = Path(os.environ["STANDIN_CONTROL"], "secrets", key)
    if not path.exists():
        raise SecretNotFoundError(f"Secret {key} does not exist.")
    return path.read_text()
