"""Scanning untrusted folders, digests that are never stale, and atomic writes."""

import os
import socket
import sqlite3
import time
import unicodedata
from pathlib import Path

import pytest

from tests.data.users import mode, public_folder, without_rights
from training.data import digests, files
from training.data.digests import Digest, Ledger
from training.data.files import append_line, printable, scan, write_atomic
from training.errors import HostError

WAV = (".wav", ".mp3")


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(root: Path) -> list[str]:
    return [found.relative for found in scan(root, WAV)[0]]


def reasons(root: Path) -> dict[str, str]:
    return {item.path.rpartition("/")[2]: item.reason for item in scan(root, WAV)[1]}


def test_extensions_of_any_case_are_found(tmp_path):
    for name in ("a.wav", "b.WAV", "c.Mp3", "deep/er/d.WaV", "e.txt", "wav", "f.wav.bak"):
        put(tmp_path / name)
    assert names(tmp_path) == ["a.wav", "b.WAV", "c.Mp3", "deep/er/d.WaV"]
    found = scan(tmp_path, WAV)[0][-1]
    assert (found.key, found.stem, found.path) == ("deep/er/d", "d", tmp_path / "deep/er/d.WaV")


def test_files_of_kinds_that_are_not_read_are_listed_and_count_as_none(tmp_path):
    for name in ("a.wav", "b.WMA", "deep/c.wma", ".d.wma", "e.txt"):
        put(tmp_path / name)
    found, refused = scan(tmp_path, WAV, {".wma": "convert it"})
    assert [file.relative for file in found] == ["a.wav"]
    listed = [(item.path, item.reason, item.files) for item in refused]
    assert listed == [(str(tmp_path / name), "convert it", 0) for name in ("b.WMA", "deep/c.wma")]


def test_unusual_names_are_listed_unchanged(tmp_path):
    """Space, quote, newline, $(..), leading dash, 250 characters, several dots."""
    odd = ["a b.wav", "it's.wav", 'say "hi".wav', "new\nline.wav", "$(touch x).wav", "-rf.wav", "v1.2.mix.wav"]
    odd += [";&|.wav", "n" * 246 + ".wav"]
    for name in odd:
        put(tmp_path / name)
    assert names(tmp_path) == sorted(odd)
    assert {f.relative: f.key for f in scan(tmp_path, WAV)[0]}["v1.2.mix.wav"] == "v1.2.mix"


def test_names_that_are_not_utf8_are_refused_with_an_escaped_name(tmp_path):
    put(tmp_path / "good.wav")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xffd.wav")).write_bytes(b"x")
    found, refused = scan(tmp_path, WAV)
    assert [f.relative for f in found] == ["good.wav"]
    assert refused[0].path.endswith("b\\xffd.wav")
    assert "UTF-8" in refused[0].reason


def test_a_relative_name_is_the_same_for_every_unicode_form_on_the_disk(tmp_path):
    """macOS stores NFD, Linux what it is given; the path keeps the form of the disk."""
    put(tmp_path / unicodedata.normalize("NFD", "été.wav"))
    found = scan(tmp_path, WAV)[0][0]
    assert found.relative == unicodedata.normalize("NFC", "été.wav")
    assert found.path.is_file()
    put(tmp_path / unicodedata.normalize("NFC", "été.wav"))
    assert len(names(tmp_path)) == 1
    assert "Unicode" in next(iter(reasons(tmp_path).values()))


def test_fifos_sockets_and_links_to_them_are_refused_and_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to("pipe.wav")
    (tmp_path / "device.wav").symlink_to("/dev/zero")
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "self.wav").symlink_to("self.wav")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tmp_path)  # the path of a socket is limited to about 100 bytes
    listener.bind("s.wav")
    os.chdir(here)
    put(tmp_path / "empty.wav", b"")
    put(tmp_path / "._mac.wav")
    put(tmp_path / "good.wav")
    begin = time.monotonic()
    assert names(tmp_path) == ["good.wav"]
    why = reasons(tmp_path)
    listener.close()
    assert time.monotonic() - begin < 30
    assert "FIFO" in why["pipe.wav"]
    assert "FIFO" in why["link.wav"]
    assert "device" in why["device.wav"]
    assert "socket" in why["s.wav"]
    assert "No such file" in why["gone.wav"]
    assert "levels of symbolic links" in why["self.wav"]
    assert "empty" in why["empty.wav"]
    assert "hidden" in why["._mac.wav"]


def test_cycles_of_links_end_and_no_folder_is_read_twice(tmp_path):
    """Ten folders that all link to each other have millions of paths."""
    for n in range(10):
        put(tmp_path / f"d{n}" / "x.wav")
    for n in range(10):
        for m in range(10):
            (tmp_path / f"d{n}" / f"to{m}").symlink_to(tmp_path / f"d{m}")
        (tmp_path / f"d{n}" / "up").symlink_to("..")
    assert names(tmp_path) == [f"d{n}/x.wav" for n in range(10)]


def test_links_to_folders_outside_the_root_are_followed(tmp_path):
    put(tmp_path / "disk" / "happy" / "x.wav")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine").symlink_to(tmp_path / "disk")
    (tmp_path / "alias").symlink_to(tmp_path / "root")
    assert names(tmp_path / "root") == ["mine/happy/x.wav"]
    assert names(tmp_path / "alias") == ["mine/happy/x.wav"]


def test_a_folder_with_the_extension_of_a_file_is_entered(tmp_path):
    put(tmp_path / "album.wav" / "x.wav")
    assert names(tmp_path) == ["album.wav/x.wav"]


def test_a_sparse_file_of_terabytes_is_refused_unread(tmp_path, monkeypatch):
    """Reading it would take hours."""
    huge = put(tmp_path / "huge.wav")
    os.truncate(huge, 1 << 40)
    assert "1,099.5 GB large" in reasons(tmp_path)["huge.wav"]
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail("read"))
    assert "1,099.5 GB large" in Ledger(tmp_path / "ledger.sqlite").digests([huge])[huge]


def test_a_folder_whose_path_is_too_long_is_refused_with_the_number_of_its_files(tmp_path):
    """A path may have 4,096 bytes; a folder can be made below that by steps."""
    put(tmp_path / "good.wav")
    before, name = Path.cwd(), "n" * 200
    os.chdir(tmp_path)
    try:
        for level in range(25):
            Path(name).mkdir()
            os.chdir(name)
            Path(f"{level}.wav").write_bytes(b"x")
    finally:
        os.chdir(before)
    found, refused = scan(tmp_path, WAV)
    counted = sum(item.files for item in refused)
    assert len(found) + counted == 26
    assert all("File name too long" in item.reason for item in refused)
    folder = next(item for item in refused if item.folder is not None)
    assert folder.files > 1 and f"({folder.files} files below it)" in folder.reason


def test_folders_below_one_that_cannot_be_entered_are_refused_by_name():
    with public_folder() as place:
        put(place / "happy" / "album" / "x.wav")
        put(place / "happy" / "y.wav")
        put(place / "happy" / "notes.txt")
        with mode(place / "happy", 0o644), without_rights():
            found, refused = scan(place, WAV)
        assert not found
        assert [(item.path, item.folder, item.files) for item in refused] == [
            (str(place / "happy" / "album"), "happy/album", 1),
            (str(place / "happy" / "y.wav"), None, 1),
        ]


def test_folders_of_the_file_system_that_only_root_may_enter_are_no_loss():
    with public_folder() as place:
        put(place / "x.wav")
        (place / "lost+found").mkdir()
        with mode(place / "lost+found", 0o000), without_rights():
            assert [(item.folder, item.files) for item in scan(place, WAV)[1]] == [(None, 0)]


def test_a_root_that_can_be_listed_and_not_entered_is_an_error():
    with public_folder() as place:
        put(place / "sub" / "x.wav")
        with mode(place / "sub", 0o644), without_rights(), pytest.raises(PermissionError):
            scan(place / "sub", WAV)


def test_a_link_that_may_have_led_to_a_folder_is_listed(tmp_path):
    put(tmp_path / "good.wav")
    (tmp_path / "disk2").symlink_to("/nowhere/unmounted")
    (tmp_path / "notes.txt").symlink_to("/nowhere/notes.txt")
    assert [(item.folder, item.files) for item in scan(tmp_path, WAV)[1]] == [("disk2", 0)]
    assert "link cannot be followed" in reasons(tmp_path)["disk2"]


def test_a_missing_root_is_an_error_not_an_empty_folder(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        scan(tmp_path / "nowhere", WAV)


def test_control_characters_in_a_printed_path_are_escaped():
    assert printable("a\x1b[31m\nb\x7f é") == "a\\x1b[31m\\nb\\x7f é"


# -- digests -------------------------------------------------------------------------------------------------------


@pytest.fixture
def settled(monkeypatch):
    """Files are settled at once, so that their digests are cached."""
    monkeypatch.setattr(digests, "SETTLED", -3600)


def digest(ledger: Ledger, path: Path) -> str:
    value = ledger.digests([path])[path]
    assert isinstance(value, Digest)
    return value.sha256


def test_an_edit_that_keeps_size_and_mtime_is_noticed(tmp_path, settled):
    path, ledger = put(tmp_path / "x.wav", b"before"), Ledger(tmp_path / "ledger")
    first = digest(ledger, path)
    about = path.stat()
    path.write_bytes(b"after!")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_mtime_ns == about.st_mtime_ns
    assert digest(Ledger(tmp_path / "ledger"), path) != first


def test_a_file_replaced_by_another_with_equal_times_is_noticed(tmp_path, settled):
    one, two = put(tmp_path / "one", b"aaaa"), put(tmp_path / "two", b"bbbb")
    ledger = Ledger(tmp_path / "ledger")
    first = digest(ledger, one)
    about = one.stat()
    os.utime(two, ns=(about.st_atime_ns, about.st_mtime_ns))
    two.replace(one)
    assert digest(ledger, one) != first


def test_known_files_are_not_read_again(tmp_path, settled, monkeypatch):
    path, ledger = put(tmp_path / "x.wav"), Ledger(tmp_path / "ledger")
    first = digest(ledger, path)
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail("read again"))
    assert digest(Ledger(tmp_path / "ledger"), path) == first


def test_the_digest_of_a_file_written_just_now_is_not_cached(tmp_path, monkeypatch):
    """Two writes within one tick of the file system's clock leave the same signature."""
    path, ledger = put(tmp_path / "x.wav"), Ledger(tmp_path / "ledger")
    digest(ledger, path)
    read = []
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path) or "0" * 64)
    digest(ledger, path)
    assert read == [str(path)]


def test_a_file_that_changes_while_it_is_read_has_no_digest(tmp_path, monkeypatch):
    path, ledger = put(tmp_path / "x.wav"), Ledger(tmp_path / "ledger")

    def grow(path):
        with Path(path).open("ab") as stream:
            stream.write(b"more")
        return "0" * 64

    monkeypatch.setattr(files, "sha256", grow)
    assert "keeps changing" in ledger.digests([path])[path]


def test_a_fifo_has_no_digest_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    gone = tmp_path / "gone"
    out = Ledger(tmp_path / "ledger").digests([tmp_path / "pipe", gone])
    assert "cannot be read" in out[tmp_path / "pipe"]
    assert "cannot be reached" in out[gone]


def test_a_damaged_ledger_is_created_again(tmp_path):
    (tmp_path / "ledger").write_bytes(b"this is no database" * 100)
    path = put(tmp_path / "x")
    assert len(digest(Ledger(tmp_path / "ledger"), path)) == 64
    with sqlite3.connect(tmp_path / "ledger") as db:
        assert db.execute("SELECT count(*) FROM too_slow").fetchone() == (0,)


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_file(tmp_path):
    path = put(tmp_path / "x", b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(HostError, match="No space left"):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_that_a_full_disk_cut_short_is_reported_and_does_not_merge_with_the_next(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    append_line(path, "first")
    write, left = os.write, [3]

    def short(handle, data):
        if not left[0]:
            raise OSError(28, "No space left on device")
        count = write(handle, data[: left[0]])
        left[0] -= count
        return count

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left"):
        append_line(path, "second")
    monkeypatch.undo()
    append_line(path, "third")
    assert path.read_text() == "first\nsec\nthird\n"


def test_equal_bytes_are_not_written_again(tmp_path):
    path = tmp_path / "deep" / "x"
    assert write_atomic(path, b"one")
    before = path.stat()
    assert not write_atomic(path, b"one")
    assert path.stat().st_ino == before.st_ino
    assert write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
