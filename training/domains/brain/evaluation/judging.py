"""Judges a model of film fMRI beside the baselines that a reviewer would ask for, on the same held-out blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.brain.bold.atlas import Regions
from training.domains.brain.evaluation import measures
from training.domains.brain.evaluation.measures import BlockEstimate, Ceiling, Moments
from training.domains.brain.evaluation.regions import by_region, regions_of
from training.domains.brain.evaluation.truth import Truth, truth_of
from training.domains.brain.families import BLOCK
from training.domains.brain.material import Material, Rows
from training.domains.brain.regression import baselines
from training.domains.brain.regression.banded import SEARCHES
from training.domains.brain.regression.baselines import BANDED, MEAN, ORACLE, REDUCED, RIDGE, ROLLED, TITLES
from training.domains.brain.rows import BOLD_PATH
from training.domains.brain.splits.blocks import gap_of
from training.judgement import (
    About,
    Finding,
    Judgement,
    Metric,
    Verdict,
    against,
    compare,
    verdict,
)
from training.report.measures import ROWS

if TYPE_CHECKING:
    from training.data.rows import Row

#: (subject, run, begin, end) -> predicted BOLD, float32 [t, V].
Predict = Callable[[str, str, int, int], np.ndarray]
RELIABLE = 0.1  # correlation between subjects on training rows above which a voxel counts as reliable
DISCOVERY = 0.05
ABOUT = {
    "voxel_r": About("higher", "", "Correlation of predicted and measured BOLD over held-out time, averaged over all "
                     "voxels of the mask and subjects.", title="correlation, all voxels"),
    "reliable_r": About("higher", "", "The same over the voxels in which subjects are alike on training rows.",
                        title="correlation, reliable voxels"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Held:
    """The held-out blocks, and the measured BOLD of each subject in them."""

    blocks: Sequence[tuple[str, int, int]]  # run, begin, end
    subjects: Sequence[str]
    measured: Mapping[str, Sequence[np.ndarray]]  # subject -> float32 [t, V] by block
    first: Mapping[str, str] = field(default_factory=dict)  # run -> the run that it repeats; missing: no repeat

    @property
    def units(self) -> list[list[int]]:
        """The blocks of each part of the film: more than one where runs repeat it. They are the units of the
        bootstrap."""
        out: dict[tuple[str, int, int], list[int]] = {}
        for number, (run, begin, end) in enumerate(self.blocks):
            out.setdefault((self.first.get(run, run), begin, end), []).append(number)
        return [*out.values()]

    def once(self) -> Held:
        """The first block of each part of the film."""
        chosen = [of[0] for of in self.units]
        return Held([self.blocks[number] for number in chosen], self.subjects,
                    {subject: [of[number] for number in chosen] for subject, of in self.measured.items()})  # fmt: skip

    def predicted(self, predict: Predict) -> dict[str, list[np.ndarray]]:
        return {subject: [predict(subject, *block) for block in self.blocks] for subject in self.subjects}

    def moments(self, predicted: Mapping[str, Sequence[np.ndarray]]) -> Moments:
        """Of the voxels of all subjects side by side."""
        found = measures.joined([Moments.of(predicted[one], self.measured[one]) for one in self.subjects])
        return found.summed(self.units)

    def joined(self, parts: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
        """The blocks one after another, float32 [S, T, V]."""
        return np.stack([np.concatenate(parts[one]) for one in self.subjects])

    def ceilings(self) -> list[Ceiling]:
        """The noise ceilings of the measured BOLD, the best kind first: from repeats, where a part of the film was
        shown more than once, and between subjects."""
        between = measures.ceiling_of(self.joined(self.measured))
        repeated = [of for of in self.units if len(of) > 1]
        if not repeated:
            return [between]
        count = min(len(of) for of in repeated)
        repeats = [self.joined({one: [self.measured[one][of[place]] for of in repeated] for one in self.subjects})
                   for place in range(count)]  # fmt: skip
        found = measures.ceiling_of(repeats[0], np.stack(repeats))
        return [found] if between.values_SV is None else [found, between]

    def shifted(self, predicted: Mapping[str, Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray] | None:
        """measures.shifted of the voxels of all subjects side by side; None if the stretches are too short for it."""
        lengths = self.lengths()
        if min(lengths) < measures.SHORTEST:
            return None
        pairs = zip(self.joined(predicted), self.joined(self.measured), strict=True)
        found = [measures.shifted(p, y, lengths) for p, y in pairs]
        return np.concatenate([own for own, _ in found]), np.concatenate([null for _, null in found], 1)

    def lengths(self) -> list[int]:
        """Volumes of the stretches without a gap, in order."""
        out: list[int] = []
        before: tuple[str, int] | None = None
        for run, begin, end in self.blocks:
            if before == (run, begin):
                out[-1] += end - begin
            else:
                out.append(end - begin)
            before = (run, end)
        return out


def held_of(material: Material, rows: Rows) -> Held:
    """Measured BOLD of held-out rows. Raises DataError if there is no block that all subjects have."""
    blocks = rows.held()
    measured = {subject: [material.bold(rows, subject, *block) for block in blocks] for subject in rows.subjects}
    return Held(blocks, rows.subjects, measured, rows.repeated())


@dataclass(frozen=True)
class Fitting:
    """How the baselines are fitted."""

    seed: int
    searches: int = SEARCHES  # weightings of the bands that banded ridge tries
    rank: int = baselines.RANK
    device: str = "cpu"


def linear_baselines(material: Material, fitting: Fitting, truth: Truth | None = None) -> dict[str, Predict]:
    """Name -> prediction of the baselines that are fitted; the mean predicts nothing and is not among them. With the
    truth of simulated data, also ridge on the true drives."""
    oracle = {} if truth is None else {ORACLE: truth.oracle(material).predict}
    banded = baselines.banded_ridge(material, fitting.seed, fitting.device, fitting.searches)
    return {
        ROLLED: baselines.rolled(material).predict, RIDGE: baselines.plain_ridge(material).predict,
        BANDED: banded.predict, REDUCED: baselines.reduced_rank(material, banded, fitting.rank)[0].predict,
    } | oracle  # fmt: skip


def judge(
    predict: Predict, material: Material, held_out: Sequence[Row], fitting: Fitting,
    fitted: dict[str, Predict] | None = None,
) -> Judgement:  # fmt: skip
    """Judge predictions on held-out rows. `material`: of the training rows, on which the baselines are fitted.
    `fitted`: the baselines, if they were fitted for another split; they are added to it."""
    rows = Rows.of(held_out)
    held = held_of(material, rows)
    reliable = _reliable(material)
    truth = truth_of(Path(held_out[0].values[BOLD_PATH]))
    others = fitted if fitted else linear_baselines(material, fitting, truth)
    if fitted is not None:
        fitted.update(others)
    own = held.predicted(predict)
    draws = _figures(held, own, reliable)
    found = {name: _figures(held, held.predicted(one), reliable) for name, one in others.items()}
    found[MEAN] = {name: one.constant(0.0) for name, one in draws.items()}
    metrics = compare(ABOUT, draws, found)
    banded = held.moments(held.predicted(others[BANDED]))
    more = _more(held, own, truth, material.train.subjects, regions_of(held_out), banded)
    gap = material.gap(rows)
    findings = [*_findings(metrics["voxel_r"], len(held.units)), *leaking(gap, material)]
    why = verdict(findings)
    sentences = [*why.why, beyond_the_beginning(metrics["voxel_r"])]
    blocks = len(held.units)
    counts = {"train": len(material.train.spans()), "held_out": blocks}  # a manifest has each for every subject
    return Judgement(
        metrics, Verdict(why.word, sentences), {"brain": more | {"gap": gap, "blocks": blocks}, ROWS: counts}
    )


def _figures(
    held: Held, predicted: Mapping[str, Sequence[np.ndarray]], reliable: np.ndarray | None
) -> dict[str, BlockEstimate]:
    moments = held.moments(predicted)
    out = {"voxel_r": moments.mean_of()}
    if reliable is not None and reliable.any():
        out["reliable_r"] = moments.mean_of(reliable)
    return out


def _reliable(material: Material) -> np.ndarray | None:
    """The voxels (bool [S V]) that correlate between subjects on training rows; None for one subject, or where subjects
    have no volumes in common."""
    subjects = material.train.subjects
    if len(subjects) < 2:
        return None
    parts = []
    for name, run in material.train.runs.items():
        if len(run.spans) == len(subjects):
            common = sorted(set.intersection(*(set(of) for of in run.spans.values())))
            for begin, end in common:
                parts.append(np.stack([material.bold(material.train, one, name, begin, end) for one in subjects]))
    if not parts:
        return None
    shared = measures.intersubject(np.concatenate(parts, 1))
    return (shared > RELIABLE).ravel()


# -- the verdict -------------------------------------------------------------------------------------------------------


def _findings(metric: Metric, blocks: int) -> list[Finding]:
    """Above the null; not below banded ridge."""
    return [above_null(metric, TITLES[ROLLED], blocks), not_below(metric)]


def above_null(metric: Metric, title: str, blocks: int) -> Finding:
    """Whether anything is predicted. A few blocks cannot show it: where nothing can be predicted, they are above the
    null half of the time."""
    if metric.estimated:
        return against(metric, ROLLED, title, "correlation", paired=True, unit=BLOCK)
    figures = f"correlation {metric.model.formatted()}, {title} {metric.baselines[ROLLED].formatted()}"
    return Finding(
        "bad", f"Too few time blocks to show that anything is predicted: {blocks}, and {measures.LEAST_UNITS} are "
        f"needed ({figures}). Name longer runs, or more of them."
    )  # fmt: skip


def not_below(metric: Metric, name: str = BANDED, title: str = TITLES[BANDED]) -> Finding:
    """Whether ridge would do. A network that is as good is a result; one that is worse is not."""
    gap, figures = metric.gaps[name], f"{metric.model.formatted()} beside {metric.baselines[name].formatted()}"
    if not metric.estimated:
        return Finding("fair", f"Beside {title}, of too few time blocks to compare: {figures}.")
    if gap.low > 0:
        return Finding("good", f"Better than {title}, by {gap.formatted()}, block by block: {figures}.")
    if gap.high < 0:
        return Finding("fair", f"Below {title}, by {gap.size().formatted()}: {figures}. Use the ridge instead.")
    return Finding("good", f"No better than {title}, and not worse: {figures}.")


def beyond_the_beginning(metric: Metric) -> str:
    """What training has added to ridge of reduced rank, which the network was before step 1. It does not change the
    verdict: that ridge is a part of the product."""
    gap, title = metric.gaps[REDUCED], f"{TITLES[REDUCED]}, with which it begins"
    figures = f"{metric.model.formatted()} beside {metric.baselines[REDUCED].formatted()}"
    if metric.estimated and gap.low > 0:
        return f"Training has added {gap.formatted()} to {title}: {figures}."
    if metric.estimated and gap.high < 0:
        return f"Training has taken {gap.size().formatted()} from {title}: {figures}."
    return f"Training has added nothing that can be shown to {title}: {figures}."


def leaking(gap: int | None, material: Material) -> list[Finding]:
    """A finding only where training and held-out rows are too close in time."""
    needed = max(gap_of(run.tr) for run in material.train.runs.values())
    if gap is None or gap >= needed:
        return []
    return [Finding("bad", f"The split leaks: {gap} volumes lie between training and held-out rows; {needed} are "
                           "needed. Let prepare split the data.")]  # fmt: skip


# -- further figures ---------------------------------------------------------------------------------------------------


def _more(
    held: Held, predicted: Mapping[str, Sequence[np.ndarray]], truth: Truth | None, subjects: Sequence[str],
    regions: Regions | None, banded: Moments,
) -> dict[str, Any]:  # fmt: skip
    r_SV = np.split(held.moments(predicted).correlations(), len(held.subjects))
    r_SV, ceilings, shifted = np.stack(r_SV), held.ceilings(), held.shifted(predicted)
    single = held.once()
    once = {one: [predicted[one][of[0]] for of in held.units] for one in held.subjects}
    matching = [
        measures.match_segments(*_stretched(single, once[one], single.measured[one])) for one in held.subjects
    ]  # fmt: skip
    out: dict[str, Any] = {
        "r_by_subject": {one: float(r) for one, r in zip(held.subjects, r_SV.mean(1), strict=True)},
        "ceiling": _ceiling(ceilings[0], r_SV), "other_ceilings": [_ceiling(one, r_SV) for one in ceilings[1:]],
        "matching": {"right": [one.right for one in matching], "of": matching[0].of, "chance": matching[0].chance,
                     "volumes": measures.SEGMENT},
        "significant": _significant(shifted, len(held.subjects), held.lengths()),
    }  # fmt: skip
    if regions is not None:
        of = ceilings[0].values_SV
        out["regions"] = by_region(regions, held.moments(predicted), banded, of, shifted)
    if truth is not None:
        out["truth"] = truth.beside(r_SV, subjects)
    return out


def _stretched(
    held: Held, predicted: Sequence[np.ndarray], measured: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Blocks that follow each other are joined, so that more segments fit in."""
    edges = np.cumsum(held.lengths())[:-1]
    return np.split(np.concatenate(predicted), edges), np.split(np.concatenate(measured), edges)


def _ceiling(ceiling: Ceiling, r_SV: np.ndarray) -> dict[str, Any]:
    """The mean ceiling and the share of it that is reached, with what it bounds."""
    if ceiling.values_SV is None:
        return {"kind": ceiling.kind, "bound": ceiling.bound, "mean": None, "share": None}
    mean = float(ceiling.values_SV.mean())
    share = float(r_SV.mean() / mean) if mean > 0 else None
    return {"kind": ceiling.kind, "bound": ceiling.bound, "mean": mean, "share": share}


def discoveries(shifted: tuple[np.ndarray, np.ndarray], subjects: int) -> np.ndarray:
    """q of each subject's voxels, float64 [S, V], over the voxels of all subjects. `shifted`: of `Held.shifted`."""
    return measures.false_discovery(measures.pooled_p(*shifted)).reshape(subjects, -1)


def _significant(
    shifted: tuple[np.ndarray, np.ndarray] | None, subjects: int, lengths: Sequence[int]
) -> dict[str, Any]:
    """Voxels with a significant correlation at a false discovery rate of 5 %, by subject."""
    if shifted is None:
        return {"counts": None, "why": f"held-out stretches of {min(lengths)} volumes are too short for shifts"}
    q = discoveries(shifted, subjects)
    return {"counts": [int((of < DISCOVERY).sum()) for of in q], "of": int(q.shape[1]), "rate": DISCOVERY}
