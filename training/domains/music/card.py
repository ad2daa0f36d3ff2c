"""The texts of music's families on the model card."""

from __future__ import annotations

from training.domain import CardText

CARDS = {
    "spectocloud": CardText(
        about=(
            "Maps a short window of sound and an emotion to a cloud of 1,200 particles: positions, colours and "
            "properties. Small enough to run in real time."
        ),
        task="sound and emotion to a cloud of particles",
        limits=(
            "Its targets are clouds that a fixed renderer draws from the notes; no listener has rated its output.",
            "Its input is 1.5 s of mono sound at 44,100 Hz. It was not trained on speech, noise or silence.",
            "The emotion is an input. The model does not detect what a listener feels.",
        ),
    ),
    "midi_generator": CardText(
        about=(
            "Generates music for a given emotion as tokens (notes, velocities, positions, instruments, tempi), which "
            "are converted to a MIDI file. Decodes one token at a time with a key-value cache, also in real time."
        ),
        task="emotion to symbolic music",
        limits=(
            "Sampled without grammar constraints, token sequences may be invalid; the project's sampler enforces them.",
            "It generates the styles of its training music only. With a small corpus it may copy: see the metrics.",
            "Emotions are points in valence, arousal and intensity; how people hear them differs between cultures.",
        ),
    ),
}
