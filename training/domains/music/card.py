"""The texts of music's families on the model card."""

from __future__ import annotations

from training.domain import CardText

CARDS = {
    "spectocloud": CardText(
        about=(
            "Draws the musical space that a moment of sound occupies, as a cloud of 1,200 particles: sound and emotion "
            "in, positions, colours and properties out. Small enough to run live."
        ),
        task="sound and emotion to a cloud of particles",
        limits=(
            "It learns from clouds that a fixed renderer makes of the notes; it is judged by them, not by taste.",
            "It hears short windows of mono sound at 44,100 Hz. Speech, noise and silence are not what it knows.",
            "The emotion is an input. It does not detect what a listener feels.",
        ),
    ),
    "midi_generator": CardText(
        about=(
            "Writes music as tokens for an emotion that it is given: notes, velocities, positions, instruments and "
            "tempi, which become a MIDI file. One token at a time with a key-value cache, also live."
        ),
        task="emotion to symbolic music",
        limits=(
            "Sampled without a grammar, token sequences may be illegal; the project's own sampler has one.",
            "It knows the styles of its training music alone, and a small corpus invites copying: see the metrics.",
            "Emotions are points in valence, arousal and intensity; how people hear them differs between cultures.",
        ),
    ),
}
