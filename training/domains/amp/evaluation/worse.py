"""Whether a trained network is worse than its original, so that no file is written; and the figures for that file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.domains.amp.evaluation.tones import TEACHER, Tones, nmr_mean, score
from training.domains.amp.signal.nmr import AUDIBLE
from training.domains.amp.signal.tones import TRAINING_LENGTH, without_aliases
from training.domains.amp.student.pair import Pair

STUDENT = "student"
KEPT = -10.0  # dB of HESR above which the sound is not the capture's any more


@dataclass(frozen=True)
class Checked:
    """Figures of the largest network for its file, and the reason not to write it, or None."""

    figures: dict[str, float]  # in dB, before and after
    worse: str | None


def checked(pair: Pair) -> Checked:
    """Compare the students with their teachers on tones of 0.2 s, in float64. Deterministic."""
    pair.rest()
    figures, worse = {}, None
    for student, teacher in pair.both():
        figures, reason = _checked(student, teacher, pair.sample_rate)
        worse = worse or reason
    return Checked(figures, worse)


def _checked(student, teacher, rate: int) -> tuple[dict[str, float], str | None]:
    tones = Tones.of(rate, TRAINING_LENGTH)
    plain = tones.answers(teacher)
    target = without_aliases(plain, tones.cycles.to(plain.device))
    scores = score(tones, target, {TEACHER: plain, STUDENT: tones.answers(student)})
    before, after = (float((np.maximum(scores[name].nmr, AUDIBLE) - AUDIBLE).mean()) for name in (TEACHER, STUDENT))
    changed = float(10 * np.log10(scores[STUDENT].hesr.mean() + 1e-30))
    figures = {
        "nmr_before_db": nmr_mean(scores[TEACHER].nmr), "nmr_after_db": nmr_mean(scores[STUDENT].nmr),
        "excess_before_db": before, "excess_after_db": after, "hesr_db": changed,
    }  # fmt: skip
    figures = {name: round(value, 2) for name, value in figures.items()}
    if not figures["excess_after_db"] < figures["excess_before_db"]:  # rounded: what differs by less is the same
        return figures, (
            f"its aliases are {after:.1f} dB above the threshold of hearing, those of the original {before:.1f} dB"
        )
    if changed > KEPT:
        return figures, (
            f"its harmonics differ from the original's by {changed:.1f} dB (ESR); at most {KEPT:g} dB is required"
        )
    return figures, None
