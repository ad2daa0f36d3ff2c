"""The decisions of one symbol: what a model sees at each completed bar, and what happened afterwards.

They are columns in one safetensors file a symbol, which manifest rows refer to by index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.encode import Encoder
from training.domains.market.rows import DECISIONS_PATH

if TYPE_CHECKING:
    from training.data.rows import Row

BAR = 300_000_000_000  # ns between two decisions
CLASSES = ("down", "flat", "up")  # the barrier that is touched first; flat: neither
DTYPES = {
    "features": np.float32, "label": np.int8, "decided": np.int64, "entered": np.int64, "ends": np.int64,
    "weight": np.float32, "gain": np.float32, "gain_sold": np.float32, "up": np.float32, "down": np.float32,
    "cost": np.float32, "day": np.int32, "run": np.int32,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Decisions:
    """N decisions in time order, one at the completion of each 5-minute bar that all features are defined for.

    Times are nanoseconds UTC. Returns and distances are in ATRs at the decision.
    """

    names: tuple[str, ...]  # of the F features
    features: np.ndarray  # float32 [N, F]: not scaled, without NaN
    label: np.ndarray  # int8 [N]: index into CLASSES
    decided: np.ndarray  # int64 [N]: the bar is complete, the model decides
    entered: np.ndarray  # int64 [N]: the open at which the decision is executed
    ends: np.ndarray  # int64 [N]: a barrier is touched, or the time is over
    weight: np.ndarray  # float32 [N]: average uniqueness (Lopez de Prado 2018, section 4.4)
    gain: np.ndarray  # float32 [N]: price at the end less the price at the entry, before costs
    gain_sold: np.ndarray  # float32 [N]: the same for a sale: a minute that touches both barriers is its loss, too
    up: np.ndarray  # float32 [N]: distance of the upper barrier, costs included
    down: np.ndarray  # float32 [N]: distance of the lower barrier
    cost: np.ndarray  # float32 [N]: of the round trip
    day: np.ndarray  # int32 [N]: number of the trading day: days since 1970-01-01
    run: np.ndarray  # int32 [N]: number of the contiguous stretch; a window of rows is valid inside one stretch only

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray | slice) -> Decisions:
        """Some of the decisions."""
        columns = {name: getattr(self, name)[index] for name in DTYPES}
        return Decisions(self.names, **columns)

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns and the names, as they are stored."""
        out = {name: np.ascontiguousarray(getattr(self, name), dtype) for name, dtype in DTYPES.items()}
        return out | {"names": np.frombuffer(json.dumps(self.names).encode(), np.uint8)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Decisions:
        """The inverse of `arrays`."""
        names = tuple(json.loads(arrays["names"].tobytes()))
        return cls(names, **{one.name: arrays[one.name] for one in fields(cls) if one.name != "names"})


def write(path: Path, decisions: Decisions) -> bool:
    """Write the decisions atomically; returns False if the file already had this content."""
    from safetensors.numpy import save

    from training.data.files import write_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomic(path, save(decisions.arrays()))


def decode(path: Path) -> dict[str, np.ndarray]:
    """The columns of a file of decisions. Raises ValueError if it is no such file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"is no file of decisions: {error}") from None
    missing = sorted({*DTYPES, "names"} - set(arrays))
    if missing:
        raise ValueError(f"is no file of decisions: it has no {', '.join(missing)}")
    return arrays


def read(path: Path) -> Decisions:
    """The decisions of a file. Raises ValueError if it is no such file."""
    return Decisions.of(decode(path))


ENCODER = Encoder("decisions", "decisions 2", decode, seconds=120.0, processor=30.0, bytes_per_second=20e6,
                  megabytes=8192, imports=("safetensors.numpy",))  # fmt: skip


def encoders() -> Mapping[str, Encoder]:
    """The encoders of every family of the domain."""
    return {DECISIONS_PATH: ENCODER}


def of_rows(rows: Sequence[Row]) -> tuple[Decisions, np.ndarray]:
    """All decisions of the rows' symbol, and the indices (int64, ascending) of those that the rows name.

    The complete columns are needed for windows that begin before a row. Raises ValueError if the rows are of several
    files.
    """
    keys = {_key(row) for row in rows}
    if len(keys) != 1:
        raise ValueError(f"rows of one symbol are needed; these are of {len(keys)}")
    index = np.concatenate([np.arange(row.values["first"], row.values["last"]) for row in rows])
    return Decisions.of(rows[0].records[DECISIONS_PATH]), np.sort(index)


def _key(row: Row) -> Any:
    return row.values[DECISIONS_PATH]
