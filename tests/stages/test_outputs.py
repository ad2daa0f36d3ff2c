"""An --out that cannot be written is refused by every verb before it starts: exit 6, naming the folder and a remedy."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.engine.disks import Mounted
from training import cli
from training.errors import HostError
from training.registry import domains
from training.runner.options import parse
from training.workspace import exclusive

FAMILY = ["midi_generator", "--device", "cpu"]
VERBS = {
    "doctor": ["--device", "cpu"], "prepare": [], "train": FAMILY, "estimate": FAMILY, "evaluate": FAMILY,
    "export": [], "report": [], "restore": ["--persist", "{drive}"], "persist": ["--persist", "{drive}"],
    "budget": ["--done"], "watch": ["--once"],
}  # fmt: skip
READS = ("persist", "watch")  # these only read the folder


class Places:
    """Folders in which nothing can be written, for root neither."""

    def __init__(self, folder: Path):
        self.folder, self.locked, self.mounted = folder, None, None

    def make(self, kind: str) -> tuple[Path, str]:
        """(--out, what the error must say of it)"""
        place = self.folder / "place"
        if kind == "read-only disk":
            self.mounted = Mounted(place, 1 << 20)
            self.mounted.read_only()
            return place / "out", f"cannot write in {place} (Read-only file system)"
        if kind == "folder that is locked":
            place.mkdir()
            done = subprocess.run(["chattr", "+i", place], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"this host cannot lock a folder against root: {done.stderr.strip()}")
            self.locked = place
            return place / "out", f"cannot write in {place} (Operation not permitted)"
        if kind == "link to nowhere":
            place.symlink_to("/nowhere/at/all")
            return place, f"{place} is a link to /nowhere/at/all, which is not there"
        place.write_text("a file")
        return (place if kind == "file" else place / "a" / "b"), f"{place} is a file, not a folder"

    def close(self) -> None:
        if self.locked:
            subprocess.run(["chattr", "-i", self.locked], check=True)
        if self.mounted:
            self.mounted.close()


@pytest.fixture
def places(tmp_path):
    made = Places(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["read-only disk", "folder that is locked", "link to nowhere", "file", "under a file"])
def test_every_verb_refuses_a_folder_that_cannot_be_written_and_names_it(places, kind, tmp_path, capsys):
    out, wanted = places.make(kind)
    for verb, words in VERBS.items():
        if verb in READS and "file" not in kind and "link" not in kind:
            continue
        given = [word.format(drive=tmp_path / "drive") for word in words]
        code = cli.main([verb, *given, "--out", str(out)])
        output = capsys.readouterr()
        assert code == 6, (verb, output.err)
        if verb not in ("budget", "doctor") or kind in ("link to nowhere", "file", "under a file"):
            assert wanted in output.err, (verb, output.err)
        assert str(tmp_path / "place") in output.err, verb
        assert "--out" in output.out + output.err and "Traceback" not in output.err, verb
        assert "not recorded" not in output.err, "one error, and no second one about the budget"


def test_the_folder_of_output_dir_is_checked_too(places, tmp_path, capsys):
    out, wanted = places.make("file")
    (tmp_path / "out" / "exports").parent.mkdir()
    assert cli.main(["export", "--out", str(tmp_path / "out"), "--output-dir", str(out)]) == 6
    assert wanted in capsys.readouterr().err


def test_a_folder_that_cannot_be_locked_names_what_is_wrong_with_it(places):
    out, wanted = places.make("read-only disk")
    with pytest.raises(HostError) as caught, exclusive(out, "a test"):
        pass
    assert wanted in str(caught.value) and caught.value.exit_code == 6


def test_a_lock_on_a_full_disk_is_held_all_the_same(tmp_path):
    disk = Mounted(tmp_path / "disk", 1 << 16)
    try:
        (disk.folder / "out").mkdir()
        disk.fill(left=0)
        with exclusive(disk.folder / "out", "a test"):
            child = os.fork()
            if child == 0:
                try:
                    with exclusive(disk.folder / "out", "another"):
                        os._exit(0)
                except HostError:
                    os._exit(6)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    finally:
        disk.close()


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_an_os_error_that_would_repeat_is_reported_without_a_traceback(number, monkeypatch, tmp_path, capsys):
    """Wherever it comes from: the supervisor starts a crash again, and a traceback hides the file."""

    def fails(_options):
        raise OSError(number, os.strerror(number), str(tmp_path / "some.file"))

    monkeypatch.setitem(cli.VERBS, "report", fails)
    assert cli.main(["report", "--out", str(tmp_path)]) == 6
    output = capsys.readouterr().err
    assert f"{tmp_path / 'some.file'}: {os.strerror(number)}" in output and "--out DIR" in output


def test_other_os_errors_are_raised_as_crashes(monkeypatch, tmp_path):
    """A fault of the program, or one that may pass: its traceback is shown, and the supervisor tries again."""

    def fails(_options):
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    monkeypatch.setitem(cli.VERBS, "report", fails)
    with pytest.raises(FileNotFoundError):
        cli.main(["report", "--out", str(tmp_path)])


# -- data ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stranger():
    """This process is somebody without rights; a folder that anybody may write to."""
    if os.geteuid() != 0:
        pytest.skip("takes root to be another user")
    import training.domains.music.prepare  # root's own folders hold modules that are imported late
    import training.stages.prepare  # noqa: F401

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "out").mkdir()
        (folder / "out").chmod(0o777)
        (folder / "closed" / "inner").mkdir(parents=True)
        (folder / "closed").chmod(0o700)
        os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(0)


def test_data_that_cannot_be_read_is_refused(stranger, capsys):
    words = ["--audio-root", str(stranger / "closed"), "--midi-root", str(stranger / "closed")]
    assert cli.main(["prepare", *words, "--out", str(stranger / "out")]) == 6
    output = capsys.readouterr().err
    assert f"{stranger / 'closed'} cannot be read by uid 65534: Permission denied" in output and "chmod" in output


def test_data_that_cannot_be_reached_is_refused_by_the_plan(stranger):
    with pytest.raises(HostError, match=r"closed/inner' cannot be reached: uid 65534 .* chmod"):
        parse(["--audio-root", str(stranger / "closed" / "inner")], domains())


def test_a_link_to_a_missing_folder_is_named_as_such(tmp_path):
    (tmp_path / "songs").symlink_to("/nowhere")
    with pytest.raises(Exception, match="a link to something that is not there"):
        parse(["--audio-root", str(tmp_path / "songs")], domains())
