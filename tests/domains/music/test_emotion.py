"""The lexicon: complete words, their vectors, and the rule by which a path gets its label."""

import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from training.domains.music import emotion
from training.errors import UsageError

GUIDE = [
    *("happy", "joy", "calm", "peaceful", "excited", "content", "tender", "energetic"),
    *("sad", "melancholy", "grief", "despair", "angry", "rage", "fury"),
    *("fear", "anxiety", "terror", "panic", "surprise", "disgust", "neutral"),
]


def test_lexicon_has_six_bases_six_subs_six_tiers_several_words_each():
    cells = Counter((e.emotion, e.sub, e.tier) for e in emotion.lexicon().words.values() if e.sub)
    assert len(cells) == 6 * 6 * 6
    assert min(cells.values()) >= 2
    assert Counter(base for base, _, _ in cells) == dict.fromkeys(emotion.BASES, 36)
    assert Counter(tier for _, _, tier in cells) == dict.fromkeys(emotion.TIERS, 36)


@pytest.mark.parametrize("word", GUIDE)
def test_every_word_of_the_guide_is_known(word):
    assert emotion.match(word).word == word


def test_vectors_lie_in_their_ranges_and_grow_with_the_tier():
    for entry in emotion.lexicon().words.values():
        valence, arousal, intensity = entry.vector
        assert -1 <= valence <= 1 and -1 <= arousal <= 1 and 0 <= intensity <= 1
    book = emotion.lexicon()
    for place in book.places:
        base, sub = place.split(".")
        vectors = [book.graded(base, sub, tier) for tier in emotion.TIERS]
        radii = [v**2 + a**2 for v, a, _ in vectors]
        assert radii == sorted(radii) and [i for *_, i in vectors] == sorted(book.tiers.values())


def test_words_lie_in_the_right_quadrant():
    for word, valence, arousal in [("joy", 1, 1), ("calm", 1, -1), ("grief", -1, -1), ("rage", -1, 1)]:
        v, a, _ = emotion.vector(word)
        assert v * valence > 0.15 and a * arousal > 0.15, word
    assert emotion.vector("grief")[2] > emotion.vector("sad")[2] > emotion.vector("wistful")[2]


@pytest.mark.parametrize("name", ["garage", "crusader", "Sadler", "madrid", "fearnley", "hatchet", "garage_crusader"])
def test_part_of_a_word_does_not_match(name):
    """Ga*rage*, cru*sad*er."""
    assert emotion.match(name) is None
    assert not emotion.label_for(f"{name}/track 01.wav").hinted


def test_unhappy_is_sad():
    """Not happy."""
    found = emotion.match("unhappy")
    assert (found.emotion, found.word) == ("sad", "unhappy") and found.vector[0] < -0.3


def test_calm_tender_and_neutral_have_separate_vectors():
    vectors = {word: emotion.label_for(f"{word}/x.mid").vector for word in ("happy", "calm", "tender", "neutral")}
    assert len(set(vectors.values())) == 4
    assert vectors["neutral"] == (0.0, 0.0, 0.5)
    assert vectors["calm"][1] < 0 < vectors["happy"][1]
    assert emotion.label_for("neutral/x.mid").hinted


@pytest.mark.parametrize(
    "name, word",
    [
        ("SADSongs", "sad"), ("mySadSong", "sad"), ("HAPPY", "happy"), ("track_grief_001", "grief"),
        ("02-very.angry", "angry"), ("sad2", "sad"), ("OffGuard", "off guard"), ("caught off guard", "off guard"),
        ("Allegro furioso", "furioso"),
    ],
)  # fmt: skip
def test_complete_words_are_found_in_any_spelling(name, word):
    assert emotion.match(name).word == word


def test_decomposed_unicode_is_read_like_composed():
    """macOS decomposes names; an accent is part of its word, so `ragé` does not match `rage`."""
    for form in ("NFC", "NFD"):
        assert emotion.match(unicodedata.normalize(form, "ragé")) is None
        assert emotion.match(unicodedata.normalize(form, "fiancée happy")).word == "happy"


@pytest.mark.parametrize(
    "path, label, against",
    [
        ("sad/Joy Division/x.wav", "sad", "'Joy Division' names happy"),
        ("Joy Division/sad/x.wav", "sad", "'Joy Division' names happy"),
        ("calm/Rage Against the Machine/x.wav", "calm", "'Rage Against the Machine' names angry"),
        ("happy/Fear Factory/Demanufacture/x.wav", "happy", "'Fear Factory' names fear"),
        ("very sad songs 2/Happy Mondays/x.wav", "sad", "'Happy Mondays' names happy"),
        ("happy/Rage/x.wav", "happy", "'Rage' names angry"),
        ("happy/disc 2 sad/angry.mid", "happy", "'disc 2 sad' names sad"),
        ("sad/grief/x.wav", "grief", ""),
        ("sad/Joy Division/grief/x.wav", "grief", "'Joy Division' names happy"),
        ("my Sad Mp3 files/Someone/x.wav", "sad", ""),
        ("no fear/calm/x.wav", "calm", ""),
    ],
)
def test_a_folder_that_names_only_an_emotion_outranks_names_of_artists_and_albums(path, label, against):
    """The outermost of these decides; of those that agree with it, the nearest is used."""
    found = emotion.label_for(path)
    assert found.word == label
    assert against in found.against and bool(against) == bool(found.against)
    assert against in found.why


def test_nearest_folder_first_then_outward_then_file_name():
    assert emotion.label_for("Joy Division/Rage of Angels/angry.mid").word == "rage"
    assert emotion.label_for("happy/disc 2/angry.mid").word == "happy"
    assert emotion.label_for("album/angry.mid").word == "angry"
    assert emotion.label_for(Path("calm") / "01.wav").where == "folder 'calm'"
    assert emotion.label_for("x/01.sad").hinted is False  # an extension is not searched


def test_the_first_word_of_a_name_is_used_and_the_others_are_reported():
    found = emotion.match("sad then happy")
    assert found.word == "sad" and "happy" in found.why


def test_a_path_without_an_emotion_word_is_neutral():
    found = emotion.label_for("album/track01.wav")
    assert found.vector == (0.0, 0.0, 0.5) and found.why == "no hint" and not found.hinted


@pytest.mark.parametrize("name", ["not happy", "no_fear", "un-happy", "notVeryHappy", "without anger"])
def test_a_negated_word_is_ignored(name):
    assert emotion.match(name) is None


def test_a_degree_in_front_of_a_word_moves_its_tier():
    plain, very, slightly = (emotion.match(name) for name in ("sad", "very sad", "slightly sad"))
    assert (slightly.tier, plain.tier, very.tier) == ("subtle", "moderate", "strong")
    assert very.vector[0] < plain.vector[0] < slightly.vector[0] < 0
    assert emotion.match("extremely ecstatic").tier == "overwhelming"
    assert emotion.match("slightly calm").vector == emotion.vector("calm")


def test_classify_gives_every_word_its_own_emotion():
    for entry in emotion.lexicon().words.values():
        assert emotion.classify(entry.vector) == entry.emotion, entry
    assert emotion.classify([0.7, 0.4, 0.7] + [0.0] * 61) == "happy"
    with pytest.raises(ValueError, match="at least"):
        emotion.classify([0.5])


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match="joyful"):
        emotion.vector("joyfull")
    with pytest.raises(UsageError, match="angry"):
        emotion.rules("angri")


def test_rules_of_the_bases_differ_and_other_states_inherit():
    assert set(emotion.BASES) <= set(emotion.names())
    assert emotion.rules("sad").tempo[1] < emotion.rules("disgust").tempo[0] < emotion.rules("angry").tempo[0]
    calm, sad = emotion.rules("calm"), emotion.rules("sad")
    assert calm.bass == sad.bass and "aeolian" not in calm.modes  # a table is replaced completely


def _edited(tmp_path, old, new):
    text = emotion.LEXICON.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "emotions.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_a_word_that_occurs_twice_is_refused(tmp_path):
    path = _edited(tmp_path, "subtle: glum, glumly", "subtle: glum, happy")
    with pytest.raises(UsageError, match="`happy` occurs twice, under happy > joy > strong and sad > sorrow > subtle"):
        emotion.lexicon(path)


def test_a_filler_that_is_an_emotion_word_is_refused(tmp_path):
    path = _edited(tmp_path, "fillers: [song,", "fillers: [song, happy,")
    with pytest.raises(UsageError, match="`happy` is an emotion word, and a filler"):
        emotion.lexicon(path)


def test_misspelt_rule_and_falling_range_are_refused(tmp_path):
    with pytest.raises(UsageError, match="tempo"):
        emotion.lexicon(_edited(tmp_path, "tempo: [114, 148]", "tempi: [114, 148]"))
    (tmp_path / "emotions.yaml").rename(tmp_path / "other.yaml")
    path = _edited(tmp_path, "tempo: [114, 148]", "tempo: [148, 114]")
    emotion.lexicon.cache_clear()
    with pytest.raises(UsageError, match="lowest, highest"):
        emotion.lexicon(path)
    path = _edited(tmp_path, "rules: {tempo: [92, 108], ", "rules: {temppo: [92, 108], ")
    emotion.lexicon.cache_clear()
    with pytest.raises(UsageError, match="temppo"):
        emotion.lexicon(path)
