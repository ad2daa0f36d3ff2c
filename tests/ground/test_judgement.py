"""Bootstrap intervals and their coverage, paired comparisons, and the verdict."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from training.judgement import (
    About,
    BootstrapDraws,
    Finding,
    Interval,
    Metric,
    Resampling,
    against,
    bca,
    compare,
    drawn,
    floor,
    resample,
    verdict,
)
from training.sampling_unit import Unit

LOSS = About("lower", "nats", "a loss")


def by_unit(values):
    """Sums for units of one element each."""
    return {"val_loss": np.stack([np.asarray(values, float), np.ones(len(values))], 1)}


def scipys(values, statistic, draws):
    """The BCa interval of scipy, with the confidence that few units need to have 95 %."""
    n = len(values)
    reach = scipy.stats.t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1))
    level = 2 * scipy.stats.norm.cdf(reach) - 1
    return scipy.stats.bootstrap(
        (values,), statistic, n_resamples=draws, random_state=1, confidence_level=level
    ).confidence_interval


def test_the_interval_equals_scipys_bca_interval():
    values = np.random.default_rng(0).gamma(1.0, size=40)
    ours = resample(by_unit(values), Resampling(40, 1, draws=20_000), dict)["val_loss"].interval()
    theirs = scipys(values, np.mean, 20_000)
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.025)  # the percentiles: 0.05 off


def test_the_bias_of_resampling_is_corrected():
    """The standard deviation of resampled units is too small on average, so BCa's bias correction matters."""
    values = np.random.default_rng(3).normal(size=15)
    ours = drawn(lambda units: float(values[units].std()), Resampling(15, 1, draws=9_000)).interval()
    theirs = scipys(values, np.std, 9_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.04)  # the percentiles: 0.1 off


def test_intervals_have_about_their_nominal_coverage():
    """On average, one of twenty 95 % intervals misses the true value; each data set has 12 units."""
    random, hits = np.random.default_rng(0), 0
    for trial in range(200):
        values = random.normal(3.0, 1.0, 12)
        found = resample(by_unit(values), Resampling(12, trial, draws=400), dict)["val_loss"].interval()
        hits += found.low <= 3.0 <= found.high
    assert 0.85 <= hits / 200 <= 0.99


def test_chance_is_rarely_above_zero_in_a_sample_of_six_units():
    """Intervals with the quantiles of a normal distribution are above 0 in 8 % of such samples."""
    random, above = np.random.default_rng(5), 0
    for trial in range(400):
        found = resample(by_unit(random.normal(size=6)), Resampling(6, trial, draws=300), dict)["val_loss"].interval()
        above += found.low > 0
    assert 0 < above < 0.06 * 400


def test_complete_units_are_drawn():
    """Two units of a thousand equal samples each have the interval of two values, not of two thousand."""
    sums = {"val_loss": np.array([[1000.0, 1000.0], [0.0, 1000.0]])}
    found = resample(sums, Resampling(2, 0), dict)["val_loss"].interval()
    assert found == Interval(0.5, 0.0, 1.0)


def test_the_same_seed_gives_the_same_draws_and_the_size_of_strata_is_constant():
    assert (Resampling(9, 4).counts == Resampling(9, 4).counts).all()
    assert (Resampling(9, 4).counts != Resampling(9, 5).counts).any()
    strata = np.array([0, 0, 1, 1, 1])
    counts = Resampling(5, 0, strata).counts
    assert (counts[:, :2].sum(1) == 2).all() and (counts[:, 2:].sum(1) == 3).all()


def test_a_constant_has_an_interval_of_zero_width_and_a_missing_metric_is_ignored():
    assert bca(2.0, np.full(10, 2.0), np.full(3, 2.0)) == Interval(2.0, 2.0, 2.0)
    sums = by_unit([1.0, 2.0]) | {"eos_loss": np.array([[1.0, 1.0], [0.0, 0.0]])}
    assert resample(sums, Resampling(2, 0), dict)["eos_loss"].interval().value == 1.0
    assert Interval(2.0, 2.0, 2.0).formatted(" %") == "2 %"


def test_any_statistic_of_units_can_be_drawn():
    values = np.arange(10.0)
    found = drawn(lambda units: np.median(values[units]), Resampling(10, 0)).interval()
    assert found.low < 4.5 < found.high and found.value == 4.5


def units_that_differ(gap, noise=0.05):
    """A metric of the model and a baseline on 12 units, which differ from each other far more than the two models
    do."""
    random = np.random.default_rng(0)
    level = random.normal(3.0, 1.0, 12)
    resampling = Resampling(12, 0)
    model = resample(by_unit(level), resampling, dict)
    baseline = resample(by_unit(level + gap + random.normal(0, noise, 12)), resampling, dict)
    return compare({"val_loss": LOSS}, model, {"baseline": baseline})["val_loss"]


def test_a_paired_difference_and_separate_intervals_are_distinguished():
    assert units_that_differ(0.2).beats("baseline") == "paired"
    assert units_that_differ(5.0).beats("baseline") == "apart"
    assert units_that_differ(0.0).beats("baseline") == "no"
    by_chance = units_that_differ(0.1, noise=0.3)
    assert by_chance.model.value < by_chance.baselines["baseline"].value and by_chance.beats("baseline") == "no"
    assert units_that_differ(-0.2).beats("baseline") == "no"
    higher = Metric(About("higher", "", ""), Interval(0.9, 0.8, 1.0), {"x": Interval(0.1, 0.0, 0.2)})
    assert higher.beats("x") == "apart"


def test_the_verdict_is_that_of_the_worst_finding():
    good, fair, bad = (Finding(mark, mark) for mark in ("good", "fair", "bad"))
    assert verdict([good, good]).word == "learnt"
    assert verdict([good, fair]).word == "weak" and verdict([good, fair]).why == ["fair", "good"]
    assert verdict([good, bad, fair]).word == "not learnt" and verdict([good, bad, fair]).why[0] == "bad"
    assert verdict([]).word == "weak"


def test_findings_describe_the_comparison():
    overlapping = units_that_differ(0.2)
    assert against(overlapping, "baseline", "the baseline", "loss").mark == "fair"
    assert against(overlapping, "baseline", "the baseline", "loss", paired=True).mark == "good"
    sentence = against(overlapping, "baseline", "the baseline", "loss").sentence
    assert "row by row, by 0.187" in sentence and sentence.endswith("More held-out rows would decide.")
    sentence = against(overlapping, "baseline", "the baseline", "loss", unit=Unit("tone", "tones")).sentence
    assert "tone by tone, by 0.187" in sentence and sentence.endswith("More held-out tones would decide.")
    assert against(units_that_differ(5.0), "baseline", "the baseline", "loss").mark == "good"
    assert against(units_that_differ(0.0), "baseline", "the baseline", "loss").mark == "bad"
    by_chance = units_that_differ(0.1, noise=0.3)
    assert against(by_chance, "baseline", "the baseline", "loss").mark == "bad"
    assert against(by_chance, "baseline", "the baseline", "loss", ahead="fair").mark == "fair"
    assert against(units_that_differ(-0.2), "baseline", "the baseline", "loss", ahead="fair").mark == "bad"
    below = Metric(About("higher", "%", "", 45.0), Interval(12.0, 9.0, 20.0))
    assert floor(below, "The gain").mark == "fair" and "required: at least 45 %" in floor(below, "The gain").sentence


@pytest.mark.parametrize(
    ("better", "value", "mark", "sentence"),
    [("higher", 12.0, "good", "The gain is 12 %."), ("higher", -2.0, "fair", "The gain is -2 %, below 0."),
     ("lower", 2.0, "fair", "The gain is 2 %, above 0."), ("lower", -2.0, "good", "The gain is -2 %.")],
)  # fmt: skip
def test_a_floor_of_zero_is_not_reported_as_a_requirement(better, value, mark, sentence):
    found = floor(Metric(About(better, "%", "", 0.0), Interval.exactly(value)), "The gain")
    assert (found.mark, found.sentence) == (mark, sentence)


@pytest.mark.parametrize(
    ("required", "mark", "sentence"),
    [(None, "good", "The share is 40 %. Nothing is required of it: songs do not differ."),
     (30.0, "good", "The share is 40 %; required: at least 30 % (songs do not differ)."),
     (45.0, "fair", "The share is 40 %, which misses what is required: at least 45 % (songs do not differ).")],
)  # fmt: skip
def test_the_reason_for_requiring_less_or_nothing_is_part_of_the_finding(required, mark, sentence):
    about = About("higher", "%", "", required, "songs do not differ")
    found = floor(Metric(about, Interval.exactly(40.0)), "The share")
    assert (found.mark, found.sentence) == (mark, sentence)
    assert Metric(about, Interval.exactly(40.0)).plain()["floor_reason"] == "songs do not differ"


@pytest.mark.parametrize(("gap", "compared"), [(-0.2, ", compared row by row, by 0.213"), (-5.0, "")])
def test_a_model_that_is_surely_worse_is_not_called_unsure(gap, compared):
    found = against(units_that_differ(gap), "baseline", "the baseline", "loss", paired=True, ahead="fair")
    assert found.mark == "bad" and found.sentence.startswith(f"Worse than the baseline{compared}")
    assert ("row by row" in found.sentence) == bool(compared) and "intervals do not overlap" not in found.sentence


@pytest.mark.parametrize(("other", "mark", "words"), [(2.0, "fair", "Better than x, of"), (0.5, "bad", "Not better")])
def test_a_single_unit_proves_nothing(other, mark, words):
    """Every draw of one unit is that unit: an interval without width is no certainty."""
    resampling = Resampling(1, 0)
    model, baseline = (resample(by_unit([value]), resampling, dict) for value in (1.0, other))
    metric = compare({"val_loss": LOSS}, model, {"x": baseline})["val_loss"]
    found = against(metric, "x", "x", "loss", unit=Unit("tone", "tones"))
    assert (
        found.mark == mark
        and words in found.sentence
        and "of too few tones to say how certain that is" in found.sentence
    )
    assert metric.plain()["estimated"] is False


@pytest.mark.parametrize(
    ("resampling", "estimated"),
    [
        (Resampling(4, 0, np.arange(4)), False),  # each drawn from itself alone
        (Resampling(3, 0), False),
        (Resampling(4, 0), True),
        (Resampling(30, 0, clusters=np.arange(30) % 3), False),
        (Resampling(30, 0, clusters=np.arange(30) % 4), True),
    ],
)
def test_from_four_units_on_there_is_an_interval(resampling, estimated):
    """Of three, all are better by chance in one of eight samples."""
    assert drawn(lambda units: float(units.sum()), resampling).estimated is estimated


def test_a_metric_is_plain_json_with_value_low_and_high():
    plain = units_that_differ(0.2).plain()
    assert set(plain) == {"model", "baselines", "better", "unit", "meaning"}
    assert set(plain["model"]) == {"value", "low", "high"}
    assert set(plain["baselines"]["baseline"]) == {"value", "low", "high", "gap"}
    difference = BootstrapDraws(1.0, np.ones(3), np.ones(3)) - BootstrapDraws(0.5, np.ones(3), np.ones(3))
    assert difference.value == 0.5


def test_clusters_are_drawn_before_their_units():
    """Eight clusters of 25 equal units: the mean varies as that of 8 draws does, not as that of 200."""
    clusters = np.repeat(np.arange(8), 25)
    values = np.where(clusters < 4, 0.0, 1.0)
    sums = {"share": np.stack([values, np.ones(200)], 1)}
    together = resample(sums, Resampling(200, 3, clusters=clusters), dict)["share"]
    apart = resample(sums, Resampling(200, 3), dict)["share"]
    assert together.draws.std() == pytest.approx(0.5 / np.sqrt(8), rel=0.1)
    assert apart.draws.std() == pytest.approx(0.5 / np.sqrt(200), rel=0.1)
    assert together.value == 0.5 and len(together.without) == 8


def test_units_of_a_drawn_cluster_are_drawn_too():
    """Clusters that are alike: the variation is that of their units."""
    clusters = np.repeat(np.arange(20), 10)
    values = np.tile([0.0, 1.0], 100)
    sums = {"share": np.stack([values, np.ones(200)], 1)}
    drawn = resample(sums, Resampling(200, 3, clusters=clusters), dict)["share"]
    assert drawn.draws.std() == pytest.approx(0.5 / np.sqrt(200), rel=0.15)


@pytest.mark.parametrize("clusters", [None, np.zeros(1, np.int64)], ids=["units", "clusters"])
def test_with_a_single_unit_nothing_is_summarised_of_no_unit(clusters):
    """What a family summarises may need every sum; without the only unit there would be none."""
    found = resample(
        {"a": np.array([[6.0, 3.0]])}, Resampling(1, 0, clusters=clusters), lambda means: {"b": means["a"]}
    )
    assert found["b"].value == 2.0 and not found["b"].estimated
    assert found["b"].interval() == Interval.exactly(2.0)


def test_one_cluster_gives_no_interval():
    resampling = Resampling(30, 3, clusters=np.zeros(30, int))
    assert not resampling.varies
