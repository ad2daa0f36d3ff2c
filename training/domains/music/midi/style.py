"""Style measurements on the notes of a piece: density, loudness, register, mode and articulation."""

from __future__ import annotations

import numpy as np

from training.domains.music.midi import tokens

# Probe-tone profiles of Krumhansl and Kessler (1982), from the tonic upwards.
_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])

LEAST_DENSITY = 0.1  # onsets a second, added before the logarithm
FEATURES = ("density", "velocity", "pitch", "majorness", "articulation")
MEASURED = (*FEATURES, "tempo")


def features(notes: np.ndarray, tempo: float | None = None) -> dict[str, float]:
    """Style of a piece, from its notes (NOTE array, seconds); the tempo is passed in, because notes do not contain it.

    density: distinct onsets a second over the sounding time (10 ms apart or more), drums included
    velocity: mean MIDI velocity, drums included · pitch: mean MIDI pitch without drums, weighted by duration
    majorness: see `majorness` · articulation: see `articulation`
    tempo: as given, beats a minute; left out when not given

    A piece without notes has density and velocity 0, pitch 60, majorness 0, articulation 1.
    """
    pitched = notes[~notes["drum"]]
    span = float((notes["onset"] + notes["duration"]).max() - notes["onset"].min()) if len(notes) else 0.0
    weights = np.minimum(pitched["duration"], 4.0)
    out = {
        "density": len(np.unique(np.round(notes["onset"] / 0.01))) / span if span > 0 else 0.0,
        "velocity": float(notes["velocity"].mean()) if len(notes) else 0.0,
        "pitch": float(np.average(pitched["pitch"], weights=weights)) if len(pitched) else 60.0,
        "majorness": majorness(notes),
        "articulation": articulation(notes),
    }
    if tempo is not None:
        out["tempo"] = float(tempo)
    return out


def measure(ids: np.ndarray) -> np.ndarray:
    """The style of a piece from its token ids, f64 [6], in the order of MEASURED; density and tempo, which are ratios,
    as logarithms."""
    score = tokens.decode(ids)
    found = features(score.seconds(), 240.0 / float(np.median(score.bars)) if len(score.bars) else 120.0)
    found["density"], found["tempo"] = np.log(found["density"] + LEAST_DENSITY), np.log(found["tempo"])
    return np.array([found[name] for name in MEASURED])


def majorness(notes: np.ndarray) -> float:
    """Best correlation with a major key minus best with a minor one (Krumhansl 1990, ch. 4): > 0 major, < 0 minor."""
    pitched = notes[~notes["drum"]]
    if not len(pitched):
        return 0.0
    weight = np.bincount(pitched["pitch"] % 12, np.minimum(pitched["duration"], 4.0), 12)
    if np.ptp(weight) == 0:
        return 0.0
    turns = np.stack([np.roll(weight, -tonic) for tonic in range(12)])
    return float(_correlations(turns, _MAJOR).max() - _correlations(turns, _MINOR).max())


def _correlations(rows: np.ndarray, profile: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(1, keepdims=True)
    profile = profile - profile.mean()
    return rows @ profile / (np.linalg.norm(rows, axis=1) * np.linalg.norm(profile))


def articulation(notes: np.ndarray) -> float:
    """Median over notes of (duration / time to the next onset of the same program), each clipped to 1.5.

    About .4 is staccato, 1 legato. Drums are excluded, as is an instrument's last chord, which has no next onset.
    """
    shares = []
    pitched = notes[~notes["drum"]]
    for program in np.unique(pitched["program"]):
        voice = pitched[pitched["program"] == program]
        onsets = np.unique(voice["onset"])
        following = np.searchsorted(onsets, voice["onset"], "right")
        has_next = following < len(onsets)
        gap = onsets[following[has_next]] - voice["onset"][has_next]
        shares.append(np.minimum(voice["duration"][has_next] / gap, 1.5))
    every = np.concatenate(shares) if shares else np.zeros(0)
    return float(np.median(every)) if len(every) else 1.0
