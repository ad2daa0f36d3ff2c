"""Judges decoded features beside ridge, the null and chance, on the same held-out time.

Only moments count whose later volumes, up to the last delay, are held out too. So nothing is decoded from volumes of a
gap, which are nearer to training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.brain.decoding import linear
from training.domains.brain.evaluation import measures
from training.domains.brain.evaluation.judging import above_null, leaking, not_below
from training.domains.brain.evaluation.measures import BlockEstimate, Moments
from training.domains.brain.features.bank import joined
from training.domains.brain.material import Material, Rows, stretches
from training.domains.brain.regression.baselines import MEAN, RIDGE, ROLLED
from training.errors import DataError
from training.judgement import About, BootstrapDraws, Finding, Judgement, Metric, Resampling, compare, verdict
from training.report.measures import ROWS

if TYPE_CHECKING:
    from training.data.rows import Row

#: (subject, standardised BOLD float32 [T, V]) -> decoded features, float32 [T - last delay, F].
Decode = Callable[[str, np.ndarray], np.ndarray]
CHANCE = "chance"
SIGNIFICANT = 0.05
TITLES = {RIDGE: "ridge regression", ROLLED: "a ridge on the features of another time"}
TITLE_OF = {"pixels": "picture", "motion": "motion", "sound": "sound", "words": "words"}


@dataclass(frozen=True, eq=False)
class Held:
    """What is decoded: U blocks of moments and their true features, and the BOLD that they are decoded from."""

    subjects: Sequence[str]
    blocks: Sequence[tuple[str, int, int]]  # run, begin, end of the moments: the units of the bootstrap
    stretches: Sequence[tuple[str, int, int]]  # run, begin, end of the volumes
    true: Mapping[str, np.ndarray]  # run -> float32 [T, F]
    bold: Mapping[str, Sequence[np.ndarray]]  # subject -> float32 [t, V] by stretch
    ahead: int

    @classmethod
    def of(cls, material: Material, rows: Rows, ahead: int) -> Held:
        """Of runs that repeat the film, the first. Raises DataError if no held-out stretch is longer than the delays
        and a segment."""
        first = rows.repeated()  # of repeats, which have the same features, one is decoded
        every = [block for block in rows.held() if first[block[0]] == block[0]]
        found = [(name, *span) for name in rows.runs
                 for span in stretches([(begin, end) for run, begin, end in every if run == name])]  # fmt: skip
        ends = {(name, begin): end for name, begin, end in found}
        last = {(name, volume): end - ahead for (name, begin), end in ends.items() for volume in range(begin, end)}
        blocks = [(name, begin, min(end, last[name, begin])) for name, begin, end in every]
        blocks = [block for block in blocks if block[2] > block[1] + 1]
        if max((end - begin for _, begin, end in found), default=0) < ahead + measures.SEGMENT:
            raise DataError(
                f"no held-out stretch has the {ahead} volumes of the delays and the {measures.SEGMENT} of a segment: "
                "name longer runs."
            )
        bold = {
            subject: [material.bold(rows, subject, *stretch) for stretch in found] for subject in rows.subjects
        }  # fmt: skip
        true = {name: joined(material.bank(run.stimulus)) for name, run in rows.runs.items()}
        return cls(rows.subjects, blocks, found, true, bold, ahead)

    def decoded(self, decode: Decode) -> dict[str, list[np.ndarray]]:
        """The decoded features of each subject by block."""
        out = {}
        for subject in self.subjects:
            known = {
                (name, begin): decode(subject, bold)
                for (name, begin, _), bold in zip(self.stretches, self.bold[subject], strict=True)
            }
            of_block = []
            for name, begin, end in self.blocks:
                start = max(first for run, first, _ in self.stretches if run == name and first <= begin)
                of_block.append(known[name, start][begin - start : end - start])
            out[subject] = of_block
        return out

    def measured(self) -> list[np.ndarray]:
        """The true features by block."""
        return [self.true[name][begin:end] for name, begin, end in self.blocks]

    def joined(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Blocks that follow each other as one, so that more segments fit in."""
        out: list[list[np.ndarray]] = []
        before: tuple[str, int] | None = None
        for (name, begin, end), part in zip(self.blocks, parts, strict=True):
            if before == (name, begin):
                out[-1].append(part)
            else:
                out.append([part])
            before = name, end
        return [np.concatenate(of) for of in out]


def judge(
    decode: Decode, material: Material, held_out: Sequence[Row], seed: int,
    fitted: dict[str, linear.LinearDecoder] | None = None,
) -> Judgement:  # fmt: skip
    """Judge decoded features on held-out rows. `material`: of the training rows, on which the baselines are fitted.
    `fitted`: the baselines, if they were fitted for another split; they are added to it."""
    rows = Rows.of(held_out)
    models = fitted or {RIDGE: linear.ridge(material), ROLLED: linear.ridge(material, rolled=True)}
    if fitted is not None:
        fitted.update(models)
    delays = models[RIDGE].delays
    held = Held.of(material, rows, max(delays))
    bands = _columns(material, len(held.subjects))
    own = held.decoded(decode)
    chosen = _chosen(held, own)
    segments = chosen == np.arange(chosen.shape[1])
    p = measures.matching_p(chosen, seed)
    draw = partial(_figures, held, bands, Resampling(segments.shape[1], seed))
    draws = draw(own)
    found = {name: draw(held.decoded(one.decode)) for name, one in models.items()}
    found[MEAN] = {name: one.constant(0.0) for name, one in draws.items() if isinstance(one, BlockEstimate)}
    chance = 1 / segments.shape[1]
    found[CHANCE] = {"matching": _constant(draws["matching"], chance)}
    metrics = compare(_about(bands), draws, found)
    r, matching = metrics["decode_r"], metrics["matching"]
    gap = material.gap(rows)
    findings = [
        above_null(r, TITLES[ROLLED], len(held.blocks)),
        not_below(r, RIDGE, TITLES[RIDGE]),
        _recognised(matching, p),
        *leaking(gap, material),
    ]
    by_subject = {
        subject: {"r": float(_moments(own[subject], held.measured()).correlations().mean()),
                  "right": int(right.sum()), "p": _binomial(int(right.sum()), len(right))}
        for subject, right in zip(held.subjects, segments, strict=True)
    }  # fmt: skip
    more: dict[str, Any] = {
        "subjects": by_subject, "segments": segments.shape[1], "chance": chance, "p": p, "volumes": measures.SEGMENT,
        "delays": [delay * _tr(material) for delay in delays], "gap": gap, "blocks": len(held.blocks),
        "bands": {band: {"r": metrics[f"{band}_r"].model.value, "ridge": metrics[f"{band}_r"].baselines[RIDGE].value,
                         "null": metrics[f"{band}_r"].baselines[ROLLED].value} for band in bands},
    }  # fmt: skip
    counts = {"train": len(material.train.spans()), "held_out": len(held.blocks)}
    return Judgement(metrics, verdict(findings), {"decoding": more, ROWS: counts})


def _tr(material: Material) -> float:
    return next(iter(material.train.runs.values())).tr


def _recognised(metric: Metric, p: float) -> Finding:
    """Whether segments are recognised. Of a short test there are few, so that more than chance is not required of a
    model that decodes features."""
    figures = (
        f"{metric.model.formatted()} beside {metric.baselines[CHANCE].value:.3g}, permutations of them: p = {p:.2g}"
    )
    if p < SIGNIFICANT:
        return Finding("good", f"More segments are recognised than by chance: {figures}.")
    return Finding("fair", f"No more segments are recognised than by chance: {figures}.")


def _about(bands: Mapping[str, np.ndarray]) -> dict[str, About]:
    of_band = {
        f"{band}_r": About("higher", "", f"The same over the features of {TITLE_OF.get(band, band)}.",
                           title=f"correlation, {TITLE_OF.get(band, band)}")
        for band in bands
    }  # fmt: skip
    return {
        "decode_r": About("higher", "", "Correlation of decoded and true features over held-out time, averaged over "
                          "all features and subjects.", title="correlation, all features"),
        **of_band,
        "matching": About("higher", "", f"Share of the segments of {measures.SEGMENT} volumes whose decoded features "
                          "correlate most with their own true ones, averaged over subjects.",
                          title="segments recognised"),
    }  # fmt: skip


def _columns(material: Material, subjects: int) -> dict[str, np.ndarray]:
    """Band -> its features, bool [S F], of all subjects side by side."""
    out, at = {}, 0
    total = sum(material.bank.widths.values())
    for band, width in material.bank.widths.items():
        chosen = np.zeros(total, bool)
        chosen[at : at + width] = True
        out[band] = np.tile(chosen, subjects)
        at += width
    return out


def _moments(decoded: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> Moments:
    return Moments.of(decoded, true)


def _chosen(held: Held, decoded: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
    """The decoded segment that is most like each true one, int64 [S, segments]."""
    true = held.joined(held.measured())
    return np.stack([measures.most_alike(held.joined(decoded[one]), true) for one in held.subjects])


def _figures(
    held: Held, bands: Mapping[str, np.ndarray], pieces: Resampling,
    decoded: Mapping[str, Sequence[np.ndarray]],
) -> dict[str, BootstrapDraws]:  # fmt: skip
    true = held.measured()
    moments = measures.joined([_moments(decoded[subject], true) for subject in held.subjects])
    chosen = _chosen(held, decoded)
    share = (chosen == np.arange(chosen.shape[1])).mean(0)

    def of(weights: np.ndarray) -> np.ndarray:
        return weights @ share / np.maximum(weights.sum(1), 1)

    matching = BootstrapDraws(float(share.mean()), of(pieces.counts), of(pieces.without), pieces.varies)
    return {
        "decode_r": moments.mean_of(),
        **{f"{band}_r": moments.mean_of(chosen) for band, chosen in bands.items()},
        "matching": matching,
    }  # fmt: skip


def _constant(like: BootstrapDraws, value: float) -> BootstrapDraws:
    return BootstrapDraws(value, np.full_like(like.draws, value), np.full_like(like.without, value), like.estimated)


def _binomial(right: int, of: int) -> float:
    """The probability of at least so many by guessing, if segments were independent."""
    from scipy.stats import binom

    return float(binom.sf(right - 1, of, 1 / of))
