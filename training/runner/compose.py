"""Generates the parts of docker-compose.yml and .env.example that follow from the domains' options: `python -m
training.runner.compose` writes them again. A test checks that the files are up to date."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from training.option import Option
from training.registry import domains

BEGIN, END = "# begin: from the domains' options", "# end: from the domains' options"
PROJECT = Path(__file__).resolve().parents[2]


def options() -> Iterator[tuple[str, Option]]:
    """(domain word, option) of every option of the runner that an environment variable can set; each variable once."""
    seen: set[str] = set()
    for word, domain in domains().items():
        for option in domain.options:
            if option.runner and option.environment and option.environment not in seen:
                seen.add(option.environment)
                yield word, option


def variables() -> list[str]:
    """The lines of `environment` in docker-compose.yml."""
    return [f"{option.environment}: ${{{option.environment}:-}}" for _, option in options()]


def mounts() -> list[str]:
    """The lines of `volumes` in docker-compose.yml. If a variable is not set, an empty folder of the project is mounted
    in its place."""
    return [
        f'- {{type: bind, source: "${{{option.environment}:-./wheelhouse}}", target: '
        f'"${{{option.environment}:-/mnt/no-{option.name}}}", read_only: true, bind: {{create_host_path: false}}}}'
        for _, option in options()
        if option.mounted
    ]


def settings() -> list[str]:
    """The lines of .env.example."""
    lines, last = [], ""
    for word, option in options():
        if word != last:
            lines.append(f"# {word}: {domains()[word].sentence}")
            last = word
        lines += [f"# {option.help}", f"#{option.environment}={'/data/...' if option.mounted else ''}"]
    return lines


FILES: dict[str, list[Callable[[], list[str]]]] = {
    "docker-compose.yml": [variables, mounts],
    ".env.example": [settings],
}


def rewritten(text: str, parts: list[Callable[[], list[str]]]) -> str:
    """`text` with the lines between each pair of marks (BEGIN, END) generated again, in the order of `parts`."""
    out, given, inside = [], iter(parts), False
    for line in text.splitlines():
        if line.strip() == END:
            inside = False
        if not inside:
            out.append(line)
        if line.strip() == BEGIN:
            inside, indent = True, line[: len(line) - len(line.lstrip())]
            out += [indent + made for made in next(given)()]
    return "\n".join(out) + "\n"


def main() -> int:
    for name, parts in FILES.items():
        path = PROJECT / name
        path.write_text(rewritten(path.read_text(encoding="utf-8"), parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
