"""The demo corpus: real files, made once, marked as synthetic, completed after an interruption."""

import json

import mido
import numpy as np
import pytest
import soundfile

from training.domains.music.composing import demo
from training.domains.music.emotion import BASES, label_for
from training.errors import HostError, UsageError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    return folder, demo.make_demo_corpus(folder, pieces=7, seed=5)


def _state(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_corpus_has_pairs_of_files_in_folders_by_emotion(corpus):
    folder, (audio, midi) = corpus
    waves = sorted(audio.rglob("*.wav"))
    assert (audio, midi) == (folder / "audio", folder / "midi")
    assert [p.relative_to(audio).with_suffix("").as_posix() for p in waves] == sorted(
        [f"{name}/{name}_001" for name in BASES] + ["happy/happy_002"]
    )
    for path in waves:
        score = midi / path.relative_to(audio).with_suffix(".mid")
        assert label_for(path.relative_to(audio)).word == path.parent.name
        assert abs(mido.MidiFile(score).length - soundfile.info(path).duration) < 1.5


def test_all_pieces_differ(corpus):
    _, (audio, midi) = corpus
    for root, pattern in ((audio, "*.wav"), (midi, "*.mid")):
        contents = [p.read_bytes() for p in root.rglob(pattern)]
        assert len(set(contents)) == len(contents) == 7


def test_several_processes_make_the_same_files_as_one(corpus, tmp_path, monkeypatch):
    folder, _ = corpus
    monkeypatch.setattr(demo, "ALONE", 0)
    demo.make_demo_corpus(tmp_path, pieces=7, seed=5)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_a_piece_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    """And the corpus is incomplete, so that the next call makes the piece."""
    monkeypatch.setattr(demo, "ALONE", 0)
    (tmp_path / "midi" / "sad" / "sad_001.mid").mkdir(parents=True)
    with pytest.raises(HostError, match="cannot be made"):
        demo.make_demo_corpus(tmp_path, pieces=2)
    (tmp_path / "midi" / "sad" / "sad_001.mid").rmdir()
    demo.make_demo_corpus(tmp_path, pieces=2)
    assert (tmp_path / "midi" / "sad" / "sad_001.mid").is_file()


def test_the_folder_and_both_roots_are_marked_as_synthetic(corpus):
    """Composed music must not be mistaken for the user's."""
    folder, roots = corpus
    for place in (folder, *roots):
        marker = json.loads((place / demo.MARKER).read_text())
        assert marker["synthetic"] is True and marker["seed"] == 5 and marker["code_version"] == demo.code_version()
        assert demo.is_synthetic(place)
    assert not demo.is_synthetic(folder.parent)


def test_a_second_call_changes_nothing(corpus):
    folder, roots = corpus
    before = _state(folder)
    assert demo.make_demo_corpus(folder, pieces=7, seed=5) == roots
    assert _state(folder) == before


def test_only_missing_parts_of_an_incomplete_corpus_are_made_again(tmp_path):
    folder = tmp_path / "c"
    audio, midi = demo.make_demo_corpus(folder, pieces=2)
    first = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    kept = audio / "happy" / "happy_001.wav"
    before = kept.stat().st_mtime_ns
    torn = audio / "sad" / "sad_001.wav"
    torn.write_bytes(torn.read_bytes()[:1000])
    leftover = midi / "sad" / ".sad_001.mid.123.partial"
    leftover.write_bytes(b"MThd")
    demo.make_demo_corpus(folder, pieces=2)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == first
    assert kept.stat().st_mtime_ns == before and not leftover.exists()


def test_a_killed_run_leaves_an_incomplete_corpus(tmp_path, monkeypatch):
    folder = tmp_path / "c"
    real = demo.synth.render
    calls = []

    def render(notes, seed):
        calls.append(seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(notes, seed=seed)

    monkeypatch.setattr(demo.synth, "render", render)
    with pytest.raises(KeyboardInterrupt):
        demo.make_demo_corpus(folder, pieces=2)
    assert demo.is_synthetic(folder / "audio")  # even an incomplete corpus is marked
    demo.make_demo_corpus(folder, pieces=2)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if p.name != demo.MARKER}
    assert len(files) == 4
    assert all(np.isfinite(soundfile.read(p)[0]).all() for p in folder.rglob("*.wav"))


def test_another_seed_count_or_code_version_makes_another_corpus(tmp_path, monkeypatch):
    folder = tmp_path / "c"
    audio, _ = demo.make_demo_corpus(folder, pieces=2, seed=1)
    first = (audio / "happy" / "happy_001.wav").read_bytes()
    demo.make_demo_corpus(folder, pieces=1, seed=2)
    assert (audio / "happy" / "happy_001.wav").read_bytes() != first
    assert not (audio / "sad" / "sad_001.wav").exists()  # of the old corpus
    before = _state(folder)
    monkeypatch.setattr(demo, "code_version", lambda: "other")
    demo.make_demo_corpus(folder, pieces=1, seed=2)
    after = _state(folder)
    assert all(after[p] != before[p] for p in before)


def test_a_folder_with_other_music_is_refused(tmp_path):
    own = tmp_path / "audio" / "mine.wav"
    own.parent.mkdir()
    own.write_bytes(b"RIFF")
    with pytest.raises(UsageError, match=r"mine\.wav does not belong to the demo corpus"):
        demo.make_demo_corpus(tmp_path, pieces=1)
    assert own.read_bytes() == b"RIFF"


def test_zero_pieces_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one"):
        demo.make_demo_corpus(tmp_path, pieces=0)
