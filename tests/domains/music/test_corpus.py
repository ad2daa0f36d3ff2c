"""Pairing, labels and the split: ambiguous files are not paired, no song is on both sides, results are reproducible."""

import json
from collections import defaultdict
from collections.abc import Sequence

import pytest

from training.data.files import Found
from training.domains.music.corpora import corpus, labels
from training.domains.music.corpora.labels import Labels
from training.domains.music.corpora.pairing import pair
from training.domains.music.corpora.split import Group, connected, held_out
from training.errors import DataError, UsageError


def found(*names: str, same: Sequence[tuple[str, ...]] = ()) -> list[Found]:
    """Files with different contents, but for those listed together in `same`."""
    content = {name: name for name in names}
    for alike in same:
        content.update(dict.fromkeys(alike, alike[0]))
    return [Found("/root", name, number, content=content[name].encode()) for number, name in enumerate(names)]


def pairs(audio, midi, same=(), **options):
    result = pair(found(*audio, same=same), found(*midi, same=same), **options)
    return result, {(p.audio.relative, p.midi.relative, p.by) for p in result.pairs}


# -- pairing -------------------------------------------------------------------------------------------------------


def test_the_same_relative_path_pairs():
    _, got = pairs(["happy/a.wav", "sad/a.WAV"], ["happy/a.mid", "sad/a.MIDI"])
    assert got == {("happy/a.wav", "happy/a.mid", "path"), ("sad/a.WAV", "sad/a.MIDI", "path")}


def test_one_stem_in_two_folders_is_never_paired_by_stem():
    result, got = pairs(["happy/track001.wav", "x/only.wav"], ["sad/track001.mid", "calm/track001.mid", "y/only.mid"])
    assert got == {("x/only.wav", "y/only.mid", "stem")}
    assert [a.reason for a in result.ambiguous] == ["the name is in several folders"]
    assert not result.unmatched_audio
    assert not result.unmatched_midi


def test_a_stem_that_was_paired_by_path_elsewhere_is_not_unique():
    """The remaining files of that name may belong to the pair or to each other."""
    result, got = pairs(["a/t.wav", "b/t.wav"], ["a/t.mid", "c/t.mid"])
    assert got == {("a/t.wav", "a/t.mid", "path")}
    assert [(a.audio[0].relative, a.midi[0].relative) for a in result.ambiguous] == [("b/t.wav", "c/t.mid")]


def test_formats_of_one_recording_all_pair_with_its_score():
    assert pairs(["a/t.wav", "a/t.mp3"], ["a/t.mid"])[1] == {
        ("a/t.wav", "a/t.mid", "path"),
        ("a/t.mp3", "a/t.mid", "path"),
    }
    assert len(pairs(["a/t.wav", "a/t.mp3"], ["b/t.mid"])[1]) == 2


def test_different_scores_of_one_name_are_ambiguous_and_equal_ones_are_not():
    result, got = pairs(["t.wav"], ["t.mid", "t.midi"])
    assert not got
    assert "different contents" in result.ambiguous[0].reason
    assert len(pairs(["t.wav"], ["t.mid", "t.midi"], same=[("t.mid", "t.midi")])[1]) == 1
    assert not pairs(["a/t.wav"], ["b/t.mid", "b/t.midi"])[1]


def test_unmatched_files_are_listed():
    result, got = pairs(["a.wav", "b.wav"], ["b.mid", "c.mid"])
    assert len(got) == 1
    assert [f.relative for f in result.unmatched_audio] == ["a.wav"]
    assert [f.relative for f in result.unmatched_midi] == ["c.mid"]


def test_folders_that_disagree_on_the_emotion_are_not_paired_by_stem():
    """Although the stem is unique: the folders show that these are two songs."""
    result, got = pairs(["happy/t.wav"], ["sad/t.mid"], contradiction=labels.contradiction)
    assert not got
    assert result.ambiguous[0].reason == "the recording's path names happy, the score's sad"
    assert len(pairs(["happy/t.wav"], ["scores/t.mid"], contradiction=labels.contradiction)[1]) == 1
    assert len(pairs(["happy/t.wav"], ["happy/take2/t.mid"], contradiction=labels.contradiction)[1]) == 1


# -- labels --------------------------------------------------------------------------------------------------------


def test_a_song_is_labelled_by_its_recording_then_its_score_then_neutral():
    happy, plain, sad = found("happy/t.wav", "x/t.wav", "sad/t.mid")
    assert labels.of_song([happy, sad], Labels()).name == "happy"
    assert labels.of_song([plain, sad], Labels()).name == "sad"
    nothing = labels.of_song([plain], Labels())
    assert (nothing.emotion, nothing.source) == ((0.0, 0.0, 0.5), "none")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "path,emotion\nhappy/t.wav,sad\nu,joyful\n"),
        ("l.csv", "\ufeffhappy/t.wav,sad\r\nu,joyful\r\n"),
        ("l.csv", "genre,emotion,id\nrock,sad,happy/t\nfolk,joyful,u\n"),
        ("l.json", json.dumps({"happy/t": "sad", "u": "joyful"})),
        ("l.json", json.dumps([{"path": "happy/t.wav", "emotion": "sad"}, {"id": "u", "emotion": "joyful"}])),
        ("l.jsonl", '{"path": "./happy/t.wav", "emotion": "sad"}\n\n{"id": "u", "emotion": "joyful"}\n'),
        ("l.jsonl", '{"path": "happy\\\\t.wav", "emotion": "sad"}\n'),
    ],
)
def test_a_file_of_labels_has_priority_over_folders(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    given = labels.read(tmp_path / name)
    label = labels.of_song(found("happy/t.wav"), given)
    assert (label.name, label.source) == ("sad", "labels")
    assert given.unused() == (["u"] if "joyful" in text else [])


def test_labels_may_be_vectors(tmp_path):
    (tmp_path / "l.csv").write_text("file,valence,arousal,intensity\na.wav,-0.5,0.25,1\n")
    (tmp_path / "l.json").write_text(json.dumps({"a": [0.1] * 64}))
    assert labels.read(tmp_path / "l.csv").find(found("a.wav")[0]).emotion == (-0.5, 0.25, 1.0)
    assert len(labels.read(tmp_path / "l.json").find(found("a.wav")[0]).emotion) == 64


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("l.csv", "path,emotion\na,sad\nb,hapy", "l.csv:3: `hapy` is not in the emotion lexicon. Did you mean `happy`"),
        ("l.csv", "a,sad\na,happy\n", "l.csv:2: a has a different label in an earlier line"),
        ("l.csv", "a,sad\nb,happy,1\n", "l.csv:2: has 3 fields, not 2"),
        ("l.csv", "a,0.5,2,0.5\n", "l.csv:1: number 2 of an emotion must be between -1 and 1"),
        ("l.csv", "a,0.5,nan,0.5\n", "number 2"),
        ("l.csv", "a,x,0,0\n", "could not convert"),
        ("l.csv", "a,b,c\n", "neither a header"),
        ("l.csv", 'a,"sad\n', "is not CSV"),
        ("l.csv", ",sad\n", "has an empty path"),
        ("l.csv", "", "holds no label"),
        ("l.jsonl", '{"path": "a", "emotion": "sad"}\n{"path": 3}\n', "l.jsonl:2: is not an object"),
        ("l.jsonl", '{"path": "a", "emotion": [1, 2]}\n', "3 or 64 numbers"),
        ("l.jsonl", '{"path"\n', "l.jsonl:1: is not valid JSON"),
        ("l.json", '{"a": "sad", "b": "sad", "a": "happy"}', "l.json:3: a has a different label in an earlier line"),
        ("l.json", '{"a": "sad", "./a": "happy"}', "l.json:2: a has a different label"),
        ("l.json", '[{"path": "a", "emotion": "sad", "emotion": "happy"}]', "l.json:1: has the key `emotion` twice"),
        ("l.jsonl", '{"path": "a", "path": "b", "emotion": "sad"}\n', "l.jsonl:1: has the key `path` twice"),
        ("l.csv", "path,emotion,emotion\na,sad,happy\n", "has the column `emotion` twice"),
    ],
)
def test_invalid_labels_are_reported_with_their_line(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as error:
        labels.read(tmp_path / name)
    assert expected in str(error.value)


def test_a_label_that_is_repeated_is_no_mistake(tmp_path):
    (tmp_path / "l.json").write_text('{"a": "sad", "a": "sad"}')
    assert len(labels.read(tmp_path / "l.json")) == 1


def test_a_missing_file_of_labels_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        labels.read(tmp_path / "none.csv")


# -- the split -----------------------------------------------------------------------------------------------------


def groups(count: int, strata=("happy", "sad", "calm"), paired=True) -> list[Group]:
    return [Group(f"{strata[n % len(strata)]}/t{n}", strata[n % len(strata)], paired) for n in range(count)]


@pytest.mark.parametrize("share", [0.001, 0.05, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("count", [2, 3, 7, 100])
def test_neither_side_is_ever_empty(count, share):
    for some in (groups(count), groups(count, paired=False)):
        out = held_out(some, share, 1)
        assert 1 <= len(out) <= count - 1
    mixed = [*groups(count), *(Group(f"m{n}", "calm", False) for n in range(40))]
    out = held_out(mixed, share, 3)
    inside = {g.key for g in mixed if g.paired} & out
    assert 1 <= len(inside) <= count - 1


def test_the_share_is_met_in_total_and_in_every_stratum():
    out = held_out(groups(600), 0.1, 42)
    assert len(out) == 60
    by_stratum = defaultdict(int)
    for key in out:
        by_stratum[key.split("/")[0]] += 1
    assert set(by_stratum.values()) == {20}


def test_the_split_depends_on_ids_and_seed_alone():
    """In any order and in any process (hash() is not used). Pinned, because a change would mix existing splits."""
    some = groups(40)
    assert held_out(some[::-1], 0.1, 42) == held_out(some, 0.1, 42)
    assert held_out(some, 0.1, 43) != held_out(some, 0.1, 42)
    assert sorted(held_out(some, 0.1, 42)) == ["calm/t2", "happy/t30", "happy/t36", "sad/t13"]


def test_a_new_song_changes_the_side_of_few_others():
    before = held_out(groups(300), 0.1, 42)
    after = held_out([*groups(300), Group("happy/new", "happy", True)], 0.1, 42)
    assert len(before ^ after) <= 2


def test_bonds_are_transitive():
    assert list(connected([["a"], ["b"], ["c"], ["b", "c"], ["d", "a"]])) == [0, 1, 1, 1, 0]


def sides(audio, midi, same=(), share=0.5, seed=1):
    scores = found(*midi, same=same)
    return corpus.songs(pair(found(*audio, same=same), scores).pairs, scores, Labels(), share, seed)[:2]


def test_no_part_of_a_song_is_on_both_sides_of_either_manifest():
    """Formats (x.wav, x.mp3), and copies of a recording or a score under other names; both families share one split."""
    audio = [f"happy/s{n}.wav" for n in range(20)] + [f"happy/s{n}.mp3" for n in range(0, 20, 2)]
    audio += [f"other/copy{n}.wav" for n in range(0, 20, 5)]
    midi = [f"happy/s{n}.mid" for n in range(20)] + [f"more/m{n}.mid" for n in range(20)]
    midi += [f"other/copy{n}.mid" for n in range(0, 20, 5)] + [f"more/m{n}.midi" for n in range(10, 20)]
    same = [(f"happy/s{n}.wav", f"other/copy{n}.wav") for n in range(0, 20, 5)]
    same += [(f"happy/s{n}.mid", f"more/m{n}.mid") for n in range(3)]
    for seed in range(20):
        paired, alone = sides(audio, midi, same, 0.4, seed)
        side_of = defaultdict(set)
        for song in [*paired, *alone]:
            for file in (song.audio, song.midi):
                if file is not None:
                    side_of[file.content].add(song.held_out)
                    side_of[file.key].add(song.held_out)
        assert all(len(found_on) == 1 for found_on in side_of.values())
        for rows in (paired, alone):
            assert {song.held_out for song in rows} == {True, False}


def test_ids_are_unique_and_the_same_in_both_manifests_and_on_every_host():
    paired, alone = sides(["a/t.wav", "a/t.mp3", "b/u.wav"], ["a/t.mid", "x/u.mid", "b/v.mid"])
    assert [song.id for song in paired] == ["a/t.mp3", "a/t.wav", "b/u"]
    assert [song.id for song in alone] == ["a/t", "b/u", "b/v"]


def test_a_score_has_the_label_of_its_recording():
    _, alone = sides(["happy/t.wav", "sad/u.wav"], ["one/t.mid", "one/u.mid"])
    assert {song.id: song.label.name for song in alone} == {"happy/t": "happy", "sad/u": "sad"}


# -- copies with different labels ----------------------------------------------------------------------------------


def copies(audio, midi, same, given=None):
    scores = found(*midi, same=same)
    sounds = found(*audio, same=same)
    paired, alone, lines = corpus.songs(pair(sounds, scores).pairs, scores, given or Labels(), 0.5, 1)
    return {song.id for song in paired}, {song.id for song in alone}, lines


def test_one_recording_under_two_emotions_is_in_no_row_and_reported():
    audio, midi = ["happy/a.wav", "sad/b.wav", "calm/c.wav"], ["happy/a.mid", "sad/b.mid", "calm/c.mid"]
    paired, alone, lines = copies(audio, midi, [("happy/a.wav", "sad/b.wav")])
    assert (paired, alone) == ({"calm/c"}, {"happy/a", "sad/b", "calm/c"})  # the scores differ
    assert lines == ["happy/a.wav (happy), sad/b.wav (sad): none is used"]
    paired, alone, lines = copies(audio, midi, [("happy/a.wav", "sad/b.wav"), ("happy/a.mid", "sad/b.mid")])
    assert (paired, alone, len(lines)) == ({"calm/c"}, {"calm/c"}, 2)


def test_neither_side_of_a_manifest_is_empty_where_the_score_of_a_recording_is_left_out():
    """The only song held out may be the one whose score has two emotions."""
    audio = [f"happy/s{n}.wav" for n in range(6)]
    midi = [*(f"happy/s{n}.mid" for n in range(6)), "calm/copy.mid"]
    scores = found(*midi, same=[("happy/s0.mid", "calm/copy.mid")])
    pairs_ = pair(found(*audio), scores).pairs
    for seed in range(30):
        paired, alone, _ = corpus.songs(pairs_, scores, Labels(), 0.1, seed)
        assert (len(paired), len(alone)) == (6, 5)
        assert {song.held_out for song in paired} == {song.held_out for song in alone} == {True, False}


def test_a_label_of_the_user_settles_which_copy_is_used(tmp_path):
    (tmp_path / "l.csv").write_text("sad/b.mid,angry\n")
    midi, same = ["happy/a.mid", "sad/b.mid", "calm/c.mid"], [("happy/a.mid", "sad/b.mid")]
    _, alone, lines = copies([], midi, same, labels.read(tmp_path / "l.csv"))
    assert (alone, lines) == ({"sad/b", "calm/c"}, ["happy/a.mid (happy), sad/b.mid (angry): only angry is used"])


def test_a_copy_without_an_emotion_does_not_make_a_song_neutral():
    midi = ["happy/a.mid", "backup/a.mid", "joyful/a2.mid", "calm/c.mid"]
    _, alone, lines = copies([], midi, [("happy/a.mid", "backup/a.mid", "joyful/a2.mid")])
    assert alone == {"happy/a", "joyful/a2", "calm/c"}
    assert "backup/a.mid (no emotion word)" in lines[0] and "only happy is used" in lines[0]


def test_copies_under_one_emotion_stay():
    midi = ["happy/a.mid", "happy/b.mid", "calm/c.mid"]
    assert copies([], midi, [("happy/a.mid", "happy/b.mid")])[1:] == ({"happy/a", "happy/b", "calm/c"}, [])
