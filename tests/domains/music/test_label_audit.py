"""Labels swapped on purpose are found, songs rightly labelled are left alone, and the reasons are in words."""

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
    """`count` labels changed; returns them and the numbers of the songs that bear a wrong one."""
    random, out = np.random.default_rng(seed), list(labels)
    wrong = random.choice(len(labels), count, replace=False)
    for song in wrong:
        out[song] = random.choice([base for base in BASES if base != labels[song]])
    return out, set(wrong.tolist())


def judged(corpus, count, blur=0.0, seeds=range(8)):
    """(precision, recall) of the list over seeds; `blur`: noise on every trait, in its standard deviations."""
    ids, labels, measured = corpus
    right = listed = wanted = 0
    for seed in seeds:
        given, wrong = swapped(labels, seed, count)
        noise = np.random.default_rng((seed, 1)).standard_normal(measured.shape) * measured.std(axis=0) * blur
        found = {ids.index(suspect.song) for suspect in audit.suspects(ids, given, measured + noise)}
        right, listed, wanted = right + len(found & wrong), listed + len(found), wanted + len(wrong)
    return right / max(1, listed), right / wanted


def test_labels_swapped_on_purpose_are_found(corpus):
    """Six of sixty: precision and recall over eight draws."""
    precision, recall = judged(corpus, SWAPPED)
    assert precision >= 0.95 and recall >= 0.95


def test_many_wrong_labels_do_not_hide_each_other(corpus):
    """One in four: medians hold."""
    precision, recall = judged(corpus, 15)
    assert precision >= 0.9 and recall >= 0.8


def test_in_music_that_follows_no_rules_closely_the_list_stays_short_and_right(corpus):
    precision, recall = judged(corpus, SWAPPED, blur=0.5)
    assert precision >= 0.7 and recall >= 0.5


def test_a_corpus_that_is_rightly_labelled_has_nothing_listed(corpus):
    assert audit.suspects(*corpus) == []


def test_it_says_why_in_words_with_numbers(corpus):
    ids, labels, measured = corpus
    given = list(labels)
    given[ids.index("sad/3")] = "angry"
    (found,) = audit.suspects(ids, given, measured)
    assert (found.song, found.label, found.likelier) == ("sad/3", "angry", "sad") and found.probability < 0.01
    said = " ".join(found.why)
    assert "loudness" in said and "tempo" in said and "half of the angry songs lie at" in said and "sad ones" in said


def test_too_few_songs_are_judged_by_the_production_rules(corpus):
    """Three songs a label: with the rules the wrong one is found; a label of one song is never thought of."""
    ids, labels, measured = corpus
    some = [n for n, label in enumerate(labels) if label in ("happy", "sad")][:8]
    given = [labels[n] for n in some]
    given[0] = "sad" if given[0] == "happy" else "happy"
    found = audit.suspects([ids[n] for n in some], given, measured[some])
    assert [suspect.song for suspect in found] == [ids[some[0]]]
    lonely = ["happy"] * 7 + ["angry"]
    assert all(suspect.likelier != "angry" for suspect in audit.suspects(ids[:8], lonely, measured[:8]))


def test_a_folder_that_is_nearly_half_wrong_is_seen_through(corpus):
    """What is usual is a median: four angry songs among ten do not make happy music angry."""
    ids, labels, measured = corpus
    wrong = [f"angry/{n}" for n in range(4)]
    kept = [n for n, song in enumerate(ids) if song not in [f"happy/{n}" for n in range(4)]]
    given = ["happy" if ids[n] in wrong else labels[n] for n in kept]
    found = audit.suspects([ids[n] for n in kept], given, measured[kept])
    assert {suspect.song for suspect in found} == set(wrong)
    assert max(suspect.probability for suspect in found) < 1e-3


def test_a_song_is_no_witness_for_itself(corpus):
    """The only other song of its label: with itself in it, the middle would lie half-way."""
    ids, labels, measured = corpus
    some = [n for n, label in enumerate(labels) if label == "happy"] + [ids.index("sad/0")]
    given = ["happy"] * 9 + ["sad", "sad"]
    found = audit.suspects([ids[n] for n in some], given, measured[some])
    assert [suspect.song for suspect in found] == [ids[some[9]]]
    assert found[0].probability < 1e-8


@pytest.mark.parametrize("trait", ["velocity", "pitch", "tempo", "density"])
def test_one_odd_trait_is_no_proof(corpus, trait):
    """A file with one trait far out (a tempo read wrongly, a fixed loudness) is a happy song all the same."""
    ids, labels, measured = corpus
    column = measured[:, style.MEASURED.index(trait)]
    odd = measured.copy()
    odd[ids.index("happy/2"), style.MEASURED.index(trait)] = column.min() - 2 * column.std()
    assert audit.suspects(ids, labels, odd) == []


def test_one_emotion_alone_cannot_be_judged(corpus):
    ids, _, measured = corpus
    assert audit.suspects(ids, ["happy"] * PIECES, measured) == []


def test_the_rules_put_emotions_where_music_theory_does():
    tempo, mode, loud = (style.MEASURED.index(name) for name in ("tempo", "majorness", "velocity"))
    happy, sad, angry = (audit.rule_style(name) for name in ("happy", "sad", "angry"))
    assert happy[tempo] > sad[tempo] and happy[mode] > 0 > sad[mode] and angry[loud] > sad[loud]
