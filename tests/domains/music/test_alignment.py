"""Recordings are aligned with their scores: offsets, rates and rubato are found, and other songs are recognised."""

import hashlib
import json
import shutil

import mido
import numpy as np
import pytest

from benchmarks.music import alignment as planting
from tests.domains.music.corpora import rows, run, write_mid, write_wav
from training.data import sandbox
from training.data.store import Store
from training.domains.music.alignment import align, pairs
from training.domains.music.alignment.features import FRAME, of_score, of_sound
from training.domains.music.alignment.pairs import OTHERS, PairOfRecords, align_pairs, others_of
from training.domains.music.alignment.timemap import TimeMap, candidates, mapped, mapped_notes
from training.domains.music.audio import LOGMEL, SAMPLE_RATE, encode_audio, log_mel
from training.domains.music.composing.demo import make_demo_corpus
from training.domains.music.midi.notes import NOTE
from training.domains.music.midi.reader import NOTES, encode_notes
from training.errors import DataError

SONGS = 7


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Composed songs, whose sound and score agree exactly."""
    folder = tmp_path_factory.mktemp("composed")
    make_demo_corpus(folder, SONGS)
    return folder


@pytest.fixture(scope="module")
def songs(corpus):
    return [
        planting.Song(
            path.stem,
            encode_audio(corpus / "audio" / path.parent.name / f"{path.stem}.wav")["logmel"],
            encode_notes(path)["notes"],
        )
        for path in sorted((corpus / "midi").rglob("*.mid"))
    ]


# -- one pair ----------------------------------------------------------------------------------------------------------


def test_pairs_that_agree_keep_the_identity(songs):
    for song in songs:
        assert align.align(song.logmel, song.notes).map.kind == "identity", song.name


@pytest.mark.parametrize(
    ("kind", "expected"), [("offset", {"offset"}), ("rate", {"rate"}), ("both", {"rate"}), ("rubato", {"bent", "rate"})]
)
def test_what_was_changed_is_found_within_50_ms(songs, kind, expected):
    for song in songs[:4]:
        pair = planting.PLANTED[kind](song, np.random.default_rng(3))
        found = align.align(pair.logmel, pair.notes).map
        true = pair.truth(pair.notes["onset"])
        inside = (true >= 0) & (true < len(pair.logmel) * FRAME)
        assert found.kind in expected, song.name
        assert np.median(np.abs(found(pair.notes["onset"]) - true)[inside]) < 0.05, song.name


def test_a_recording_of_another_song_is_recognised_and_its_own_is_not(songs):
    scores = [song.notes for song in songs]
    for number, song in enumerate(songs):
        wrong = (number + 1) % len(songs)
        assert not align.align(song.logmel, scores[number], scores[:number] + scores[number + 1 :]).other_song, (
            song.name
        )
        assert align.align(song.logmel, scores[wrong], scores[:wrong] + scores[wrong + 1 :]).other_song, song.name


def test_a_recording_that_fits_its_score_badly_gets_no_time_map(songs, tmp_path):
    """Tones that follow the score's onsets, not its pitches: a path that bends makes them similar all the same."""
    notes = songs[0].notes
    seconds = float((notes["onset"] + notes["duration"]).max())
    at = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    step = np.searchsorted(np.unique(notes["onset"]), at, "right")
    logmel = log_mel((0.3 * np.sin(2 * np.pi * (330 + 40 * (step % 12)) * at)).astype(np.float32))
    found = align.align(logmel, notes, [song.notes for song in songs[1:]])
    assert not found.same_song
    assert not align.align(logmel, notes, [notes] * 8).other_song, "the same music is no other song"


def test_with_few_other_songs_there_is_no_verdict(songs):
    others = [song.notes for song in songs[2 : 1 + align.ENOUGH]]
    assert not align.align(songs[0].logmel, songs[1].notes, others).other_song


def test_features_are_whole_numbers_so_that_sums_are_exact_in_any_order(songs):
    for features in (of_sound(songs[0].logmel), of_score(songs[0].notes, 500)):
        assert np.array_equal(features, np.rint(features))
        assert (np.abs(features) ** 2).sum(axis=1).max() < 2**23


def test_sound_without_a_pitch_has_a_map_too(songs):
    silent = np.full((400, 128), -11.5, np.float16)
    silent[200] = 0
    assert align.align(silent, songs[0].notes).map.kind == "identity"


# -- maps --------------------------------------------------------------------------------------------------------------

SCORE = np.arange(0, 60, 0.5)


def test_the_identity_changes_no_bit_of_the_notes():
    notes = np.zeros(3, NOTE)
    assert mapped_notes(np.zeros((0, 2)), notes) is notes
    assert TimeMap.identity()(SCORE) is SCORE


def test_a_map_continues_beyond_its_knots_at_its_mean_rate():
    assert mapped(np.array([[0.0, 2.0]]), np.array([-1.0, 5.0])).tolist() == [1.0, 7.0]
    bent = np.array([[1.0, 1.0], [2.0, 3.0], [3.0, 4.0]])
    assert mapped(bent, np.array([0.0, 1.5, 5.0])).tolist() == [-0.5, 2.0, 7.0]


def test_mapped_notes_keep_their_order_and_leave_out_what_ends_before_the_recording():
    notes = np.zeros(3, NOTE)
    notes["onset"], notes["duration"] = [0.0, 1.5, 4.0], [1.0, 1.0, 2.0]
    out = mapped_notes(np.array([[0.0, -2.0], [4.0, 3.0]]), notes)
    assert out["onset"] == pytest.approx([-0.125, 3.0])
    assert out["duration"] == pytest.approx([1.25, 2.5])


@pytest.mark.parametrize(
    ("heard", "kind", "knots"),
    [
        (SCORE + 1.25, "offset", [[0, 1.25]]),
        (SCORE * 1.05 - 0.5, "rate", [[0, -0.5], [59.5, 61.975]]),
        (SCORE + 2 * (SCORE > 30), "bent", None),
    ],
)
def test_the_simplest_map_comes_first(heard, kind, knots):
    found = candidates(SCORE, heard)
    if knots is None:
        assert found[-1].kind == kind
        assert (np.diff(found[-1].knots, axis=0) > 0).all()
    else:
        assert [by.kind for by in found] == [kind]
        assert found[0].knots == pytest.approx(np.array(knots, float), abs=0.002)


def test_onsets_that_only_jitter_have_no_map():
    assert not candidates(SCORE, SCORE + np.random.default_rng(1).normal(0.03, 0.05, len(SCORE)))


# -- many pairs --------------------------------------------------------------------------------------------------------


def test_other_scores_are_chosen_by_content_alone():
    ring = sorted(hashlib.sha256(bytes([number % 256, number // 256])).digest() for number in range(500))
    sounds = [np.random.default_rng(number).bytes(32) for number in range(100)]
    before = [others_of(sound, ring[7], ring) for sound in sounds]
    assert all(len(set(others)) == OTHERS and ring[7] not in others for others in before)
    more = sorted([*ring, bytes([7]) * 32])
    assert sum(others_of(sound, ring[7], more) != others for sound, others in zip(sounds, before, strict=True)) < 30
    assert others_of(sounds[0], ring[0], ring[:3]) == ring[1:3]


def test_results_depend_neither_on_the_order_of_pairs_nor_on_workers(songs, tmp_path, monkeypatch):
    """And a second call computes nothing."""
    monkeypatch.setattr(pairs, "OTHERS", 3)  # fewer than there are, so that a choice is made
    found = []
    for number, order in enumerate((1, -1)):
        cache, records = tmp_path / str(number), []
        for song in songs[::order]:
            pair = planting.rate(song, planting.seeded("rate", song))
            keys = [song.name.encode().ljust(32, end) for end in (b"a", b"b")]
            for kind, key, record in (
                (LOGMEL.kind, keys[0], {"logmel": pair.logmel}),
                (NOTES.kind, keys[1], {"notes": pair.notes}),
            ):
                with Store.at(cache / kind).writing() as writer:
                    writer.add(key, record)
            records.append(PairOfRecords(*keys, *keys))
        results = align_pairs(records, cache, 1 + number, lambda _: None)
        assert [again.knots.tolist() for again in align_pairs(records, cache, 1, pytest.fail)] == [
            one.knots.tolist() for one in results
        ]
        found.append([(one.kind, one.knots.tolist(), one.strength, one.others) for one in results[::order]])
    assert found[0] == found[1]


# -- prepare -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(corpus, tmp_path):
    """The composed songs, but: happy_001's score begins 3 s later, and the scores of sad_001 and fear_001 are
    exchanged."""
    for folder in ("audio", "midi"):
        shutil.copytree(corpus / folder, tmp_path / folder)
    late = tmp_path / "midi/happy/happy_001.mid"
    file = mido.MidiFile(late)
    tempo = next(message.tempo for message in file.tracks[0] if message.type == "set_tempo")
    for track in file.tracks:
        first = (
            next(n for n, message in enumerate(track) if message.type == "note_on")
            if any(m.type == "note_on" for m in track)
            else None
        )
        if first is not None:
            track[first].time += round(mido.second2tick(3, file.ticks_per_beat, tempo))
    file.save(late)
    sad, fear = tmp_path / "midi/sad/sad_001.mid", tmp_path / "midi/fear/fear_001.mid"
    sad.rename(tmp_path / "kept")
    fear.rename(sad)
    (tmp_path / "kept").rename(fear)
    return tmp_path


def every_row(root):
    return {row["id"]: row for side in ("train", "val") for row in rows(root, f"spectocloud_{side}")}


def test_prepare_keeps_a_time_map_beside_a_pair_and_quarantines_other_songs(root):
    summary = run(root, no_align=False, generate_clouds=True, audit=True)
    found = every_row(root)
    assert summary.alignment == {"identity": SONGS - 3, "offset": 1, "rate": 0, "bent": 0}
    ((score, heard),) = found["happy/happy_001"]["time_map"]
    assert heard - score == pytest.approx(-3, abs=0.05)
    assert summary.time_maps[0]["song"] == "happy/happy_001" and "early" in summary.time_maps[0]["what"]
    assert summary.other_songs == 2
    assert sorted(item["path"].rpartition("/")[2] for item in summary.quarantined) == ["fear_001.wav", "sad_001.wav"]
    assert all("not the same song" in item["reason"] for item in summary.quarantined)
    assert not {"sad/sad_001", "fear/fear_001"} & found.keys()
    for text in ("1 through a time map, 2 not the same song", "happy/happy_001: 3.0"):
        assert text in summary.output
    audit = json.loads((root / "out/data/manifests/audit.json").read_text())["alignment"]
    assert audit["time_maps"] == summary.time_maps
    assert audit["not_the_same_song"] == summary.quarantined

    run(root, generate_clouds=True)  # without alignment
    plain = every_row(root)
    assert len(plain) == SONGS and not any("time_map" in row for row in plain.values())
    same = found.keys() - {"happy/happy_001"}
    assert {name: found[name] for name in same} == {name: plain[name] for name in same}
    assert found["happy/happy_001"]["target_pointcloud_path"] != plain["happy/happy_001"]["target_pointcloud_path"]


def test_a_second_run_aligns_nothing_and_changes_nothing(root, monkeypatch):
    digest = run(root, no_align=False).digest
    monkeypatch.setattr(sandbox, "run", lambda *a, **k: pytest.fail("aligned again"))
    again = run(root, no_align=False)
    assert again.up_to_date and again.digest == digest
    assert run(root).digest != digest


def test_pairs_that_are_too_short_are_used_as_they_are_and_listed(root, corpus):
    write_wav(root / "audio/happy/short.wav", 3)
    write_mid(root / "midi/happy/short.mid", 3)
    summary = run(root, no_align=False)
    assert summary.unaligned == ["happy/short: shorter than 5 seconds"]
    assert "time_map" not in every_row(root)["happy/short"]


def test_a_corpus_in_which_nothing_fits_is_refused(corpus, tmp_path):
    shutil.copytree(corpus / "audio", tmp_path / "audio")
    scores = sorted((corpus / "midi").rglob("*.mid"))
    for number, score in enumerate(scores):
        target = tmp_path / "midi" / score.relative_to(corpus / "midi")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scores[(number + 1) % len(scores)], target)
    with pytest.raises(DataError, match="No recording fits its score"):
        run(tmp_path, no_align=False)
