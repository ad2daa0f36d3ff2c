"""training/configs/colab_setup.yaml: the subscription, the limits of a session, the drive and the data. Every key has
an effect; an unknown one is refused with the nearest name."""

from __future__ import annotations

import difflib
import json
import subprocess
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from training.colab.surroundings import PROJECT, ColabError, environment_python

FILE = PROJECT / "training/configs/colab_setup.yaml"


@dataclass(frozen=True)
class Subscription:
    """What is paid for. It gives the price of an hour, and how many runs a month allows."""

    tier: str = "Colab Pro+"
    cost_per_month_usd: float = 58.99
    compute_units: float = 600.0
    max_runtime_hours: float = 24.0
    prices_of: str = "2025-12"  # the month in which these were looked up

    @property
    def usd_per_unit(self) -> float:
        return self.cost_per_month_usd / self.compute_units


@dataclass(frozen=True)
class Compute:
    """GPUs. `units_per_hour`: name -> compute units an hour, as Colab's panel "Resources" shows them."""

    expected_gpu: str = "A100"
    units_per_hour: dict[str, float] = field(
        default_factory=lambda: {"T4": 1.8, "L4": 4.8, "G4": 9.0, "A100": 10.0, "H100": 19.0}
    )


@dataclass(frozen=True)
class Session:
    """Limits of time. `margin_minutes`: kept free before the session ends, for the last copy; `warn_hours`: from here
    on the time left is printed; `probe_seconds`: between two looks at the drive while a job runs."""

    margin_minutes: float = 20.0
    warn_hours: float = 2.0
    probe_seconds: float = 60.0
    save_minutes: float = 10.0
    save_steps: int = 0  # 0: by the minutes alone
    keep: int = 2


@dataclass(frozen=True)
class Drive:
    mount_path: str = "/content/drive"
    folder: str = "MyDrive/athanor"  # below the mount; --persist
    flush_seconds: float = 900.0


@dataclass(frozen=True)
class Data:
    local_path: str = "/content/data"
    size_limit_mb: float = 500.0


@dataclass(frozen=True)
class ColabSettings:
    subscription: Subscription = Subscription()
    compute: Compute = field(default_factory=Compute)
    session: Session = Session()
    drive: Drive = Drive()
    data: Data = Data()

    @classmethod
    def of(cls, plain: Any, source: Path | str) -> ColabSettings:
        """From a mapping of sections. Raises ColabError for an unknown key or a wrong type, named with its file."""
        sections = {one.name: globals()[str(one.type)] for one in fields(cls)}
        if not isinstance(plain, dict):
            raise ColabError(f"{source}: it must hold sections: {', '.join(sections)}.")
        made = {}
        for name, values in plain.items():
            if name not in sections:
                raise ColabError(f"{source}: there is no section `{name}`{_near(name, sections)}.")
            made[name] = _section(sections[name], values, f"{source}: {name}")
        return cls(**made)


def load_settings(file: Path = FILE) -> ColabSettings:
    """Read a file like training/configs/colab_setup.yaml, with the environment's YAML. Raises ColabError."""
    code = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))"
    done = subprocess.run(
        [environment_python(), "-P", "-c", code, str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ColabError(f"{file} cannot be read:\n{done.stderr.strip().splitlines()[-1]}")
    return ColabSettings.of(json.loads(done.stdout), file)


def _section(kind: Any, values: Any, where: str) -> Any:
    known = {one.name: one for one in fields(kind)}
    if not isinstance(values, dict):
        raise ColabError(f"{where} must hold keys: {', '.join(known)}.")
    made = {}
    for key, value in values.items():
        if key not in known:
            raise ColabError(f"{where}: there is no key `{key}`{_near(key, known)}.")
        made[key] = _value(str(known[key].type), value, f"{where}.{key}")
    return kind(**made)


def _value(kind: str, value: Any, where: str) -> Any:
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "int" and type(value) is int and value >= 0:
        return value
    if kind == "float" and type(value) in (int, float) and value >= 0:
        return float(value)
    if kind.startswith("dict") and isinstance(value, dict):
        return {str(name): _value("float", one, f"{where}.{name}") for name, one in value.items()}
    wanted = {"str": "a text", "int": "a whole number from 0 up", "float": "a number from 0 up"}.get(
        kind, "numbers by name"
    )
    raise ColabError(f"{where} takes {wanted}, not {value!r}.")


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean `{close[0]}`?" if close else f"; there are {', '.join(known)}"
