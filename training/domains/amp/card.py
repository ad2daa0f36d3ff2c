"""The texts of the family on the model card."""

from __future__ import annotations

from training.domain import CardText

CARD = CardText(
    about=(
        "A capture of a guitar amplifier, fine-tuned so that it aliases less: the same file format, architecture, size "
        "and cost in players as the capture that it was made from."
    ),
    task="guitar to amplifier",
    limits=(
        "It imitates its capture, not the amplifier: what the capture gets wrong stays wrong.",
        "Captures have owners. A fine-tuned capture is derived from one: share it only if you may share the original.",
        "It is judged by tones over the fretboard and by clips of guitar; nothing else is measured.",
        "Players with a fast approximation of tanh differ from these figures by about 0.2 dB of noise-to-mask ratio.",
    ),
)
