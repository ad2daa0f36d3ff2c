"""`make check-clouds`: validates a file of this folder with the schema of the program that reads it, offline.

check.py skypilot | dstack: run in an environment that has that program (half a minute to import SkyPilot).
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import yaml

HERE = Path(__file__).parent


def skypilot() -> None:
    """Raises ValueError for a file that SkyPilot refuses."""
    from sky.utils import common_utils, schemas

    content = yaml.safe_load((HERE / "skypilot.yaml").read_text())
    common_utils.validate_schema(content, schemas.get_task_schema(), "skypilot.yaml: ")


def dstack() -> None:
    """Raises an error of dstack for a file that it refuses."""
    from dstack._internal.core.models.configurations import parse_run_configuration

    parse_run_configuration(yaml.safe_load((HERE / "dstack.yml").read_text()))


if __name__ == "__main__":
    {"skypilot": skypilot, "dstack": dstack}[sys.argv[1]]()
    print(f"{sys.argv[1]} {version(sys.argv[1])}: the file is valid.")
