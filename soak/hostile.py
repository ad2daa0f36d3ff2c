"""Media files that are damaged, or made to attack their reader. Every kind must be refused with a reason.

Only damage that can be detected is made: a WAV or MP3 with a flipped bit in its samples, or a CBR MP3 cut at a frame,
is a valid file with another sound.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import socket
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from soak.hostile_midi import (
    big_midi,
    endless_track,
    far_notes,
    metre_storm,
    no_notes,
    odd_header,
    song,
    tempo_storm,
    tiny_bars,
    zero_tempo,
)

RATE = 44100
AUDIO, MIDI = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac"), (".mid", ".midi")
HAS_FFMPEG = shutil.which("ffmpeg") is not None


# -- valid files, to be damaged ------------------------------------------------------------------------------------


def wave(seed: int, seconds: float = 2.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A few tones over a little noise: float32 [n, channels]."""
    numbers = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * t + p) for f, p in numbers.uniform((80, 0), (3000, 6), (4, 2)))
    return (0.1 * tones[:, None] + 0.01 * numbers.standard_normal((len(t), channels))).astype(np.float32)


def wav(sound: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, sound, rate, format="WAV", subtype=subtype)
    return out.getvalue()


@cache
def valid_file(suffix: str, seed: int = 0, seconds: float = 2.5) -> bytes:
    """A valid file with this extension."""
    sound = wave(seed, seconds)
    if suffix == ".wav":
        return wav(sound)
    if suffix in (".m4a", ".aac", ".fast.m4a", ".xing.mp3"):
        options = {
            ".m4a": ["-c:a", "aac", "-f", "mp4"], ".aac": ["-c:a", "aac", "-f", "adts"],
            ".fast.m4a": ["-c:a", "aac", "-movflags", "+faststart", "-f", "mp4"],
            ".xing.mp3": ["-c:a", "libmp3lame", "-f", "mp3"],
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:  # mp4 needs a file that it can seek in
            out = Path(folder) / "out"
            command = ["ffmpeg", "-v", "error", "-f", "wav", "-i", "pipe:0", *options[suffix], str(out)]
            subprocess.run(command, input=wav(sound), check=True)
            return out.read_bytes()
    out = io.BytesIO()
    kinds = {".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", "MPEG_LAYER_III")}
    soundfile.write(out, sound, RATE, format=kinds[suffix][0], subtype=kinds[suffix][1])
    return out.getvalue()


# -- hostile files -------------------------------------------------------------------------------------------------

Maker = Callable[[random.Random, Path], None]


def content(make: Callable[[random.Random, str], bytes]) -> Maker:
    return lambda numbers, path: (path.write_bytes(make(numbers, path.suffix)), None)[1]


def cut(suffix: str) -> Maker:
    """A valid file without its end: at least 5 % is missing, so that it can be detected, and half a second or more of
    sound is left."""
    return content(lambda n, _: (d := valid_file(suffix, n.randrange(4), 6.0))[: int(len(d) * n.uniform(0.35, 0.95))])


def flipped(data: bytes, numbers: random.Random, low: float, high: float, bits: int) -> bytes:
    out = bytearray(data)
    for _ in range(bits):
        out[numbers.randrange(int(low * len(out)), int(high * len(out)))] ^= 1 << numbers.randrange(8)
    return bytes(out)


def samples(numbers: random.Random, value: float) -> bytes:
    sound = wave(numbers.randrange(99))
    sound[numbers.randrange(len(sound))] = value
    return wav(sound, subtype="FLOAT")


def wav_with_false_header(numbers: random.Random, **changes: int) -> bytes:
    """A WAV whose header does not match its samples."""
    data = bytearray(wav(wave(numbers.randrange(99))))
    places = {"channels": (22, "<H"), "rate": (24, "<I"), "align": (32, "<H"), "bits": (34, "<H"), "format": (20, "<H"),
              "size": (40, "<I")}  # fmt: skip
    for name, value in changes.items():
        struct.pack_into(places[name][1], data, places[name][0], value)
    return bytes(data)


def crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1) ^ 0x07 if crc & 0x80 else crc << 1
            crc &= 0xFF
    return crc


def crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc


def flac_bomb(numbers: random.Random, hours: float, length_stated: bool) -> bytes:
    """FLAC of constant blocks of 65,535 samples, 15 bytes each: hours of sound in a few hundred kB. The level changes
    from block to block, so it is not silent. `length_stated`: whether its header has the number of samples."""
    blocks = int(hours * 3600 * RATE / 65535)
    total = blocks * 65535 if length_stated else 0
    info = struct.pack(">HH", 65535, 65535) + bytes(6)
    info += struct.pack(">Q", RATE << 44 | 0 << 41 | 15 << 36 | total) + bytes(16)
    out = bytearray(b"fLaC" + struct.pack(">I", 0x80 << 24 | len(info)) + info)
    for number in range(blocks):
        coded = chr(number).encode("utf-8") if not 0xD800 <= number < 0xE000 else chr(number + 0x2000).encode()
        frame = b"\xff\xf8\x79\x08" + coded + struct.pack(">H", 65534)
        frame += bytes([crc8(frame)]) + b"\x00" + struct.pack(">h", numbers.choice((-9000, 9000)) + number % 100)
        out += frame + struct.pack(">H", crc16(frame))
    return bytes(out)


def atom(kind: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(body) if size is None else size) + kind + body


def m4a_with_false_tables(numbers: random.Random) -> bytes:
    """Tables that claim 2^32 - 1 entries, or 50,000 nested atoms."""
    start = atom(b"ftyp", b"M4A \0\0\0\0M4A mp42isom")
    if numbers.random() < 0.5:
        inner = b""
        for _ in range(50_000):
            inner = struct.pack(">I4s", min(len(inner) + 8, 2**32 - 1), b"moov")
            start += inner
        return start
    data = bytearray(valid_file(".fast.m4a"))
    for name in (b"stsz", b"stco", b"stts", b"stsc"):
        at = data.find(name)
        count = at + (12 if name == b"stsz" else 8)
        struct.pack_into(">I", data, count, 2**32 - 1 if numbers.random() < 0.8 else 2**31)
    return bytes(data)


def playlist(numbers: random.Random, _: str) -> bytes:
    """A playlist that would make ffmpeg open another file, or connect to a host."""
    return numbers.choice((
        b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"#EXTM3U\n#EXTINF:10.0,\nhttp://127.0.0.1:9/x.mp3\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\nfile /dev/zero\n",
        b"[playlist]\nFile1=/etc/passwd\nNumberOfEntries=1\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        b"<SMIL><BODY><AUDIO SRC='file:///dev/zero'/></BODY></SMIL>",
    ))  # fmt: skip


def foreign(numbers: random.Random, _: str) -> bytes:
    """A file of another format under this extension; the archives and the PNG are decompression bombs."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(20_000_000))
    pixels = zlib.compress(bytes(3_000_000))
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0) + bytes(4)
    return numbers.choice((
        zipped.getvalue(), gzip.compress(bytes(20_000_000)), png + struct.pack(">I", len(pixels)) + b"IDAT" + pixels,
        b"\x7fELF\x02\x01\x01" + numbers.randbytes(4000), b"%PDF-1.7\n" + numbers.randbytes(4000),
        b"<html><body>404 Not Found</body></html>", b"Kein Ton, nur Text. \n" * 500,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    ))  # fmt: skip


def silent_video(_: random.Random, path: Path) -> None:
    """An mp4 without sound."""
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=s=32x32:d=2", "-an", "-c:v", "mpeg4", "-f", "mp4"]
    subprocess.run([*command, f"file:{path}"], check=True)


def sparse(numbers: random.Random, path: Path) -> None:
    """A sparse file of 256 GB to 4 TB, which takes no space on the disk: reading it would take an hour."""
    start = song(1) if path.suffix in MIDI else wav_with_false_header(numbers, size=0xFFFFFF00)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(1 << numbers.choice((38, 40, 42)))


def special(numbers: random.Random, path: Path) -> None:
    """Not a regular file: a pipe, a socket, a device, or a link that leads to none."""
    kind = numbers.choice(("fifo", "socket", "folder", "dangling", "circle", "device", "terminal"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        before = Path.cwd()
        os.chdir(path.parent)  # a socket's path has at most 107 bytes
        try:
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(path.name)
        finally:
            os.chdir(before)
    elif kind == "folder":
        # A real folder of this name would be searched for files, and not refused; a link to itself must be refused.
        path.symlink_to(path.name)
    else:
        target = {"dangling": "nowhere", "circle": path.name, "device": "/dev/zero", "terminal": "/dev/tty"}[kind]
        path.symlink_to(target)


def tagged_mp3(numbers: random.Random, _: str) -> bytes:
    """An ID3 tag that claims to have 256 MB, with nothing after it."""
    frame = b"APIC" + struct.pack(">IH", 2**31 - 1, 0x00C0) + numbers.randbytes(500)
    return b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f" + frame


def chunked_wav(numbers: random.Random, _: str) -> bytes:
    """100,000 chunks before any sound, or chunks whose sizes overflow 32 bits."""
    start = wav(wave(1))[:36]
    if numbers.random() < 0.5:
        return start + (b"LIST" + struct.pack("<I", 4) + b"INFO") * 100_000
    return start + b"LIST" + struct.pack("<I", numbers.choice((2**32 - 1, 2**31, 2**32 - 36))) + b"INFO" * 50


#: kind -> (extensions, maker). The trial of index i has the kind i modulo their number; the first five are those that
#: the mutants of row 11, which have five trials, must fail on.
KINDS: dict[str, tuple[tuple[str, ...], Maker]] = {
    "1.4 million tempo events": (MIDI, content(tempo_storm)),
    "FLAC bomb": ((".flac",), content(lambda n, s: flac_bomb(n, n.uniform(3, 12), True))),
    "FLAC bomb without its length": ((".flac",), content(lambda n, s: flac_bomb(n, n.uniform(3, 12), False))),
    "cut WAV": ((".wav",), cut(".wav")),
    "cut M4A, index at its start": ((".m4a",), cut(".fast.m4a")),
    "empty": (AUDIO + MIDI, content(lambda n, s: b"")),
    "random bytes": (AUDIO, content(lambda n, s: n.randbytes(n.choice((1, 40, 5000, 200_000))))),
    "random bytes, MIDI": (MIDI, content(lambda n, s: n.randbytes(n.choice((1, 40, 5000, 200_000))))),
    "another format": (AUDIO, content(foreign)),
    "another format, MIDI": (MIDI, content(foreign)),
    "cut FLAC": ((".flac",), cut(".flac")),
    "cut M4A, index at its end": ((".m4a",), cut(".m4a")),
    "cut MP3 with a count": ((".mp3",), cut(".xing.mp3")),
    "header only": (AUDIO[:5], content(lambda n, s: valid_file(s)[: n.randrange(20, 60)])),
    "flipped FLAC": ((".flac",), content(lambda n, s: flipped(valid_file(".flac", n.randrange(4)), n, 0.1, 1.0, 20))),
    "flipped OGG": ((".ogg",), content(lambda n, s: flipped(valid_file(".ogg", n.randrange(4)), n, 0.1, 0.7, 20))),
    "scrambled head": (AUDIO[:5], content(lambda n, s: n.randbytes(400) + valid_file(s)[400:1500])),
    "NaN sample": ((".wav",), content(lambda n, s: samples(n, float("nan")))),
    "infinite sample": ((".wav",), content(lambda n, s: samples(n, n.choice((float("inf"), float("-inf")))))),
    "sample of 1e30": ((".wav",), content(lambda n, s: samples(n, 1e30))),
    "too short": ((".wav",), content(lambda n, s: wav(wave(n.randrange(9))[: n.choice((0, 1, 2, 1000, 60_000))]))),
    "192 kHz, 8 channels, 1 sample": ((".wav",), content(lambda n, s: wav(wave(1, 1e-5, 192_000, 8), 192_000))),
    "silent": ((".wav",), content(lambda n, s: wav(np.zeros((n.randrange(70_000, 200_000), 1)) + 0.0))),
    "false channels": ((".wav",), content(lambda n, s: wav_with_false_header(n, channels=n.choice((0, 65535, 4096))))),
    "false rate": (
        (".wav",),
        content(lambda n, s: wav_with_false_header(n, rate=n.choice((0, 1, 100, 10**6, 2**31, 2**32 - 1)))),
    ),
    "false bits": ((".wav",), content(lambda n, s: wav_with_false_header(n, bits=n.choice((0, 255, 65535))))),
    "false format": (
        (".wav",),
        content(lambda n, s: wav_with_false_header(n, format=n.choice((0, 0x55, 0xFFFF, 0x1234)))),
    ),
    # Smaller than 0x7FFFF000: from that size on, a WAV was streamed by a writer that could not seek back to fill in
    # the size, and is valid.
    "false size": ((".wav",), content(lambda n, s: wav_with_false_header(n, size=n.choice((2**30, 10**9, 10**7))))),
    "endless chunks": ((".wav",), content(chunked_wav)),
    "tables of 2^32": ((".m4a",), content(lambda n, s: m4a_with_false_tables(n))),
    "tag of 256 MB": ((".mp3",), content(tagged_mp3)),
    "playlist": ((".m4a", ".aac", ".mp3", ".ogg"), content(playlist)),
    "not a regular file": (AUDIO + MIDI, special),
    "sparse file of terabytes": ((".wav", ".mid", ".flac"), sparse),
    "10^6 time signatures": (MIDI, content(metre_storm)),
    "far notes": (MIDI, content(far_notes)),
    "tiny bars": (MIDI, content(tiny_bars)),
    "no notes": (MIDI, content(no_notes)),
    "odd header": (MIDI, content(odd_header)),
    "endless track": (MIDI, content(endless_track)),
    "tempo or metre of zero": (MIDI, content(zero_tempo)),
    "cut MIDI": (MIDI, content(lambda n, s: (d := song(n.randrange(9)))[: n.randrange(15, len(d) - 30)])),
    "65 MB of MIDI": (MIDI, content(big_midi)),
}
if HAS_FFMPEG:
    KINDS["no sound stream"] = ((".m4a",), silent_video)
else:  # without ffmpeg they can be neither made nor read
    for name in ("cut M4A, index at its end", "cut M4A, index at its start", "cut MP3 with a count", "tables of 2^32"):
        del KINDS[name]


def make(index: int, numbers: random.Random, audio: Path, midi: Path) -> tuple[str, Path]:
    """Make hostile file number `index` under one of the two roots; returns its kind and its path."""
    kind = list(KINDS)[index % len(KINDS)]
    suffixes, maker = KINDS[kind]
    suffix = numbers.choice(suffixes)
    path = (midi if suffix in MIDI else audio) / f"bad{index:03d}{suffix}"
    maker(numbers, path)
    return kind, path
