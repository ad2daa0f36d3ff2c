"""The texts of the families on the model card."""

from __future__ import annotations

from training.domain import CardText

LIMITS = (
    "It holds for its subjects, its scanner and films like that of its training: it knows no other brain.",
    "A correlation shows that features and signal go together, not that a region computes the features.",
)


def card(family: str) -> CardText:
    """The part of a family."""
    if family == "decoding":
        return CardText(
            about=(
                "Reads features of pictures, motion, sound and words of a film from the BOLD of each of its subjects, "
                "some seconds later. It begins as ridge regression from delayed voxels and learns a residual."
            ),
            task="BOLD to features of a film",
            limits=(*LIMITS, "It decodes features of films like those of its training, not what anybody thinks."),
        )
    beside = {"autoencoder": " Its bottleneck also gives back pictures, log-mel levels and counts of words."}
    return CardText(
        about=(
            "Predicts the BOLD signal of every voxel of each of its subjects from pictures, motion, sound and words of "
            "a film. It begins as ridge regression of reduced rank and learns a residual." + beside.get(family, "")
        ),
        task="film to BOLD",
        limits=(
            *LIMITS,
            "Ceilings between subjects are lower bounds: what a subject does not share with others counts as noise.",
        ),
    )
