"""`train` for the toy family, as a command: `python toy_train.py [FLAGS of train]`. It generates its rows.

TOY_SECONDS: duration of a step, so that a kill happens during one. TOY_FORGETS: what a resumed run gets wrong:
`optimizer` begins with new moments; `fail` ends at once with exit code 6.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.engine import toy
from training.config import Layer, build, override_layer
from training.engine.loop.state import State
from training.errors import AthanorError, Interrupted
from training.stages.train import train
from training.workspace import Workspace

SECTIONS = {"training": {"epochs": 9, "ema_decay": 0.9}, "model": {"dropout": 0.3}}
FORGETS = os.environ.get("TOY_FORGETS", "")


class Paced(toy.ToyRecipe):
    def losses(self, model, batch, progress):
        time.sleep(float(os.environ["TOY_SECONDS"]))
        return super().losses(model, batch, progress)


def load(state, *arguments, straight=State.load):
    straight(state, *arguments)
    if FORGETS == "optimizer":
        state.optimizer.state.clear()


State.load = load
parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path)
parser.add_argument("--set", action="append", default=[])
options, _ = parser.parse_known_args()
recipe = Paced(build(toy.ToySettings, Layer(toy.BASE), Layer(SECTIONS), override_layer(options.set)))
rows = {"train": toy.rows(22), "val": toy.rows(9, 1000)}
if "fail" in FORGETS:
    print("this host is on fire", file=sys.stderr)
    sys.exit(6)
try:
    train(recipe, Workspace(options.out), device="cpu", load=rows.__getitem__)
except (AthanorError, Interrupted) as error:
    sys.exit(error.exit_code)
