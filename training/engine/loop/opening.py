"""Steps of opening a run that stepped and fitted families share: the decision to resume, constants, log texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.provenance import hardware
from training.engine.checkpoints.resume import Decision, Wanted
from training.engine.loop.progress import Progress
from training.engine.process.distributed import Ranks
from training.errors import DataError
from training.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

    from training.data.rows import Row

#: The requested run -> the checkpoint from which it continues, if any. Called on rank 0 alone.
Decide = Callable[[Wanted], Decision]


def decided(ranks: Ranks, decide: Decide, wanted: Wanted) -> tuple[Decision, dict[str, Any] | None]:
    """The decision of rank 0, and the content of the checkpoint to continue from (None: a new run), on every rank."""
    decision = ranks.on_rank_zero(lambda: decide(wanted))
    path = decision.path
    return decision, ranks.from_first_host(lambda: read(path)) if path else None


def constants_of(
    recipe: Recipe, rows: Sequence[Row], ranks: Ranks, content: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """The constants of a run: those of its checkpoint `content`; for a new run fitted on rank 0, and sent to all."""
    if content is not None:
        return {name: tensor.numpy() for name, tensor in content["constants"].items()}
    return ranks.on_rank_zero(lambda: recipe.fit_constants(rows))


def require_examples(samples: int, held_out: int) -> None:
    """Raise DataError for an empty split."""
    for count, split in ((samples, "training"), (held_out, "validation")):
        if count == 0:
            raise DataError(
                f"The {split} split holds no example, so nothing can be trained. Look at the manifest and at the "
                "summary of `prepare`."
            )


def place(ranks: Ranks) -> str:
    """The devices of a run, as text for the log."""
    return f"{hardware(ranks)['device']}" + (f" x {ranks.world}" if ranks.world > 1 else "")


def standing(progress: Progress, resumed: bool) -> str:
    """The step at which a run begins or resumes, as text for the log."""
    if resumed:
        return f"resumed at step {progress.step} of {progress.total_steps}"
    return f"{progress.total_steps} steps in all"
