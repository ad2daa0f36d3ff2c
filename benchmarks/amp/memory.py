"""Memory of a training step of preset `full` for each sample of a batch, by which its batch size was chosen:

    python -m benchmarks.amp.memory

The largest sum of all tensors that are alive at once during a step on a CPU, with batches of 2 and 4 samples: the
difference is what further samples take. The network computes as it does on a GPU. What a GPU adds (context, kernels,
workspaces, fragmentation) is not in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.amp.training_step import Ours, lstm, wavenet
from training.domains.amp.networks import columns
from training.domains.amp.networks.network import Network

BATCHES = (2, 4)
GPU = 24e9  # bytes


class Alive(TorchDispatchMode):
    """Sums the storages that operators made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._storages = {key: one for key, one in self._storages.items() if not one[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._storages.values()))
        return out


def most_alive(network: Network, batch: int) -> int:
    """Bytes in a step of `batch` samples."""
    ours = Ours(network, batch)
    with Alive() as alive:
        ours.step()
    return alive.most


def main() -> None:
    columns.MOST_CHANNELS = 0  # the way for small networks on a CPU is not taken
    print(f"{'network':<32}{'MB a sample':>12}{'MB besides':>12}{'GB at 40':>10}{'samples in 24 GB':>18}")
    for name, network in (
        ("WaveNet A1, 16 and 8 channels", wavenet((16, 8), 10)),
        ("WaveNet A1, 4 and 2 channels", wavenet((4, 2), 10)),
        ("LSTM of 40 cells", lstm(40)),
    ):
        few, many = (most_alive(network, batch) for batch in BATCHES)
        each = (many - few) / (BATCHES[1] - BATCHES[0])
        rest = few - BATCHES[0] * each
        print(f"{name:<32}{each / 1e6:12.1f}{rest / 1e6:12.1f}{(rest + 40 * each) / 1e9:10.2f}"
              f"{int((GPU - rest) / each):18,}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
