"""Judges a trained capture: does it alias less, does it sound the same, and would oversampling have done better?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.amp.evaluation.guitar import ClipScores, clips_of, score_clips
from training.domains.amp.evaluation.tones import LOWPASS, TEACHER, Scores, Tones, references, score
from training.domains.amp.families import TONE
from training.domains.amp.networks.network import Network
from training.domains.amp.signal.nmr import AUDIBLE
from training.domains.amp.signal.tones import judged_length
from training.domains.amp.student.smaller import share
from training.judgement import (
    About,
    Finding,
    Judgement,
    Metric,
    Resampling,
    Verdict,
    against,
    compare,
    floor,
    resample,
    verdict,
)
from training.recipe import EvaluationContext

if TYPE_CHECKING:
    from training.domains.amp.student.recipe import AmpRecipe

STUDENT, ESR_ONLY = "student", "esr_only"
TITLES = {
    TEACHER: "the original", LOWPASS: "the original with a low-pass filter at 12 kHz", "T_2": "2x oversampling",
    "T_4": "4x oversampling", "T_8": "8x oversampling", ESR_ONLY: "a network trained for the error alone",
}  # fmt: skip
SHARE, KEPT, GOOD = 90.0, -15.0, -20.0
#: Of the sweep over levels, which decides nothing: C5 and C7, dB of full scale.
SWEPT_NOTES, SWEPT_LEVELS = (72, 96), tuple(range(-50, 1, 5))
ABOUT = {
    "excess_db": About("lower", "dB", "How far aliases are above the threshold of hearing, on average over tones.",
                       title="Excess"),
    "nmr_mean_db": About("lower", "dB", "Noise-to-mask ratio, the mean over tones in power: the loudest decide.",
                         title="NMR"),
    "inaudible": About("higher", "%", "Tones whose aliases are not heard: an NMR below -10 dB.", SHARE),
    "hesr_db": About("lower", "dB", "Error of the harmonics of tones: how much the sound itself has changed.", KEPT,
                     title="HESR"),
}  # fmt: skip
ABOUT_GUITAR = {
    "di_nmr_db": About("lower", "dB", "Noise-to-mask ratio on guitar, against 8x oversampling.", title="NMR on guitar"),
    "di_esr_db": About("lower", "dB", "Error on guitar, against 8x oversampling.", KEPT, title="ESR on guitar"),
}


def judge(recipe: AmpRecipe, context: EvaluationContext) -> Judgement:
    """Judge the largest network of a capture."""
    pair = context.model.rest()
    student, teacher = pair.students[-1], pair.teachers[-1]
    for_error = _esr_only(recipe, context)
    tones = Tones.of(pair.sample_rate, recipe.settings.judging.length or judged_length(pair.sample_rate))
    target, answers = references(tones, teacher)
    answers[STUDENT] = tones.answers(student)
    answers[ESR_ONLY] = tones.answers(for_error)
    scores = score(tones, target, answers)
    clips = clips_of(context.held_out, pair.sample_rate, recipe.settings.judging.clips)
    guitar = score_clips(clips, teacher, {STUDENT: student, ESR_ONLY: for_error}) if clips else {}
    seed = recipe.settings.seed
    metrics = compare_all(tones, scores, guitar, seed)
    found, instead = findings(metrics)
    if recipe.nano:
        found.append(_smaller(student, teacher))
    word = verdict(found)
    more = {
        "rate": tones.rate, "length": tones.length, "share": share(student, teacher), "oversample_instead": instead,
        "tones": _tones_plain(tones, scores), "levels": _sweep(tones, teacher, student), "clips": _clips_plain(guitar),
    }  # fmt: skip
    return Judgement(metrics, Verdict(word.word, word.why), {"amp": more})


def _esr_only(recipe: AmpRecipe, context: EvaluationContext) -> Any:
    """The same network, trained without the term of the NMR."""
    settings = recipe.settings
    loss = settings.loss.model_copy(update={"nmr": 0.0})
    other = recipe.with_settings(settings.model_copy(update={"loss": loss}))
    steps = max(1, round(context.steps * context.baseline_share))
    model = context.train_baseline(other, ESR_ONLY, None, steps)
    device = next(context.model.parameters()).device
    return model.to(device).rest().students[-1]


def compare_all(
    tones: Tones, scores: Mapping[str, Scores], guitar: Mapping[str, ClipScores], seed: int
) -> dict[str, Metric]:
    """Every metric of the student beside its baselines, with intervals over notes, and over clips of guitar."""
    notes = np.unique(tones.note)
    resampling = Resampling(len(notes), seed)
    draws = {name: resample(tone_sums(tones, one), resampling, _tone_summary) for name, one in scores.items()}
    own = draws.pop(STUDENT)
    metrics = compare(ABOUT, own, draws)
    if guitar:
        clips = len(guitar[STUDENT].nmr)
        of_clips = Resampling(clips, seed)
        draws = {name: resample(clip_sums(one), of_clips, _clip_summary) for name, one in guitar.items()}
        own = draws.pop(STUDENT)
        metrics |= compare(ABOUT_GUITAR, own, draws)
    return metrics


def tone_sums(tones: Tones, scores: Scores) -> dict[str, np.ndarray]:
    """(sum, number) of each note over its levels: float64 [notes, 2]."""
    _, which = np.unique(tones.note, return_inverse=True)
    of = {
        "power": 10 ** (scores.nmr / 10),
        "excess": np.maximum(scores.nmr, AUDIBLE) - AUDIBLE,
        "inaudible": (scores.nmr < AUDIBLE).astype(np.float64),
        "hesr": scores.hesr,
    }
    return {name: _by_unit(values, which) for name, values in of.items()}


def clip_sums(scores: ClipScores) -> dict[str, np.ndarray]:
    which = np.arange(len(scores.nmr))
    return {"nmr": _by_unit(scores.nmr, which), "esr": _by_unit(scores.esr, which)}


def _by_unit(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(which, values), np.bincount(which).astype(np.float64)], 1)


def _tone_summary(means: Mapping[str, float]) -> dict[str, float]:
    return {
        "excess_db": means["excess"], "nmr_mean_db": _db(means["power"]), "inaudible": 100 * means["inaudible"],
        "hesr_db": _db(means["hesr"]),
    }  # fmt: skip


def _clip_summary(means: Mapping[str, float]) -> dict[str, float]:
    return {"di_nmr_db": means["nmr"], "di_esr_db": _db(means["esr"])}


def _db(power: float) -> float:
    return 10 * math.log10(max(power, 1e-30))


# -- the verdict -------------------------------------------------------------------------------------------------------


def findings(metrics: Mapping[str, Metric]) -> tuple[list[Finding], bool]:
    """What decides the verdict, and whether 2x oversampling is the better way.

    learnt: excess and NMR are better than those of 2x oversampling, the intervals apart; 90 % of the tones without
    audible aliases; harmonics and guitar kept (-15 dB). weak: better than the original, and one of these missed.
    """
    excess, nmr = metrics["excess_db"], metrics["nmr_mean_db"]
    if excess.baselines[TEACHER].value < 0.05:
        clean = Finding("fair", "The original has hardly any audible aliases at these levels: nothing can be gained.")
        return [clean, *_kept(metrics)], False
    first = against(excess, TEACHER, TITLES[TEACHER], "excess", paired=True, ahead="fair", unit=TONE)
    twice = [
        _softened(against(metric, "T_2", TITLES["T_2"], what, unit=TONE))
        for metric, what in ((excess, "excess"), (nmr, "NMR"))
    ]
    lost = all(metric.model.value > metric.baselines["T_2"].value for metric in (excess, nmr))
    if lost:
        instead = (
            "Oversample instead: the original at 2x aliases less than this network, in a player that can do it, for "
            "about twice the processor time."
        )
        twice.insert(0, Finding("fair", instead))
    share = floor(metrics["inaudible"], "The share of tones without audible aliases")
    return [first, *twice, share, *_kept(metrics)], lost


def _smaller(student: Network, teacher: Network) -> Finding:
    """That it is another architecture, and what that saves: a player multiplies by each weight once a sample."""
    sentence = (
        f"It is a smaller network of the same format, with {100 * share(student, teacher):.0f} % of the original's "
        "weights, by each of which a player multiplies once a sample. Times are in cost.json."
    )
    return Finding("good", sentence)


def _softened(found: Finding) -> Finding:
    """Against 2x oversampling, which costs a player twice the time, nothing is bad that is better than the original."""
    return Finding("fair", found.sentence) if found.mark == "bad" else found


def _kept(metrics: Mapping[str, Metric]) -> list[Finding]:
    """Whether the sound is kept, on tones and on guitar."""
    out = []
    for name, what in (("hesr_db", "The error of the harmonics"), ("di_esr_db", "The error on guitar")):
        if name not in metrics:
            continue
        found = floor(metrics[name], what)
        quality = "good" if metrics[name].model.value <= GOOD else "fair"
        out.append(
            Finding(found.mark, f"{found.sentence} That is {quality}." if found.mark == "good" else found.sentence)
        )
    return out


# -- for the report ----------------------------------------------------------------------------------------------------


def _tones_plain(tones: Tones, scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    hertz = (tones.cycles.double() * tones.rate / tones.length).tolist()
    return [
        {
            "note": int(tones.note[n]), "level": float(tones.level[n]), "f0": round(hertz[n], 2),
            "nmr": {name: round(float(one.nmr[n]), 2) for name, one in scores.items()},
            "nmr_self": {name: round(float(one.nmr_self[n]), 2) for name, one in scores.items()},
            "hesr": {name: round(_db(float(one.hesr[n])), 2) for name, one in scores.items()},
        }
        for n in range(len(tones.note))
    ]  # fmt: skip


def _sweep(tones: Tones, teacher: Any, student: Any) -> list[dict[str, Any]]:
    """How NMR and HESR follow the level: a player turns the input up or down."""
    swept = Tones.of(tones.rate, tones.length, SWEPT_NOTES, [float(level) for level in SWEPT_LEVELS])
    target, answers = references(swept, teacher)
    answers[STUDENT] = swept.answers(student)
    return _tones_plain(swept, score(swept, target, answers))


def _clips_plain(guitar: Mapping[str, ClipScores]) -> list[dict[str, Any]]:
    count = len(next(iter(guitar.values())).nmr) if guitar else 0
    return [
        {
            "nmr": {name: round(float(one.nmr[n]), 2) for name, one in guitar.items()},
            "esr": {name: round(_db(float(one.esr[n])), 2) for name, one in guitar.items()},
        }
        for n in range(count)
    ]  # fmt: skip
