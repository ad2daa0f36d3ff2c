"""Judges a trained capture: does it alias less, does it sound the same, and would oversampling have done better?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.amp.evaluation.guitar import ClipScores, clips_of, score_clips
from training.domains.amp.evaluation.tones import LOWPASS, NOTES, TEACHER, Scores, Tones, references, score
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
from training.report.measures import ROWS

if TYPE_CHECKING:
    from training.domains.amp.student.recipe import AmpRecipe

STUDENT, ESR_ONLY = "student", "esr_only"
TITLES = {
    TEACHER: "the original", LOWPASS: "the original with a low-pass filter at 12 kHz", "T_2": "2x oversampling",
    "T_4": "4x oversampling", "T_8": "8x oversampling", ESR_ONLY: "a network trained for the error alone",
}  # fmt: skip
SHARE, KEPT, GOOD = 90.0, -15.0, -20.0
UNHEARD = 0.05  # dB of excess below which nothing is left to hear, and nothing to gain
SAME = 0.01  # dB of excess below which two networks alias the same: an LSTM's answers depend on the batch by rounding
#: Of the sweep over levels, which decides nothing: C5 and C7, dB of full scale.
SWEPT_NOTES, SWEPT_LEVELS = (72, 96), tuple(range(-50, 1, 5))
ABOUT = {
    "excess_db": About("lower", "dB", "How far aliases are above the threshold of hearing, on average over tones.",
                       title="Excess"),
    "nmr_mean_db": About("lower", "dB", "Noise-to-mask ratio, the mean over tones in power: the loudest decide.",
                         title="NMR"),
    "inaudible": About("higher", "%", "Tones whose aliases are not heard: an NMR below -10 dB.", SHARE,
                       title="Inaudible tones"),
    "hesr_db": About("lower", "dB", "Error of the harmonics of tones: how much the sound itself has changed.", KEPT,
                     title="HESR"),
}  # fmt: skip
ABOUT_GUITAR = {
    "di_nmr_db": About("lower", "dB", "Noise-to-mask ratio on guitar, against 8x oversampling.", title="NMR on guitar"),
    "di_esr_db": About("lower", "dB", "Error on guitar, against 8x oversampling.", KEPT, title="ESR on guitar"),
    "di_inaudible": About("higher", "%", "Clips of guitar whose error is not heard: an NMR below -10 dB.",
                          title="Inaudible clips"),
}


def judge(recipe: AmpRecipe, context: EvaluationContext) -> Judgement:
    """Judge the largest network of a capture."""
    pair = context.model.rest()
    student, teacher = pair.students[-1], pair.teachers[-1]
    for_error = _esr_only(recipe, context)
    judging = recipe.settings.judging
    notes = np.linspace(NOTES[0], NOTES[-1], judging.notes).round()
    tones = Tones.of(pair.sample_rate, judging.length or judged_length(pair.sample_rate), notes.tolist())
    target, answers = references(tones, teacher)
    answers[STUDENT] = tones.answers(student)
    answers[ESR_ONLY] = tones.answers(for_error)
    scores = score(tones, target, answers)
    clips = clips_of(context.held_out, pair.sample_rate, judging.clips)
    guitar = score_clips(clips, teacher, {STUDENT: student, ESR_ONLY: for_error}) if clips else {}
    seed = recipe.settings.seed
    metrics = compare_all(tones, scores, guitar, seed)
    found, instead = findings(metrics)
    if recipe.nano:
        found.append(smaller_network(student, teacher, pair.capture.format))
    word = verdict(found)
    more = {
        "rate": tones.rate, "length": tones.length, "share": share(student, teacher), "oversample_instead": instead,
        "tones": _tones_plain(tones, scores), "levels": _sweep(tones, teacher, student), "clips": _clips_plain(guitar),
    }  # fmt: skip
    # Not the rows of the manifests, which are clips of guitar.
    return Judgement(metrics, Verdict(word.word, word.why), {"amp": more, ROWS: {"held_out": len(tones.note)}})


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
    """(value, 1) of each clip: float64 [clips, 2]."""
    which = np.arange(len(scores.nmr))
    quiet = (scores.nmr < AUDIBLE).astype(np.float64)
    return {name: _by_unit(values, which) for name, values in
            (("nmr", scores.nmr), ("esr", scores.esr), ("inaudible", quiet))}  # fmt: skip


def _by_unit(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(which, values), np.bincount(which).astype(np.float64)], 1)


def _tone_summary(means: Mapping[str, float]) -> dict[str, float]:
    return {
        "excess_db": means["excess"], "nmr_mean_db": _db(means["power"]), "inaudible": 100 * means["inaudible"],
        "hesr_db": _db(means["hesr"]),
    }  # fmt: skip


def _clip_summary(means: Mapping[str, float]) -> dict[str, float]:
    return {"di_nmr_db": means["nmr"], "di_esr_db": _db(means["esr"]), "di_inaudible": 100 * means["inaudible"]}


def _db(power: float) -> float:
    return 10 * math.log10(max(power, 1e-30))


# -- the verdict -------------------------------------------------------------------------------------------------------


def findings(metrics: Mapping[str, Metric]) -> tuple[list[Finding], bool]:
    """What decides the verdict, and whether 2x oversampling is the better way.

    learnt: excess and NMR are lower than those of 2x oversampling, by the interval of the difference on the same
    notes; 90 % of the tones have no audible aliases, or as many as with 2x oversampling; harmonics and guitar are kept
    (-15 dB), and no more of the guitar differs audibly than with 2x oversampling. weak: better than the original, and
    one of these missed.
    """
    excess, nmr = metrics["excess_db"], metrics["nmr_mean_db"]
    if excess.baselines[TEACHER].value < UNHEARD:
        clean = Finding("fair", "The original has hardly any audible aliases at these levels: nothing can be gained.")
        return [clean, *_kept(metrics)], False
    first = _beside_the_original(excess)
    if excess.model.value < UNHEARD:
        twice, lost = [Finding("good", f"No audible aliases are left: excess {excess.model.formatted(' dB')}.")], False
    else:
        twice = [_beside_twice(excess, "excess"), _beside_twice(nmr, "NMR")]
        lost = _twice_is_better(excess, nmr)
    if lost:
        instead = (
            "Oversample instead: the original at 2x aliases less than this network, in a player that can do it, for "
            "about twice the processor time."
        )
        twice.insert(0, Finding("fair", instead))
    return [first, *twice, _share(metrics["inaudible"]), *_kept(metrics), *_on_guitar(metrics)], lost


def _beside_the_original(excess: Metric) -> Finding:
    teacher = excess.baselines[TEACHER]
    if abs(excess.model.value - teacher.value) < SAME:
        figures = f"excess {excess.model.formatted(' dB')}, {TITLES[TEACHER]} {teacher.formatted(' dB')}"
        return Finding("bad", f"It aliases as much as {TITLES[TEACHER]}: {figures}.")
    return against(excess, TEACHER, TITLES[TEACHER], "excess", paired=True, ahead="fair", unit=TONE)


def _twice_is_better(excess: Metric, nmr: Metric) -> bool:
    """Whether 2x oversampling has the lower excess, and no higher NMR: in both values, or with an excess that is lower
    by the interval of the difference, and an NMR that is not higher by its own. (The one or two loudest tones decide
    the NMR, which a network may have in common with 2x oversampling while it has more to hear in all others.)"""
    if excess.model.value <= excess.baselines["T_2"].value:
        return False
    if nmr.model.value > nmr.baselines["T_2"].value:
        return True
    return excess.estimated and excess.separated("T_2") != "no" and nmr.separated("T_2") == "no"


def smaller_network(student: Network, teacher: Network, format: str) -> Finding:
    """That it is another architecture, and what that saves: a player multiplies by each weight once a sample."""
    sentence = (
        f"It is a smaller network of the same format, with {100 * share(student, teacher):.0f} % of the original's "
        "weights, by each of which a player multiplies once a sample. Times are in cost.json."
    )
    # Its weights are in arrays of a fixed size (src/RTNeuralLSTM.h).
    proteus = " GuitarML's Proteus cannot play it: it plays LSTMs of 40 units alone." if format == "proteus" else ""
    return Finding("good", sentence + proteus)


def _beside_twice(metric: Metric, what: str) -> Finding:
    """A figure beside that of 2x oversampling. Both answer the same tones, and notes differ far more than the two do,
    so the interval of the difference decides. Nothing is bad here: oversampling costs a player twice the time."""
    if not metric.estimated:
        found = against(metric, "T_2", TITLES["T_2"], what, unit=TONE)
        return Finding("fair", found.sentence)
    gap, other = metric.gaps["T_2"], metric.baselines["T_2"]
    figures = f"{what} {metric.model.formatted(' dB')}, {TITLES['T_2']} {other.formatted(' dB')}"
    apart = "" if metric.model.apart(other) else " The intervals of the two overlap; that of the difference decides."
    if gap.high < 0:
        sentence = f"Better than {TITLES['T_2']}, on the same notes by {gap.size().formatted(' dB')}: {figures}.{apart}"
        return Finding("good", sentence)
    if gap.low > 0:
        sentence = f"Worse than {TITLES['T_2']}, on the same notes by {gap.size().formatted(' dB')}: {figures}.{apart}"
        return Finding("fair", sentence)
    difference = f"the difference on the same notes is {gap.formatted(' dB')}"
    return Finding("fair", f"Not significantly better than {TITLES['T_2']}, {difference}: {figures}.")


def _share(metric: Metric) -> Finding:
    """Tones without audible aliases: 90 %, or as many as 2x oversampling leaves of this capture. The sentence names
    what is missed in both cases."""
    found, other = floor(metric, "The share of tones without audible aliases"), metric.baselines["T_2"]
    if metric.meets():
        return found
    if metric.model.value >= other.value:
        beside = f"{TITLES['T_2']} does not reach it either ({other.formatted(' %')}), and has no larger share"
        return Finding("good", f"{found.sentence} With this capture {beside}.")
    return Finding("fair", f"{found.sentence} With {TITLES['T_2']} it is {other.formatted(' %')}.")


def _on_guitar(metrics: Mapping[str, Metric]) -> list[Finding]:
    """Whether guitar differs audibly from the target, beside 2x oversampling. Which of two inaudible errors is the
    smaller one decides nothing."""
    if "di_inaudible" not in metrics:
        return []
    nmr, quiet = metrics["di_nmr_db"], metrics["di_inaudible"]
    other = quiet.baselines["T_2"]
    figures = f"NMR {nmr.model.formatted(' dB')}, {TITLES['T_2']} {nmr.baselines['T_2'].formatted(' dB')}"
    if quiet.model.value == 100.0:
        closer = other.value == 100.0 and nmr.model.value > nmr.baselines["T_2"].value
        more = f" {TITLES['T_2'].capitalize()} is closer to the target; neither is audible." if closer else ""
        return [Finding("good", f"On guitar nothing differs audibly from the target: {figures}.{more}")]
    sentence = (
        f"On guitar {quiet.model.formatted(' %')} of the clips do not differ audibly from the target, with "
        f"{TITLES['T_2']} {other.formatted(' %')}: {figures}."
    )
    return [Finding("good" if quiet.model.value >= other.value else "fair", sentence)]


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
