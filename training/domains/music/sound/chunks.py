"""WAV, RF64, W64, AIFF, CAF, AU and MP4: the sizes that they declare, compared with the bytes that the file holds."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from training.domains.music.sound.source import Contents, Source

#: A WAV that was written to a pipe has no size in its header: its size is in one of these ranges.
_STREAMED = (range(0x7FFF_F000, 0x8000_0100), range(0xFFFF_F000, 0x1_0000_0000))
_MOST = 200_000  # chunks that are looked at
#: Missing or surplus bytes that are no loss: padding, or a writer that counted wrongly.
_SLACK = 2048
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")
_W64_RIFF, _W64_DATA = b"riff\x2e\x91\xcf\x11", b"data\xf3\xac\xd3\x11"
_W64_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # the last bytes of the name of every chunk in a W64 file
_UNFINISHED = "was never finalised: its header declares {declared:,} bytes of sound, and {there:,} bytes follow it"


class Form(NamedTuple):
    """How a family of formats lays out its chunks."""

    first: int  # offset of the first chunk
    name: int  # bytes of a chunk's name
    size: struct.Struct  # of a chunk's size
    counted: int  # bytes of the chunk's header that its size includes
    align: int
    sound: bytes  # how the name of the chunk with the sound begins

    @property
    def header(self) -> int:
        return self.name + self.size.size


_LITTLE, _BIG = struct.Struct("<I"), struct.Struct(">I")
_FORMS = {
    b"RIFF": Form(12, 4, _LITTLE, 0, 2, b"data"),
    b"RIFX": Form(12, 4, _BIG, 0, 2, b"data"),
    b"RF64": Form(12, 4, _LITTLE, 0, 2, b"data"),
    b"BW64": Form(12, 4, _LITTLE, 0, 2, b"data"),
    b"riff": Form(40, 16, struct.Struct("<Q"), 24, 8, _W64_DATA),
    b"FORM": Form(12, 4, _BIG, 0, 2, b"SSND"),
    b"caff": Form(8, 4, struct.Struct(">q"), 0, 1, b"data"),
}
#: Names of chunks that begin another recording.
_SECOND = (*_FORMS, b"data", b"SSND")


def scan(source: Source, magic: bytes) -> Contents:
    """See `contents`. `magic`: the first bytes of the file."""
    if magic[4:8] in (b"ftyp", b"moov", b"mdat"):
        return _mp4(source)
    if magic[:4] in (b".snd", b"dns."):
        return _au(source, ">" if magic[:1] == b"." else "<")
    form = _FORMS.get(magic[:4])
    if form is None or (form.name == 16 and magic[:8] != _W64_RIFF):
        return Contents()
    sizes: dict[bytes, int] = {}
    for name, start, size in _chunks(source, form, form.first):
        if name == b"ds64" and size >= 16:
            sizes[b"data"] = struct.unpack("<Q", source.read(start + 8, 8).ljust(8, b"\0"))[0]
        if name.startswith(form.sound):
            if magic[:4] in (b"RF64", b"BW64") and size == 0xFFFF_FFFF:
                size = sizes.get(b"data", 0)
            return _sound_chunk(source, form, magic[:4], start, size)
    return Contents()


def _chunks(source: Source, form: Form, at: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset of the content, declared size) of the chunks from offset `at` on."""
    for _ in range(_MOST):
        head = source.read(at, form.header)
        if len(head) < form.header:
            return
        size = form.size.unpack_from(head, form.name)[0] - form.counted
        yield head[: form.name], at + form.header, size
        if size < 0:
            return
        at += form.header + size
        at += -at % form.align


def _sound_chunk(source: Source, form: Form, magic: bytes, start: int, size: int) -> Contents:
    there = source.size - start
    if (magic == b"caff" and size < 0) or (magic in (b"RIFF", b"RIFX") and any(size in part for part in _STREAMED)):
        return Contents()  # it has no size: all that follows is sound
    if size <= (8 if magic == b"FORM" else 0):
        if there <= _SLACK or _ends_in_chunks(source, form, start + max(size, 0)):
            return Contents()
        if magic in (b"RIFF", b"RIFX"):  # the convention of programs that do not return to the header
            return Contents(complete=False, why=_UNFINISHED.format(declared=0, there=there))
        raise ValueError(_UNFINISHED.format(declared=0, there=there))
    _refuse_truncated(size, there)
    _refuse_surplus(source, form, start + size, size)
    return Contents()


def _refuse_truncated(declared: int, there: int) -> None:
    if declared - there > min(0.01 * declared, _SLACK):
        raise ValueError(f"is truncated: its header declares {declared:,} bytes of sound; the file holds {there:,}")


def _refuse_surplus(source: Source, form: Form, end: int, size: int) -> None:
    """Refuse a file in which something other than chunks and tags follows the sound: the header is out of date, or
    another file was appended."""
    if source.size - end <= form.header or _ends_in_chunks(source, form, end):
        return
    surplus = source.size - end
    if surplus > _SLACK and any(source.read(end, min(surplus, 1 << 16))):
        raise ValueError(_UNFINISHED.format(declared=size, there=surplus))


def _ends_in_chunks(source: Source, form: Form, end: int) -> bool:
    """Whether only chunks and tags are between offset `end` and the end of the file. Raises ValueError if one of the
    chunks begins another recording."""
    at = end + -end % form.align
    for name, start, size in _chunks(source, form, at):
        if name.startswith(_SECOND):
            raise ValueError(f"holds several recordings (the second begins at byte {start - form.header:,}); split it")
        if name.startswith(_TAGS):
            return True
        named = name[4:] == _W64_GUID if form.name == 16 else all(0x20 <= byte < 0x7F for byte in name)
        if not named or size < 0 or start + size > source.size + _SLACK:
            return False
        at = start + size
    return source.size - at <= form.header


def _au(source: Source, order: str) -> Contents:
    head = source.read(0, 12)
    if len(head) < 12:
        return Contents()
    start, size = struct.unpack(f"{order}2I", head[4:])
    there = source.size - start
    if size == 0xFFFF_FFFF:
        return Contents()
    if size == 0 and there > _SLACK:
        raise ValueError(_UNFINISHED.format(declared=0, there=there))
    _refuse_truncated(size, there)
    if there - size > _SLACK and not source.read(start + size, 8).startswith(_TAGS):
        raise ValueError(_UNFINISHED.format(declared=size, there=there - size))
    return Contents()


def _mp4(source: Source) -> Contents:
    at, indices = 0, 0
    for _ in range(_MOST):
        head = source.read(at, 16)
        if len(head) < 8:
            break
        size = struct.unpack(">I", head[:4])[0]
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
        indices += head[4:8] == b"moov"
        if indices > 1:
            raise ValueError(f"holds several recordings (the second has its index at byte {at:,}); split it")
        if size < 8:  # 0: to the end of the file
            break
        at += size
    return Contents(strict=True)
