"""The texts of the families on the model card."""

from __future__ import annotations

from training.domain import CardText


def card() -> CardText:
    """The part of the encoding model."""
    return CardText(
        about=(
            "Predicts the BOLD signal of every voxel of each of its subjects from pictures, motion, sound and words of "
            "a film. It begins as ridge regression of reduced rank and learns a residual."
        ),
        task="film to BOLD",
        limits=(
            "It holds for its subjects, its scanner and films like that of its training: it knows no other brain.",
            "A correlation shows that features and signal go together, not that a region computes the features.",
            "Ceilings between subjects are lower bounds: what a subject does not share with others counts as noise.",
        ),
    )
