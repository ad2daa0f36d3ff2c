"""From folders of captures and of guitar recordings to a manifest per capture."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.data.encode import Quarantined, encode_files, preload, write_quarantine
from training.data.files import printable, scan
from training.data.identity import is_marked_synthetic
from training.data.store import Record
from training.data.writing import QUARANTINE, file_name, write_manifests
from training.domain import Job
from training.domains.amp import guitar
from training.domains.amp.behaviour import Behaviour, behaviour_of
from training.domains.amp.captures import Capture, item_name, parse_capture
from training.domains.amp.families import AMP
from training.domains.amp.files import capture_files
from training.domains.amp.formats.checking import CAPTURE, SUFFIXES
from training.domains.amp.plucked import plucked_folder
from training.domains.amp.rows import CAPTURE_PATH
from training.errors import DataError, UsageError
from training.export.layout import safe_item
from training.workspace import exclusive

CLIP = 1.0  # seconds
KIND = "captures"
_RATES = (8_000, 384_000)


def prepare(job: Job) -> None:
    """Read captures and guitar recordings; write manifests, quarantine and summary.

    A capture that is refused is left out. Raises DataError if none is left, or no guitar; UsageError.
    """
    if job.path("captures") is None:
        raise UsageError("--captures is needed: the folder of the .nam and .json files.")
    with exclusive(job.workspace.manifests, "preparing data"):
        _Preparation(job).run()


@dataclass
class _Preparation:
    job: Job
    quarantine: list[Quarantined] = field(default_factory=list)

    def run(self) -> None:
        job, folder = self.job, self.job.path("captures")
        preload(CAPTURE, guitar.DI)
        captures = self._captures(folder)
        di, clips = self._clips()
        rows: dict[str, list[dict[str, Any]]] = {}
        for name, (path, capture, _) in captures.items():
            for split, of_split in clips.items():
                rows[file_name(f"{AMP.manifest}/{name}", split)] = [
                    clip | {"id": f"{name} {clip['id']}", "capture": name, CAPTURE_PATH: str(path),
                            "rate": capture.sample_rate}
                    for clip in of_split
                ]  # fmt: skip
        summary = {
            "synthetic": is_marked_synthetic(folder, *(Path(place).parent for place in di)),
            "items": [*captures],
            "captures": {name: _about(*found) for name, found in captures.items()},
            "di": di,
            "clips": {split: len(of_split) for split, of_split in clips.items()},
            "quarantined": [asdict(item) for item in self.quarantine],
            "digest": self._digest(captures, di),
            "manifests": sorted(rows),
        }
        changed = write_manifests(job.workspace.manifests, rows, summary, self.quarantine)
        self._report(summary, changed)

    # captures

    def _captures(self, folder: Path) -> dict[str, tuple[Path, Capture, Behaviour]]:
        """Item -> file, capture, and how it behaves; without those that are refused, and without doubles."""
        job = self.job
        try:
            found, refused = capture_files(folder)
        except OSError as error:
            raise DataError(f"{printable(folder)} cannot be read: {error.strerror}") from None
        self.quarantine += [Quarantined(one.path, KIND, one.reason) for one in refused]
        only = job.options.get("only")
        paths = [Path(one.place) for one in found if only is None or _matches(Path(one.place), folder, only)]
        if found and not paths:
            raise UsageError(f"--only {only}: none of the {len(found)} files in {printable(folder)} has such a name.")
        records, bad = encode_files(paths, CAPTURE, job.workspace.cache, job.workers, job.say)
        self.quarantine += bad.values()
        rate = _rate(job)
        good: dict[str, tuple[Path, Capture, Behaviour]] = {}
        seen: dict[str, Path] = {}
        for path in paths:
            if path in records:
                self._take(path, records[path], rate, folder, seen, good)
        if not good:
            self._nothing(folder, len(paths))
        return good

    def _take(
        self, path: Path, record: Record, rate: int | None, folder: Path, seen: dict[str, Path],
        good: dict[str, tuple[Path, Capture, Behaviour]],
    ) -> None:  # fmt: skip
        capture = parse_capture(record["content"].tobytes(), path.stem, rate)
        if capture.same in seen:
            self._refuse(path, f"the same weights as {seen[capture.same].name}, which is used")
            return
        seen[capture.same] = path
        try:
            behaviour = behaviour_of(capture)
        except ValueError as error:
            self._refuse(path, str(error))
            return
        good[_free(item_name(path, folder), good)] = path, capture, behaviour

    def _refuse(self, path: Path, reason: str) -> None:
        self.quarantine.append(Quarantined(printable(path), KIND, reason))

    def _nothing(self, folder: Path, files: int) -> None:
        write_quarantine(self.job.workspace.manifests / QUARANTINE, self.quarantine)
        lines = "".join(f"\n  {item.path}: {item.reason}" for item in self.quarantine)
        of = f"None of the {files} files" if files else "No file"
        raise DataError(f"{of} of {printable(folder)} can be used as a capture ({', '.join(SUFFIXES)}).{lines}")

    # guitar

    def _clips(self) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
        """(file -> facts, split -> clips as parts of rows)."""
        job, place = self.job, self.job.path("di")
        if place is None:
            place = plucked_folder(job)
        paths = [place] if place.is_file() else [Path(one.place) for one in scan(place, guitar.SUFFIXES)[0]]
        records, bad = encode_files(paths, guitar.DI, job.workspace.cache, job.workers, job.say)
        self.quarantine += bad.values()
        if not records:
            lines = "".join(f"\n  {item.path}: {item.reason}" for item in bad.values())
            raise DataError(f"No guitar in {printable(place)} can be used ({', '.join(guitar.SUFFIXES)}).{lines}")
        facts: dict[str, dict[str, Any]] = {}
        clips: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
        for path, record in records.items():
            seconds = len(record["sound"]) / int(record["rate"])
            facts[str(path)] = {"seconds": round(seconds, 3), "rate": int(record["rate"]),
                                "channels": int(record["channels"]), "key": record.key.hex()}  # fmt: skip
            for split, of_split in _split(path, seconds, float(job.options["val_split"])).items():
                clips[split] += of_split
        return facts, clips

    # summary

    def _digest(self, captures: Mapping[str, tuple[Path, Capture, Behaviour]], di: Mapping[str, Any]) -> str:
        content = hashlib.sha256()
        for name, (_, capture, _) in captures.items():
            content.update(f"{name}\0{capture.digest}\0{capture.sample_rate}\n".encode())
        for about in di.values():
            content.update(about["key"].encode())
        return content.hexdigest()

    def _report(self, summary: Mapping[str, Any], changed: bool) -> None:
        say, job = self.job.say, self.job
        for name, about in summary["captures"].items():
            kind = f"{about['architecture']} {about['version']}".strip()
            say(f"  {name}: {kind}, {about['parameters']:,} parameters, {about['rate']:,} Hz")
            for note in about["notes"]:
                say(f"    {note}")
        for path, about in summary["di"].items():
            more = [f"{about['channels']} channels: the left one is used"] if about["channels"] > 1 else []
            rates = {of["rate"] for of in summary["captures"].values()}
            more += [f"{about['rate']:,} Hz: resampled"] if rates != {about["rate"]} else []
            say(f"  {Path(path).name}: {about['seconds']:.1f} s of guitar" + "".join(f"; {one}" for one in more))
        for item in summary["quarantined"]:
            say(f"  left out: {Path(item['path']).name}: {item['reason']}")
        state = "written to" if changed else "unchanged in"
        say(f"  {len(summary['captures'])} captures, {len(summary['quarantined'])} quarantined; manifests "
            f"{state} {job.workspace.relative(job.workspace.manifests)}")  # fmt: skip


def _matches(path: Path, folder: Path, pattern: str) -> bool:
    """Whether --only names the file: by its name, with or without ending, or by its path below the folder."""
    names = (path.name, path.stem, path.relative_to(folder).as_posix())
    return any(fnmatch.fnmatch(name.lower(), pattern.lower()) for name in names)


def _rate(job: Job) -> int | None:
    rate = job.options.get("sample_rate")
    if rate is not None and not _RATES[0] <= float(rate) <= _RATES[1]:
        raise UsageError(f"--sample-rate is in Hz, between {_RATES[0]:,} and {_RATES[1]:,}; it is {rate}.")
    return None if rate is None else int(rate)


def _free(name: str, used: Mapping[str, Any]) -> str:
    """The name, with a number behind it if another capture has it or it cannot name a run."""
    taken = {one.lower() for one in used}
    names = [name, *(f"{name}_{number}" for number in range(2, len(used) + 3))]
    return next(one for one in names if one.lower() not in taken and safe_item(one))


def _split(path: Path, seconds: float, held_out: float) -> dict[str, list[dict[str, Any]]]:
    """The clips of a recording: its end is held out, at least one clip of it, and the last clip before it is unused."""
    count = int(seconds / CLIP)
    held = max(1, round(count * held_out))
    clips = [
        {"id": f"{path.stem} {number}", guitar.DI_PATH: str(path), "begin": number * CLIP, "end": (number + 1) * CLIP,
         "group": hashlib.sha256(f"{path}\0{number}".encode()).hexdigest()[:16]}
        for number in range(count)
    ]  # fmt: skip
    gap = 1 if count - held > 1 else 0
    return {"train": clips[: count - held - gap], "val": clips[count - held :]}


def _about(path: Path, capture: Capture, behaviour: Behaviour) -> dict[str, Any]:
    """What summary and report show of a capture."""
    parameters: Sequence[int] = [sum(one.numel() for one in network.parameters()) for network in capture.networks]
    return {
        "file": path.name, "format": capture.format, "architecture": capture.architecture, "version": capture.version,
        "rate": capture.sample_rate, "parameters": sum(parameters), "networks": len(parameters),
        "sha256": capture.digest, "notes": [*capture.notes, *behaviour.notes],
    }  # fmt: skip
