"""The evaluation of a trained capture: what its figures are, what follows from them, and when no file is written."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.domains.amp import making, small
from training.domains.amp.captures import parse_capture
from training.domains.amp.evaluation import judging, worse
from training.domains.amp.evaluation.guitar import ClipScores, clips_of, score_clips
from training.domains.amp.evaluation.judging import ESR_ONLY, STUDENT, compare_all, findings
from training.domains.amp.evaluation.tones import LOWPASS, TEACHER, Scores, Tones, nmr_mean, references, score
from training.domains.amp.signal.running import settled_oversampled
from training.domains.amp.student.groups import input_weights
from training.domains.amp.student.smaller import smaller
from training.judgement import verdict
from training.recipe import EvaluationContext

TONES = Tones.of(small.RATE, 2_503, notes=range(60, 108, 4), levels=(-20.0, 0.0))


def scores(nmr: float | np.ndarray, hesr_db: float = -30.0, spread: float = 0.5) -> Scores:
    random = np.random.default_rng(1)
    values = nmr + spread * random.standard_normal(len(TONES.note))
    return Scores(values, values, np.full(len(values), 10 ** (hesr_db / 10)), np.full(len(values), 0.01))


def judged(student, twice, teacher=20.0, hesr_db: float = -30.0, di_esr_db: float = -25.0, di_nmr: float = -15.0):
    """(verdict, whether 2x is the better way). The first three: NMR in dB, of all tones or of each."""
    others = {TEACHER: scores(teacher), LOWPASS: scores(teacher), "T_2": scores(twice), "T_4": scores(-20.0),
              "T_8": scores(-40.0), ESR_ONLY: scores(teacher), STUDENT: scores(student, hesr_db)}  # fmt: skip
    clips = {
        name: ClipScores((di_nmr if name == STUDENT else -30.0) + np.arange(4), np.full(4, 10 ** (di_esr_db / 10)))
        for name in (TEACHER, "T_2", ESR_ONLY, STUDENT)
    }
    found, lost = findings(compare_all(TONES, others, clips, seed=0))
    return verdict(found), lost


def test_a_capture_that_beats_2x_and_sounds_the_same_is_learnt():
    found, lost = judged(student=-14.0, twice=5.0)
    assert found.word == "learnt" and not lost


def spread_over_the_fretboard(loudest: float, audible: float) -> np.ndarray:
    """NMR of each tone: -40 dB, and up to `loudest` in that share of the notes, the highest ones."""
    place = np.argsort(np.argsort(TONES.note, kind="stable")) / len(TONES.note)
    return np.where(place >= 1 - audible, loudest * (0.2 + 0.8 * place), -40.0)


def test_2x_is_beaten_by_the_difference_on_the_same_notes_where_the_intervals_overlap():
    found, _ = judged(spread_over_the_fretboard(20.0, 0.5), spread_over_the_fretboard(24.0, 0.5), teacher=40.0)
    assert found.word == "learnt"
    (excess, nmr) = (why for why in found.why if why.startswith("Better than 2x"))
    assert excess.endswith("The intervals of the two overlap; that of the difference decides.")
    assert "on the same notes by 1.57 dB (0.5" in excess and "on the same notes by 3.41 dB (2.9" in nmr
    assert any("misses what is required: at least 90 %. With this capture 2x" in why for why in found.why)


def test_a_difference_to_2x_that_may_be_chance_is_weak():
    twice = spread_over_the_fretboard(20.0, 0.5)
    found, _ = judged(twice + np.where(np.arange(len(twice)) % 4 < 2, 3.0, -3.2), twice, teacher=40.0)
    assert found.word == "weak"
    assert any(why.startswith("Not significantly better than 2x oversampling, the difference on") for why in found.why)


def test_fewer_inaudible_tones_than_with_2x_are_weak_though_excess_and_nmr_are_lower():
    found, lost = judged(np.full(len(TONES.note), -5.0), spread_over_the_fretboard(30.0, 0.5), teacher=40.0)
    assert found.word == "weak" and not lost
    assert sum(why.startswith("Better than 2x") for why in found.why) == 2
    assert any("at least 90 %. With 2x oversampling it is 50 %" in why for why in found.why)


def test_where_nothing_is_audible_2x_need_not_be_beaten():
    found, lost = judged(student=-20.0, twice=-30.0)
    assert found.word == "learnt" and not lost and any("No audible aliases are left" in why for why in found.why)


def test_an_error_on_guitar_counts_where_it_is_heard():
    found, _ = judged(student=-14.0, twice=5.0)
    assert any("nothing differs audibly" in why and "neither is audible" in why for why in found.why)
    found, _ = judged(student=-14.0, twice=5.0, di_nmr=-11.5)
    assert found.word == "weak" and any("On guitar 50 %" in why for why in found.why)


def test_where_2x_wins_the_advice_is_to_oversample():
    found, lost = judged(student=8.0, twice=3.0)
    assert found.word == "weak" and lost
    assert any(why.startswith("Oversample instead") for why in found.why)


def test_2x_wins_by_what_is_heard_though_the_loudest_tones_are_level():
    """The loudest half of the notes decides the mean in power, and is not significantly quieter than with 2x
    oversampling; all others have audible aliases, which 2x oversampling has not."""
    loud, some = TONES.note >= 84, TONES.note % 8 == 0
    twice = np.where(loud, 30.0, -12.0)
    level = np.where(some, 31.0, 28.0)
    found, lost = judged(np.where(loud, level, 8.0), twice, teacher=40.0)
    assert found.word == "weak" and lost and found.why[0].startswith("Oversample instead")
    assert any(why.startswith("Not significantly better than 2x oversampling") and "NMR" in why for why in found.why)
    _, lost = judged(np.where(loud, 22.0, 8.0), twice, teacher=40.0)
    assert not lost, "the loudest tones are clearly quieter, so that neither is better in all"
    _, lost = judged(np.where(loud, level, -12.0), twice, teacher=40.0)
    assert not lost, "there is no more to hear"


def test_what_aliases_no_less_than_the_original_is_not_learnt():
    assert judged(student=21.0, twice=3.0)[0].word == "not learnt"


def test_a_difference_to_the_original_by_rounding_alone_is_none():
    """The answers of an unchanged LSTM beside other tones in its batch."""
    found, _ = judged(student=20.0 - 1e-13, twice=3.0)
    assert found.word == "not learnt" and found.why[0].startswith("It aliases as much as the original: excess 30")


@pytest.mark.parametrize("changed", [{"hesr_db": -12.0}, {"di_esr_db": -12.0}])
def test_a_changed_sound_is_weak(changed):
    found, _ = judged(student=-14.0, twice=5.0, **changed)
    assert found.word == "weak" and any("misses what is required" in why for why in found.why)


def test_an_original_without_aliases_leaves_nothing_to_gain():
    found, _ = judged(student=-40.0, twice=-50.0, teacher=-35.0)
    assert found.word == "weak" and any("nothing can be gained" in why for why in found.why)


def test_the_mean_of_noise_to_mask_ratios_is_ruled_by_the_loudest():
    assert nmr_mean(np.array([-30.0, -30.0, 20.0])) == pytest.approx(20 - 10 * np.log10(3), abs=0.01)


def test_baselines_of_tones_are_the_network_at_multiples_of_its_rate():
    made, model, _ = small.built(small.wavenet(gain=12.0))
    teacher, tones = model.teachers[0], Tones.of(small.RATE, 2_503, notes=(90, 100), levels=(0.0,))
    target, answers = references(tones, teacher)
    exact = copy.deepcopy(teacher).double()
    with torch.no_grad():
        for factor in (2, 8):
            expected = settled_oversampled(
                exact, tones.cycles, tones.amplitude, torch.zeros(2), tones.length, factor, dtype=torch.float64
            )
            assert (answers[f"T_{factor}"] - expected).abs().max() < 1e-10
    found = score(tones, target, answers)
    means = [found[name].nmr.mean() for name in (TEACHER, "T_2", "T_4", "T_8")]
    assert means == sorted(means, reverse=True) and means[0] > means[-1] + 10
    assert (found[TEACHER].hesr < 1e-12).all()  # its harmonics are the target
    assert found[LOWPASS].asr.mean() < found[TEACHER].asr.mean()
    assert made.settings.judging.length == 2203


def test_guitar_is_judged_against_the_original_at_8_times_its_rate():
    content = small.wavenet(gain=12.0)
    _, model, _ = small.built(content)
    clips = clips_of(small.rows(content), small.RATE, 2)
    assert len(clips) == 2
    found = score_clips(clips, model.teachers[0], {STUDENT: model.students[0]})
    assert np.allclose(found[STUDENT].esr, found[TEACHER].esr) and (found["T_2"].esr < found[TEACHER].esr).all()
    assert (found["T_4"].nmr < found["T_2"].nmr).all() and "T_8" not in found


def test_a_recipe_judges_its_model_beside_every_baseline(monkeypatch):
    content = small.wavenet(gain=12.0)
    made, model, _ = small.built(content)
    asked = []

    def train_baseline(recipe, name, begin, steps):
        asked.append((recipe.settings.loss.nmr, name, begin, steps))
        return made.build(made.fit_constants(small.rows(content)))

    taken: list[tuple[int, int]] = []

    def few(rate, length, notes, *rest):
        taken.append((length, len(notes)))
        return TONES

    monkeypatch.setattr(judging, "Tones", type("Few", (), {"of": staticmethod(few)}))
    held_out = small.rows(content)
    found = made.evaluate(EvaluationContext(model, held_out, held_out, 100, train_baseline, 0.2))
    assert asked == [(0.0, ESR_ONLY, None, 20)]
    assert taken[0] == (2203, 8) == (made.settings.judging.length, made.settings.judging.notes)
    assert set(found.metrics) == {
        "excess_db", "nmr_mean_db", "inaudible", "hesr_db", "di_nmr_db", "di_esr_db", "di_inaudible"
    }  # fmt: skip
    assert set(found.metrics["nmr_mean_db"].baselines) == {TEACHER, LOWPASS, "T_2", "T_4", "T_8", ESR_ONLY}
    assert set(found.metrics["di_esr_db"].baselines) == {TEACHER, LOWPASS, "T_2", "T_4", ESR_ONLY}
    assert found.more["rows"]["held_out"] == len(found.more["amp"]["tones"])  # not the clips of guitar
    assert found.verdict.word == "not learnt"  # the student is the teacher
    more = found.more["amp"]
    assert len(more["tones"]) == len(TONES.note) and len(more["clips"]) == 3
    assert more["levels"][0]["nmr"].keys() == {TEACHER, LOWPASS, "T_2", "T_4", "T_8", STUDENT}
    assert more["tones"][0]["nmr"].keys() == {TEACHER, LOWPASS, "T_2", "T_4", "T_8", ESR_ONLY, STUDENT}


def test_the_verdict_of_a_smaller_network_says_that_it_is_one_and_what_it_saves(monkeypatch):
    made, model, data = small.built(small.fitted(gain=12.0), student={"size": "nano"})
    of = Tones.of
    few = staticmethod(lambda rate, length, *rest: of(rate, 2_503, (84, 96), (0.0,)))
    monkeypatch.setattr(judging.Tones, "of", few)
    again = made.build(made.fit_constants(data.rows))
    found = made.evaluate(EvaluationContext(model, data.rows, data.rows[:1], 12, lambda *words: again, 0.2))
    (sentence,) = (why for why in found.verdict.why if why.startswith("It is a smaller network of the same format"))
    assert "with 28 % of the original's weights" in sentence and "Proteus" not in sentence
    assert found.more["amp"]["share"] == pytest.approx(0.28, abs=0.005)


def test_a_smaller_network_of_guitarml_is_named_as_one_that_proteus_cannot_play():
    original = parse_capture(making.content(making.proteus(hidden=40)))
    _, (network,) = smaller(original)
    assert "Proteus cannot play it" in judging.smaller_network(network, original.network, "proteus").sentence


def few_tones(monkeypatch):
    of = Tones.of
    monkeypatch.setattr(
        worse.Tones, "of", staticmethod(lambda rate, length: of(rate, 2_503, range(84, 108, 6), (0.0,)))
    )


def test_no_file_is_written_of_a_student_that_is_no_better(monkeypatch):
    few_tones(monkeypatch)
    _, model, _ = small.built(small.wavenet(gain=12.0))
    assert "its aliases are" in worse.checked(model).worse


def test_no_file_is_written_of_a_student_that_differs_by_rounding_alone(monkeypatch):
    few_tones(monkeypatch)
    _, model, _ = small.built(small.wavenet(gain=12.0))
    with torch.no_grad():
        for weight in input_weights(model.students[0]):
            weight.mul_(1 - 1e-6)
    found = worse.checked(model)
    assert found.worse and found.figures["excess_after_db"] == found.figures["excess_before_db"]


def test_no_file_is_written_of_a_student_with_another_sound(monkeypatch):
    few_tones(monkeypatch)
    _, model, _ = small.built(small.wavenet(gain=12.0))
    with torch.no_grad():
        for weight in input_weights(model.students[0]):
            weight.mul_(1 / 40)  # it aliases less, as it hardly distorts
    assert "its harmonics differ" in worse.checked(model).worse


def test_a_student_that_aliases_less_is_written(monkeypatch):
    few_tones(monkeypatch)
    _, model, _ = small.built(small.wavenet(gain=12.0))
    with torch.no_grad():
        for weight in input_weights(model.students[0]):
            weight.mul_(0.9)
    assert worse.checked(model).worse is None


def test_a_capture_of_very_high_gain_is_better_oversampled_and_says_so(monkeypatch):
    """Figures of an evaluation: the demo's network with an input gain of 400, after twelve updates."""
    content = small.fitted(gain=400.0)
    material = {"samples": 8, "mix_di": 0.0, "lowest": 60.0, "highest": 108.0, "quietest": -24.0}
    made, model, data = small.built(content, material=material, loss={"esr": 2.0, "nmr": 0.04, "floor_db": -12.0})
    of = Tones.of
    few = staticmethod(lambda rate, length, *rest: of(rate, 2_503, range(60, 108, 6), (-20.0, 0.0)))
    monkeypatch.setattr(judging.Tones, "of", few)
    assert worse.checked(model).worse, "before training it is no improvement: the original comes back"
    optimizer = torch.optim.Adam(model.students.parameters(), lr=1e-3)
    for epoch in range(12):
        terms = made.losses(model, small.batch_of(data, range(8), epoch), None)
        optimizer.zero_grad()
        sum(term.total * term.coefficient for term in terms.values()).backward()
        optimizer.step()
    again = made.build({"capture": np.frombuffer(content, np.uint8), "rate": np.array(small.RATE)})
    found = made.evaluate(EvaluationContext(model, data.rows, data.rows[:1], 12, lambda *words: again, 0.2))
    assert found.verdict.word == "weak" and found.more["amp"]["oversample_instead"]
    assert any(why.startswith("Oversample instead") for why in found.verdict.why)
    for name in ("excess_db", "nmr_mean_db"):
        student, others = found.metrics[name].model.value, found.metrics[name].baselines
        assert others["T_2"].value < student < others[TEACHER].value
