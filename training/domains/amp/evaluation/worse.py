"""Whether a trained network is worse than its original, so that no file is written."""

from __future__ import annotations

import numpy as np

from training.domains.amp.evaluation.tones import TEACHER, Tones, references, score
from training.domains.amp.signal.nmr import AUDIBLE
from training.domains.amp.signal.tones import TRAINING_LENGTH
from training.domains.amp.student.pair import Pair

STUDENT = "student"
KEPT = -10.0  # dB of HESR above which the sound is not the capture's any more


def why_worse(pair: Pair) -> str | None:
    """The reason not to write the students' file, or None. Deterministic: tones of 0.2 s, in float64."""
    pair.rest()
    for student, teacher in pair.both():
        tones = Tones.of(pair.sample_rate, TRAINING_LENGTH)
        target, answers = references(tones, teacher)
        scores = score(tones, target, {TEACHER: answers[TEACHER], STUDENT: tones.answers(student)})
        before, after = (float((np.maximum(scores[name].nmr, AUDIBLE) - AUDIBLE).mean()) for name in (TEACHER, STUDENT))
        changed = 10 * np.log10(scores[STUDENT].hesr.mean() + 1e-30)
        if not after < before:
            return (
                f"its aliases are {after:.1f} dB above the threshold of hearing, those of the original {before:.1f} dB"
            )
        if changed > KEPT:
            return (
                f"its harmonics differ from the original's by {changed:.1f} dB (ESR); at most {KEPT:g} dB is required"
            )
    return None
