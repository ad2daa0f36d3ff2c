"""The torch that this Python already has: which version, and links to it for an environment.

    host_torch.py version                   prints the version; exit 1 where there is none
    host_torch.py link FOLDER LOCK...       replaces FOLDER by one with links to torch and to what torch
                                            requires; prints the linked distributions' names, one a line

What a lock pins is left out: the environment gets it in the pinned version. Nothing else of the host is linked, so a
numpy that the host has does not replace the environment's. Run by scripts/setup_env.sh with the host's interpreter.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib import metadata
from pathlib import Path, PurePosixPath


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(locks: list[str]) -> set[str]:
    """The distributions that the locks pin, torch left out."""
    lines = [line for lock in locks for line in Path(lock).read_text(encoding="utf-8").splitlines()]
    return {normal(line.partition("==")[0].strip()) for line in lines if "==" in line and line[0] != "#"} - {"torch"}


def closure(name: str, left_out: set[str]) -> list[metadata.Distribution]:
    """The distribution and all that it requires, as far as this Python has them: a requirement whose marker does not
    hold here was never installed."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(name, "")]
    while todo:
        name, extra = todo.pop()
        name = normal(name)
        if name in left_out or (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            distribution = found.setdefault(name, metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue
        for line in distribution.requires or ():
            needs = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?", line)
            of_extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", line)
            if needs and (of_extra[1] if of_extra else "") in ("", extra):
                todo += [(needs[1], word.strip()) for word in ["", *(needs[2] or "").split(",")]]
    return list(found.values())


def recorded(distribution: metadata.Distribution) -> dict[PurePosixPath, Path]:
    """The distribution's files below its site folder: name there -> place. Programs (../../bin/...) are left out."""
    files = distribution.files
    if files is None:
        raise SystemExit(f"{distribution.name}: there is no list of its files (RECORD)")
    inside = (PurePosixPath(file) for file in files if file.parts[0] not in ("..", "/"))
    return {name: Path(str(distribution.locate_file(name))) for name in inside if "__pycache__" not in name.parts}


def make_links(folder: Path, distributions: list[metadata.Distribution]) -> None:
    """A link to every file, or in their place one to a folder that holds only files of these distributions."""
    files: dict[PurePosixPath, Path] = {}
    for distribution in distributions:
        files |= recorded(distribution)
    places = set(files.values())
    complete: dict[Path, bool] = {}

    def ours(place: Path) -> bool:
        if place not in complete:
            inside = (path for path in place.rglob("*") if "__pycache__" not in path.parts and not path.is_dir())
            complete[place] = all(path in places for path in inside)
        return complete[place]

    for name, place in files.items():
        for up in reversed(range(len(name.parts))):
            source = place.parents[up - 1] if up else place
            link = folder.joinpath(*name.parts[: len(name.parts) - up])
            if link.is_symlink() or not source.exists():
                break
            if up == 0 or ours(source):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source.absolute())
                break


def main(verb: str, *arguments: str) -> None:
    if verb == "version":
        try:
            print(metadata.version("torch"))
        except metadata.PackageNotFoundError:
            raise SystemExit(1) from None
        return
    folder, *locks = arguments
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
    distributions = closure("torch", pinned(locks))
    make_links(Path(folder), distributions)
    print(*sorted(normal(distribution.name) for distribution in distributions), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
