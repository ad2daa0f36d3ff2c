"""The label audit finds swapped labels, does not list correct ones, and gives reasons as sentences."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.music.composing.compose import compose
from training.domains.music.corpora import audit
from training.domains.music.emotion import BASES
from training.domains.music.midi import style, tokens

PIECES, SWAPPED = 60, 6


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(ids, labels, styles) of the demo corpus's 60 pieces."""
    folder = tmp_path_factory.mktemp("pieces")
    ids, labels, measured = [], [], []
    for n in range(PIECES):
        emotion, index = BASES[n % len(BASES)], n // len(BASES)
        path = folder / f"{n}.mid"
        compose(emotion, 42, index).write(path)
        ids.append(f"{emotion}/{index}")
        labels.append(emotion)
        measured.append(style.measure(tokens.TOKENS.function(path)["ids"]))
    return ids, labels, np.stack(measured)


def swapped(labels, seed, count=SWAPPED):
    """Labels of which `count` are changed, and the indices of these songs."""
    random, out = np.random.default_rng(seed), list(labels)
    wrong = random.choice(len(labels), count, replace=False)
    for song in wrong:
        out[song] = random.choice([base for base in BASES if base != labels[song]])
    return out, set(wrong.tolist())


def judged(corpus, count, blur=0.0, seeds=range(8)):
    """(precision, recall) of the list over seeds; `blur`: noise on every trait, in units of its standard deviation."""
    ids, labels, measured = corpus
    right = listed = wanted = 0
    for seed in seeds:
        given, wrong = swapped(labels, seed, count)
        noise = np.random.default_rng((seed, 1)).standard_normal(measured.shape) * measured.std(axis=0) * blur
        found = {ids.index(suspect.song) for suspect in audit.suspects(ids, given, measured + noise)}
        right, listed, wanted = right + len(found & wrong), listed + len(found), wanted + len(wrong)
    return right / max(1, listed), right / wanted


def test_swapped_labels_are_found(corpus):
    """Six of sixty, over eight random draws."""
    precision, recall = judged(corpus, SWAPPED)
    assert precision >= 0.95 and recall >= 0.95


def test_many_wrong_labels_do_not_hide_each_other(corpus):
    """One in four: medians are robust."""
    precision, recall = judged(corpus, 15)
    assert precision >= 0.9 and recall >= 0.8


def test_precision_and_recall_stay_good_for_noisy_traits(corpus):
    precision, recall = judged(corpus, SWAPPED, blur=0.5)
    assert precision >= 0.7 and recall >= 0.5


def test_correct_labels_are_not_listed(corpus):
    assert audit.suspects(*corpus) == []


def test_reasons_are_sentences_with_numbers(corpus):
    ids, labels, measured = corpus
    given = list(labels)
    given[ids.index("sad/3")] = "angry"
    (found,) = audit.suspects(ids, given, measured)
    assert (found.song, found.label, found.likelier) == ("sad/3", "angry", "sad") and found.probability < 0.01
    why = " ".join(found.why)
    assert "loudness" in why and "tempo" in why and "half of the angry songs lie at" in why and "sad ones" in why


def test_with_few_songs_the_production_rules_decide(corpus):
    """With few songs per label, the rules help to find the wrong one; a label of one song is never proposed."""
    ids, labels, measured = corpus
    some = [n for n, label in enumerate(labels) if label in ("happy", "sad")][:8]
    given = [labels[n] for n in some]
    given[0] = "sad" if given[0] == "happy" else "happy"
    found = audit.suspects([ids[n] for n in some], given, measured[some])
    assert [suspect.song for suspect in found] == [ids[some[0]]]
    lonely = ["happy"] * 7 + ["angry"]
    assert all(suspect.likelier != "angry" for suspect in audit.suspects(ids[:8], lonely, measured[:8]))


def test_wrong_labels_are_found_even_if_nearly_half_of_a_folder_is_wrong(corpus):
    """Because the expected style is a median."""
    ids, labels, measured = corpus
    wrong = [f"angry/{n}" for n in range(4)]
    kept = [n for n, song in enumerate(ids) if song not in [f"happy/{n}" for n in range(4)]]
    given = ["happy" if ids[n] in wrong else labels[n] for n in kept]
    found = audit.suspects([ids[n] for n in kept], given, measured[kept])
    assert {suspect.song for suspect in found} == set(wrong)
    assert max(suspect.probability for suspect in found) < 1e-3


def test_a_song_is_not_compared_with_itself(corpus):
    """Of two songs of a label, one is wrong: if it were included, the median would be half-way."""
    ids, labels, measured = corpus
    some = [n for n, label in enumerate(labels) if label == "happy"] + [ids.index("sad/0")]
    given = ["happy"] * 9 + ["sad", "sad"]
    found = audit.suspects([ids[n] for n in some], given, measured[some])
    assert [suspect.song for suspect in found] == [ids[some[9]]]
    assert found[0].probability < 1e-8


@pytest.mark.parametrize("trait", ["velocity", "pitch", "tempo", "density"])
def test_one_outlying_trait_is_not_enough(corpus, trait):
    """A happy song with one outlying trait (a wrong tempo, a fixed loudness) is not listed."""
    ids, labels, measured = corpus
    column = measured[:, style.MEASURED.index(trait)]
    odd = measured.copy()
    odd[ids.index("happy/2"), style.MEASURED.index(trait)] = column.min() - 2 * column.std()
    assert audit.suspects(ids, labels, odd) == []


def test_a_corpus_with_a_single_emotion_has_no_suspects(corpus):
    ids, _, measured = corpus
    assert audit.suspects(ids, ["happy"] * PIECES, measured) == []


def test_the_rules_order_emotions_as_music_theory_does():
    tempo, mode, loud = (style.MEASURED.index(name) for name in ("tempo", "majorness", "velocity"))
    happy, sad, angry = (audit.rule_style(name) for name in ("happy", "sad", "angry"))
    assert happy[tempo] > sad[tempo] and happy[mode] > 0 > sad[mode] and angry[loud] > sad[loud]
