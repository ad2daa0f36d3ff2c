#!/usr/bin/env python3
"""Train the Sherlock autoencoder from a configuration.

python scripts/train.py --config examples/train_config.yaml [--data_dir DIR]
torchrun --nproc_per_node=8 scripts/train.py --config examples/train_config.yaml --distributed
"""

import argparse
import difflib
import inspect
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from giblet.data.dataset import SherlockDataset
from giblet.models.autoencoder import create_autoencoder
from giblet.training import Trainer, TrainingConfig, cleanup_distributed, setup_distributed
from training.config import read_yaml
from training.errors import AthanorError, Interrupted, UsageError

SECTIONS: dict[str, Collection[str]] = {
    "data": ("data_dir", "subjects", "apply_hrf", "mode", "train_split", "val_split"),
    "model": tuple(inspect.signature(create_autoencoder).parameters),
    "distributed": ("enabled", "backend", "world_size", "master_addr", "master_port"),
}


def sections_of(path: Path) -> tuple[TrainingConfig, dict[str, dict[str, Any]]]:
    """The configuration of a file, and its sections. Raises UsageError for an unknown key, with the nearest one."""
    values = dict(read_yaml(path).values)
    sections = {name: _section(path, name, values.pop(name, None), known) for name, known in SECTIONS.items()}
    return TrainingConfig.of(values, str(path)), sections


def _section(path: Path, name: str, values: Any, known: Collection[str]) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{path}: `{name}` should hold keys; it is {values!r}.")
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1)
            hint = f"; did you mean `{near[0]}`?" if near else f": it may have {', '.join(known)}."
            raise UsageError(f"{path}: there is no key `{name}.{key}`{hint}")
    return dict(values)


def _started(own: Mapping[str, Any]) -> int:
    """The number of processes, of which this is one. Raises UsageError where the configuration names another."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if own.get("world_size") not in (None, world) and world > 1:
        raise UsageError(f"distributed.world_size is {own['world_size']}, and {world} processes were started.")
    if own.get("backend") not in (None, "nccl", "gloo"):
        raise UsageError(f"distributed.backend should be nccl or gloo; it is {own['backend']!r}.")
    import torch

    expected = "nccl" if torch.cuda.is_available() else "gloo"
    if own.get("backend") not in (None, expected):
        raise UsageError(f"distributed.backend is {own['backend']}, and this host needs {expected}: leave it out.")
    return world


def run(arguments: list[str]) -> int:
    """Train; returns the exit code: 0, or that of the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("examples/train_config.yaml"), metavar="FILE")
    parser.add_argument("--distributed", action="store_true", help="one of several processes, as torchrun starts them")
    parser.add_argument("--local_rank", type=int, default=0, help="torchrun's LOCAL_RANK comes first")
    parser.add_argument("--data_dir", metavar="DIR", help="instead of data.data_dir")
    options = parser.parse_args(arguments)
    try:
        _train(options)
    except (AthanorError, Interrupted) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _train(options: argparse.Namespace) -> None:
    config, sections = sections_of(options.config)
    data, own = sections["data"], sections["distributed"]
    distributed = options.distributed or bool(own.get("enabled"))
    world, rank = _started(own) if distributed else 1, int(os.environ.get("LOCAL_RANK", options.local_rank))
    if distributed and world == 1:
        print("note: --distributed without torchrun is one process: torchrun --nproc_per_node=8 scripts/train.py ...")
    if distributed:
        setup_distributed(
            rank, world, **{name: own[name] for name in ("master_addr", "master_port") if name in own}
        )  # fmt: skip
    splits = [data.pop("train_split", "train"), data.pop("val_split", "val")]
    if options.data_dir:
        data["data_dir"] = options.data_dir
    train_set, val_set = (SherlockDataset(split=split, **data) for split in splits)
    model = create_autoencoder(**sections["model"])
    try:
        done = Trainer(model, train_set, val_set, config, distributed, rank, world).train()
    finally:
        cleanup_distributed()
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"Best validation loss: {done['best_val_loss']:.6f}")
        print(f"Checkpoints: {config.checkpoint_dir}; logs: {config.log_dir}")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
