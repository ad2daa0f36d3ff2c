"""All sound of a file is read, or the file is refused: headers with wrong lengths, joined files, truncated files."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.domains.music.audio import SAMPLE_RATE, decode
from training.domains.music.sound import decoding
from training.domains.music.sound.source import contents, mpeg_contents

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

SUBTYPES = {"flac": "PCM_16", "ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}
CHUNKED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF")


def tone(seconds: float, pitch: float = 440, rate: int = SAMPLE_RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def write(path: Path, seconds: float, kind: str, rate: int = SAMPLE_RATE) -> Path:
    """`kind`: a suffix, "xing" for an MP3 that ffmpeg writes, or one of CHUNKED."""
    if kind == "xing":
        source = path.with_name("source.wav")
        soundfile.write(source, tone(seconds, rate=rate), rate)
        command = ["ffmpeg", "-nostdin", "-y", "-v", "error", "-i", source, "-c:a", "libmp3lame", "-f", "mp3", path]
        subprocess.run(command, check=True)
    elif kind in CHUNKED:
        soundfile.write(path, tone(seconds, rate=rate), rate, format=kind, subtype="PCM_16")
    else:
        name = "OGG" if kind == "opus" else kind.upper()
        soundfile.write(path, tone(seconds, rate=rate), rate, format=name, subtype=SUBTYPES[kind])
    return path


def seconds(path: Path) -> float:
    return len(decode(path)) / SAMPLE_RATE


def patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(form, out, at, *values)
    return bytes(out)


def by_ffmpeg(path: Path) -> float:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-map", "0:a:0", "-f", "s16le", "-ac", "1"]
    data = subprocess.run([*command, "-ar", "44100", "-"], capture_output=True, check=True).stdout
    return len(data) / 2 / SAMPLE_RATE


# -- joined files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mp3", "xing", "flac", "ogg", "opus"])
def test_all_parts_of_a_joined_file_are_read(tmp_path, kind):
    rate = 48_000 if kind == "opus" else SAMPLE_RATE
    parts = [write(tmp_path / f"{n}", length, kind, rate).read_bytes() for n, length in enumerate((2.5, 2.5, 1.0))]
    path = tmp_path / "joined.x"
    path.write_bytes(b"".join(parts))
    assert seconds(path) == pytest.approx(6.0, abs=0.2)


def test_a_chained_ogg_whose_rate_changes_is_read(tmp_path):
    first, second = (write(tmp_path / f"{rate}", 2.0, "ogg", rate).read_bytes() for rate in (44_100, 22_050))
    (tmp_path / "a.ogg").write_bytes(first + second)
    assert seconds(tmp_path / "a.ogg") == pytest.approx(4.0, abs=0.1)


def test_joined_mp3s_with_tags_between_them_are_read(tmp_path):
    data = write(tmp_path / "a.mp3", 2.0, "xing").read_bytes()
    tag = b"ID3\x04\x00\x00\x00\x00\x07\x76" + b"\xff\xfb\x90\x64" * 254 + bytes(6)  # its content looks like frames
    (tmp_path / "a.mp3").write_bytes(tag + data + b"TAG" + bytes(125) + tag + data)
    assert seconds(tmp_path / "a.mp3") == pytest.approx(4.0, abs=0.2)


def test_frames_inside_a_tag_are_not_counted(tmp_path):
    """A tag may hold anything, a preview of the song for example."""
    data = write(tmp_path / "a.mp3", 2.0, "xing").read_bytes()
    tag = b"ID3\x04\x00\x00\x00\x00\x40\x00" + data[len(data) // 3 :][:8192]
    (tmp_path / "a.mp3").write_bytes(tag + data + tag + data)
    assert mpeg_contents(tmp_path / "a.mp3").seconds == pytest.approx(4.0, abs=0.2)


@pytest.mark.parametrize("kind", [*CHUNKED, "m4a"])
def test_joined_files_that_no_decoder_reads_to_the_end_are_refused(tmp_path, kind):
    if kind == "m4a":
        source, path = write(tmp_path / "a.wav", 2.0, "WAV"), tmp_path / "a.m4a"
        subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c:a", "aac", path], check=True)
    else:
        path = write(tmp_path / "a.wav", 2.0, kind)
    assert seconds(path) == pytest.approx(2.0, abs=0.1)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(ValueError, match=r"several recordings|never finalised"):
        decode(path)


# -- headers with wrong lengths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [0, 1, 2])
def test_a_flac_of_unknown_or_too_small_length_is_read_to_its_end(tmp_path, declared):
    data = write(tmp_path / "a.flac", 3.3, "flac").read_bytes()
    packed = struct.unpack(">Q", data[18:26])[0] >> 36 << 36
    (tmp_path / "a.flac").write_bytes(patched(data, 18, ">Q", packed | declared * SAMPLE_RATE))
    assert seconds(tmp_path / "a.flac") == pytest.approx(3.3, abs=1e-3)
    (tmp_path / "a.flac").write_bytes(patched(data, 18, ">Q", packed | 5 * SAMPLE_RATE))
    with pytest.raises(ValueError, match=r"breaks off|truncated"):
        decode(tmp_path / "a.flac")


def test_a_flac_of_variable_blocks_is_measured(tmp_path):
    """ffmpeg's encoder numbers its blocks, and can be set to number their samples."""
    path = write(tmp_path / "a.flac", 3.0, "flac")
    for number, options in enumerate((["-frame_size", "1000"], ["-compression_level", "12"], ["-ar", "8000"])):
        out = tmp_path / f"{number}.flac"
        subprocess.run(["ffmpeg", "-v", "error", "-i", path, *options, out], check=True)
        data = out.read_bytes()
        rate = struct.unpack(">Q", data[18:26])[0] >> 44
        out.write_bytes(patched(data, 18, ">Q", struct.unpack(">Q", data[18:26])[0] >> 36 << 36))
        assert contents(out).seconds == pytest.approx(3.0, abs=1 / rate)
        assert seconds(out) == pytest.approx(3.0, abs=0.001)


def test_a_truncated_flac_of_unknown_length_is_refused(tmp_path):
    data = write(tmp_path / "a.flac", 3.0, "flac").read_bytes()
    packed = struct.unpack(">Q", data[18:26])[0] >> 36 << 36
    (tmp_path / "a.flac").write_bytes(patched(data, 18, ">Q", packed)[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match="breaks off"):
        decode(tmp_path / "a.flac")


@pytest.mark.parametrize("count", ["zero", "half", "absent", "no tag"])
def test_an_mp3_with_a_wrong_count_is_read_to_its_end(tmp_path, count):
    data = write(tmp_path / "a.mp3", 4.0, "xing").read_bytes()
    at = max(data.find(b"Xing"), data.find(b"Info"))
    flags, frames = struct.unpack(">2I", data[at + 4 : at + 12])
    data = {
        "zero": patched(data, at + 8, ">I", 0),
        "half": patched(data, at + 8, ">I", frames // 2),
        "absent": patched(data, at + 4, ">I", flags & ~1),
        "no tag": patched(data, at, ">I", 0),
    }[count]
    (tmp_path / "a.mp3").write_bytes(data)
    assert seconds(tmp_path / "a.mp3") == pytest.approx(4.0, abs=0.1)
    assert mpeg_contents(tmp_path / "a.mp3").seconds == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("riff, data", [(0, 0), (36, 0), (2**32 - 1, 2**32 - 1), (2**31 - 1, 2**31 - 1), (36, None)])
def test_a_wav_that_was_never_finalised_is_read_to_its_end(tmp_path, riff, data):
    path = write(tmp_path / "a.wav", 3.0, "WAV")
    content = patched(path.read_bytes(), 4, "<I", riff)
    path.write_bytes(content if data is None else patched(content, 40, "<I", data))
    assert seconds(path) == 3.0


@pytest.mark.parametrize(
    "kind, at, form, value",
    [
        ("WAV", 40, "<I", 88_200), ("RF64", 28, "<Q", 88_200), ("RF64", 28, "<Q", 0), ("AU", 8, ">I", 0),
        ("AU", 8, ">I", 88_200), ("AIFF", 42, ">I", 8), ("AIFF", 42, ">I", 88_208), ("W64", 96, "<Q", 24),
        ("W64", 96, "<Q", 88_224), ("CAF", None, ">q", 88_204),
    ],
)  # fmt: skip
def test_an_outdated_size_is_refused(tmp_path, kind, at, form, value):
    """A recorder that was stopped before it updated the header: what follows the declared end may be sound, or not."""
    path = write(tmp_path / "a.wav", 3.0, kind)
    content = path.read_bytes()
    name = {"WAV": b"data", "RF64": b"ds64", "AU": b".snd", "AIFF": b"SSND", "W64": b"data\xf3", "CAF": b"data"}[kind]
    start = content.index(name)
    at = start + {"WAV": 4, "RF64": 16, "AU": 8, "AIFF": 4, "W64": 16, "CAF": 4}[kind]
    path.write_bytes(patched(content, at, form, value))
    with pytest.raises(ValueError, match="was never finalised: its header declares"):
        decode(path)


@pytest.mark.parametrize("kind, name, form, value", [("AU", b".snd", ">I", 2**32 - 1), ("CAF", b"data", ">q", -1)])
def test_a_size_that_means_up_to_the_end_is_read_so(tmp_path, kind, name, form, value):
    path = write(tmp_path / "a.wav", 3.0, kind)
    content = path.read_bytes()
    path.write_bytes(patched(content, content.index(name) + (8 if kind == "AU" else 4), form, value))
    assert seconds(path) == 3.0


# -- truncated files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CHUNKED)
@pytest.mark.parametrize("share", [0.4, 0.95])
def test_every_truncated_format_of_samples_is_refused(tmp_path, kind, share):
    path = write(tmp_path / "a.wav", 6.0, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="is truncated: its header declares"):
        decode(path)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_an_ogg_that_ends_inside_a_page_is_refused(tmp_path, kind):
    path = write(tmp_path / "a.ogg", 6.0, kind, 48_000)
    data = path.read_bytes()
    for share in (0.5, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match="is truncated: its last page is incomplete"):
            decode(path)


# -- ordinary files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*CHUNKED, "flac", "ogg", "xing"])
def test_ordinary_files_are_decoded_as_before(tmp_path, monkeypatch, kind):
    """By soundfile, to the same bits."""
    path = write(tmp_path / "a.wav", 3.0, kind)
    monkeypatch.setattr(decoding, "by_ffmpeg", lambda *_: pytest.fail("decoded by ffmpeg"))
    assert np.array_equal(decode(path), soundfile.read(path, dtype="float32")[0])


def test_chunks_and_tags_after_the_sound_are_no_fault(tmp_path):
    path = write(tmp_path / "a.wav", 2.0, "WAV")
    data = path.read_bytes()
    info = b"LIST" + struct.pack("<I", 5000) + b"INFO" + bytes(4996)
    for more in (
        info,
        info + b"id3 " + struct.pack("<I", 3) + b"abc\0",
        b"TAG" + b"x" * 5000,
        bytes(9000),
        b"\x07" * 9,
    ):
        path.write_bytes(data + more)
        assert seconds(path) == 2.0
    flac = write(tmp_path / "a.flac", 2.0, "flac")
    plain = decode(flac)
    flac.write_bytes(flac.read_bytes() + b"TAG" + b"\xff\xf8x" * 40 + bytes(5))
    assert np.array_equal(decode(flac), plain)
    mp3 = write(tmp_path / "a.mp3", 2.0, "xing")
    plain = decode(mp3)
    mp3.write_bytes(b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + mp3.read_bytes() + b"TAG" + bytes(125))
    assert np.array_equal(decode(mp3), plain)


ENCODINGS = {
    "mono.mp3": ["-ac", "1", "-b:a", "64k"], "vbr.mp3": ["-q:a", "2"], "low.mp3": ["-ar", "16000", "-b:a", "32k"],
    "eight.mp3": ["-ar", "8000", "-b:a", "16k"], "two.mp3": ["-c:a", "mp2", "-f", "mp2"],
    "no_header.mp3": ["-write_xing", "0"], "a.ogg": ["-c:a", "libvorbis"], "opus.ogg": ["-c:a", "libopus"],
    "flac.ogg": ["-c:a", "flac"], "small.flac": ["-compression_level", "12", "-frame_size", "576"], "a.m4a": [],
    "alac.m4a": ["-c:a", "alac"], "a.aac": [], "a.caf": ["-c:a", "pcm_s24le"], "a.aiff": [], "a.au": [], "a.w64": [],
    "rf64.wav": ["-rf64", "always"], "float.wav": ["-c:a", "pcm_f32le"], "adpcm.wav": ["-c:a", "adpcm_ms"],
    "law.wav": ["-c:a", "pcm_alaw", "-ar", "8000"], "bits24.wav": ["-c:a", "pcm_s24le", "-ar", "96000"],
}  # fmt: skip


def test_lengths_equal_those_that_ffmpeg_decodes_for_every_encoding(tmp_path):
    """Up to the delay of encoders, which only one of the decoders may leave out."""
    source = tmp_path / "source.wav"
    soundfile.write(source, np.stack([tone(4.0), tone(4.0, 660)], axis=1), SAMPLE_RATE)
    for name, options in ENCODINGS.items():
        path = tmp_path / name
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-i", source, *options, path], check=True)
        assert seconds(path) == pytest.approx(by_ffmpeg(path), abs=0.06), name


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3", "flac of unknown length"])
def test_without_ffmpeg_a_file_that_needs_it_is_refused_with_the_remedy(tmp_path, monkeypatch, kind):
    path = write(tmp_path / "a.x", 2.0, "xing" if kind == "mp3" else kind.split()[0])
    data = path.read_bytes()
    unknown = kind.endswith("length")
    path.write_bytes(data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:] if unknown else 2 * data)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"without ffmpeg .*apt-get install -y ffmpeg"):
        decode(path)
