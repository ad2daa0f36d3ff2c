"""Films, sound, annotations, and the bins of the volumes."""

from __future__ import annotations

import subprocess
import sys
import wave

import numpy as np
import openpyxl
import pytest

from training.domains.brain.demo.film import write_film
from training.domains.brain.demo.world import FPS, Film
from training.domains.brain.stimulus import annotations, bins, film

SECONDS = 12


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A film that is black and silent until 6 s, then white with a tone of 600 Hz."""
    frames = SECONDS * FPS
    late = np.arange(frames) >= 6 * FPS
    colour = np.repeat(np.where(late, 0.95, 0.05)[:, None], 3, 1)
    tone = np.zeros((frames, 4))
    tone[:, 1] = late
    still = np.full((frames, 2), -9.0)  # the blob is outside of the picture
    path = tmp_path_factory.mktemp("film") / "short.mp4"
    write_film(path, Film(colour, still, np.zeros(frames), tone, []))
    return path


def test_pictures_and_sound_are_at_their_times(short):
    record = film.decode(short)
    assert record["pictures"].shape == (SECONDS * film.PICTURES, film.HEIGHT, film.WIDTH, 3)
    light = record["pictures"].mean((1, 2, 3))
    assert light[: 6 * film.PICTURES - 1].max() < 60 and light[6 * film.PICTURES + 1 :].min() > 190
    levels = record["levels"].astype(float)
    assert len(levels) == pytest.approx(SECONDS * film.LEVELS, abs=2)
    loud = levels.max(1)
    assert loud[: 6 * film.LEVELS - 3].max() < loud[6 * film.LEVELS + 3 : -3].min() - 2
    centres = 700 * (10 ** (np.linspace(*2595 * np.log10(1 + np.array([60, 7800]) / 700), film.BANDS + 2) / 2595) - 1)
    assert centres[1 + levels[90].argmax()] == pytest.approx(600, rel=0.15)


def test_a_wav_has_sound_and_no_pictures(tmp_path):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 22_050, 0, "NONE", ""))
        tone = 8000 * np.sin(2 * np.pi * 440 * np.arange(3 * 22_050) / 22_050)
        out.writeframes(tone.astype("<i2").tobytes())
    record = film.decode(path)
    assert len(record["pictures"]) == 0 and len(record["levels"]) == pytest.approx(30, abs=1)
    stimulus = bins.binned(record, [], [], volumes=2, tr=1.5, onset=0)
    assert [*stimulus.bands] == ["sound"]


def test_what_is_no_film_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"nothing" * 1000)
    with pytest.raises(ValueError, match=r"cannot be decoded by FFmpeg.*H\.264"):
        film.decode(path)


def test_a_film_that_is_cut_off_is_read_as_far_as_it_goes_or_refused(short, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(short.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="FFmpeg"):  # an .mp4 has its table at the end
        film.decode(path)


def test_bins_are_means_over_a_tr_from_the_onset():
    record = {
        "pictures": np.repeat(np.arange(40, dtype=np.uint8), 24 * 32 * 3).reshape(40, 24, 32, 3),
        "levels": np.zeros((0, 32), np.float16), "seconds": np.array([10.0, 0.0]),
    }  # fmt: skip
    pixels = bins.binned(record, [], [], volumes=6, tr=1.5, onset=0).bands["pixels"][:, 0]
    # four pictures a second, numbered: 1.5 s are the pictures 0 to 5, 6 to 11 ...
    assert pixels == pytest.approx([2.5, 8.5, 14.5, 20.5, 26.5, 32.5])
    later = bins.binned(record, [], [], volumes=3, tr=1.5, onset=1.5).bands["pixels"][:, 0]
    assert later == pytest.approx([8.5, 14.5, 20.5])
    uneven = bins.binned(record, [], [], volumes=2, tr=0.4, onset=0).bands["pixels"][:, 0]
    assert uneven == pytest.approx([(0 * 0.25 + 1 * 0.15) / 0.4, (1 * 0.1 + 2 * 0.25 + 3 * 0.05) / 0.4], rel=1e-5)
    before = bins.binned(record, [], [], volumes=3, tr=1.5, onset=-3.0).bands["pixels"][:, 0]
    assert before == pytest.approx([0, 0, 2.5])


def test_nothing_is_stretched_to_the_length_of_the_bold():
    record = {
        "pictures": np.zeros((40, 24, 32, 3), np.uint8),
        "levels": np.zeros((0, 32)),
        "seconds": np.array([10.0, 0]),
    }
    assert bins.available(record, 0.0, 1.5) == 6
    assert bins.available(record, 4.0, 1.5) == 4
    assert bins.available(record, 11.0, 1.5) == 0


def test_words_are_counted_in_the_bin_of_their_onset():
    words = [(0.0, "a"), (1.49, "b"), (1.5, "a"), (2.0, "a"), (9.0, "b")]
    counts = bins.binned(None, words, ["a", "b"], volumes=3, tr=1.5, onset=0).bands["words"]
    assert counts.tolist() == [[1, 1], [2, 0], [0, 0]]


def test_a_stimulus_comes_back_from_its_file(tmp_path):
    stimulus = bins.binned(None, [(0.0, "ä")], ["ä"], volumes=3, tr=1.5, onset=2.5)
    assert bins.write(tmp_path / "a", stimulus) and not bins.write(tmp_path / "a", stimulus)
    back = bins.of(bins.decode(tmp_path / "a"))
    assert (back.tr, back.onset, back.vocabulary, len(back)) == (1.5, 2.5, ("ä",), 3)
    (tmp_path / "b").write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match="Run prepare again"):
        bins.decode(tmp_path / "b")


# -- annotations -------------------------------------------------------------------------------------------------------


def words_of(path) -> list[tuple[float, str]]:
    record = annotations.decode(path)
    vocabulary = annotations.vocabulary_of(record)
    return [(round(float(at), 3), vocabulary[word]) for at, word in zip(record["onset"], record["word"], strict=True)]


def test_sherlocks_sheet_is_read_by_its_columns(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Segment", "Start Time (s) ", "End Time (s)", "Scene Details - A Level", "Space", None])
    sheet.append([1, 0, 4, "A man sleeps", "Indoor"])
    sheet.append([2, 4, 6, "He wakes", None])
    sheet.append([3, None, None, "no time", "Indoor"])
    book.save(tmp_path / "a.xlsx")
    assert words_of(tmp_path / "a.xlsx") == [
        (0, "a"), (1, "man"), (2, "sleeps"), (3, "indoor"), (4, "he"), (5, "wakes"),
    ]  # fmt: skip
    assert annotations.decode(tmp_path / "a.xlsx")["skipped"][0] == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "onset\tduration\tword\n1.0\t1.0\tHello you\n"),
        ("a.csv", "start,end,text\n1.0,2.0,Hello you\n"),
        ("b.csv", "start;end;text\n1,0;2,0;Hello you\n"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n<i>Hello</i>\nyou\n\n"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000 align:start\nHello you\n"),
        ("c.csv", "\ufeffStart Time (s),End Time (s),Text\n1,2,Hello you\n"),
        ("d.csv", "Annotations of the film;;\n;;\nonset;end;Text\n1;2;Hello you\n"),
    ],
)
def test_every_format_gives_the_same_words(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert words_of(tmp_path / name) == [(1.0, "hello"), (1.5, "you")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"begin_of_it,text\n1,hello\n", "no row .* column of start times: the first has begin_of_it, text"),
        ("a.csv", b"start,end,text\n5,3,hello\n", "row 2 ends at 3 s, before it begins at 5 s"),
        ("a.csv", b"start,end\n5,6\n", "no column of text"),
        ("a.csv", b"start,text\nx,hello\ny,hello\n", "more than half.*row 2: 'x' is no time: write seconds"),
        ("a.csv", b"start,text\n1,caf\xe9\n", "line 2 is no UTF-8"),
        ("a.srt", b"1\n00:00:05,000 --> 00:00:01,000\nhello\n", "line 2 ends at 1 s"),
        ("a.srt", b"no cue\n", "no word with a time"),
        ("a.xlsx", b"no zip", "Save it again, or as .csv"),
        ("a.docx", b"", "are read"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line_and_the_remedy(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        annotations.decode(tmp_path / name)


@pytest.mark.parametrize(("text", "expected"), [("83.5", 83.5), ("1:23.5", 83.5), ("00:01:23,500", 83.5)])
def test_times_are_read_as_people_write_them(text, expected):
    assert annotations.seconds(text) == expected
    for bad in ("", "-3", "1:2:3:4", "nan", "one"):
        with pytest.raises(ValueError, match="no time"):
            annotations.seconds(bad)


def test_the_domain_is_imported_without_numpy_and_decoders():
    names = "('numpy', 'av', 'nibabel', 'torch')"
    code = f"import sys, training.domains.brain.domain; print([m for m in {names} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_words_are_counted_from_the_onset_of_the_run():
    words = [(1.0, "sea"), (4.0, "sea"), (4.4, "boat"), (9.0, "sea")]
    found = bins.binned(None, words, ("boat", "sea"), volumes=3, tr=1.5, onset=3.0).bands["words"]
    assert found.tolist() == [[1, 1], [0, 0], [0, 0]]
