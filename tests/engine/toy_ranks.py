"""The program of each rank: `python -m tests.engine.toy_ranks OUT JSON` (tests/ranks.py). JSON maps the name of a run
to its settings and to these options; the runs are done one after the other.

`stop_at`: the step in which rank 1 alone gets SIGTERM. `out_of_memory_at`: the step from which rank 1 has memory for 2
samples. `seconds`: the budget. `apart`: a folder in which each rank has a separate workspace, as on two hosts. `kind`:
a recipe of toy_sharded.py. `continues`: the run that this one continues, in a copy of its folder. `on_device`: whether
steps are skipped as on a GPU.
"""

import json
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import torch

from tests.engine import toy, toy_sharded
from training.errors import AthanorError, Interrupted


def left(end):
    return end - time.monotonic()


torch.set_num_threads(1)
rank = int(os.environ["RANK"])
held = toy_sharded.Held()
for name, options in json.loads(sys.argv[2]).items():
    folder = root = Path(sys.argv[1], name)
    begun = options.pop("continues", "")
    if begun and rank == 0:  # before it joins the other
        shutil.copytree(Path(sys.argv[1], begun), root, ignore=shutil.ignore_patterns("stacks_*"))  # of live ranks
    os.environ["LOCAL_WORLD_SIZE"] = "2"
    if apart := options.pop("apart", ""):
        root = Path(sys.argv[1], apart, f"host{rank}")
        os.environ["LOCAL_WORLD_SIZE"] = "1"
    stop_at, out_of_memory_at = options.pop("stop_at", -1), options.pop("out_of_memory_at", None)
    kind = getattr(toy_sharded, options.pop("kind", ""), toy.ToyRecipe)
    kind = toy.stopped(stop_at, kind=kind) if rank == 1 else kind
    if out_of_memory_at is not None and rank == 1:
        kind = toy.hungry(2, out_of_memory_at)
    if seconds := options.pop("seconds", 0):
        options |= {"limit": seconds, "left": partial(left, time.monotonic() + seconds)}
    toy.ToyRecipe.log.clear()
    held.clear(options.pop("on_device", False))
    try:
        trained = toy.run(root, kind, **options)
        messages = {
            "step": trained.step,
            "finished": trained.finished,
            "metrics": trained.metrics,
            "run": trained.run.name,
            "held": held.plain(),
        }
    except (AthanorError, Interrupted) as error:
        messages = {"error": str(error), "exit": error.exit_code}
    messages["log"] = toy.ToyRecipe.log
    folder.mkdir(exist_ok=True)
    (folder / f"rank{rank}.json").write_text(json.dumps(messages))
