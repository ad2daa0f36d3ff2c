"""The language of names, comments, messages and docs is plain technical English: invented terms and idioms that a
newcomer would have to learn are refused. docs/glossary.md holds the terms that the project does use."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from training.workspace import PROJECT

#: Refused word -> what to write instead.
REFUSED = {
    r"told|said": "reported, logged, printed, stated",
    r"asked for": "requested, required",
    r"anew": "again, from the start",
    r"whole(?! numbers?\b)": "complete, intact, entire",
    r"(by|of) (itself|themselves)|of its own": "alone, separate, own",
    r"foretells?|foretold": "predict",
    r"rivals?": "trained baseline, reference implementation",
    r"retreats?": "rollback",
    r"troubles?": "fault, problem, divergence",
    r"lacks?": "shortage, missing, out of memory",
    r"stillborn|bury|buried": "failed to start; reap",
    r"couriers?|shelf": "process, replica",
    r"gives? up|gave up|given up|giving up": "stop, abandon, evict",
    r"loader process(es)?": "data loader worker",
    r"\d?M weights": "M parameters",
    r"go(es|ing)? on|went on|gone on": "continue",
    r"furnace|goodbye|stillness": "the literal term",
    r"nobody": "no one; or name who",
}
PATTERNS = {re.compile(rf"(?<![a-z])({words})(?![a-z])", re.I): instead for words, instead in REFUSED.items()}
#: Lines that may hold such a word: (path, text of the line, why).
ALLOWED = (
    ("training/engine/loop/progress.py", '"retreats"', "the key of `rollbacks` in checkpoints of older versions"),
)
PLACES = ("training", "scripts", "hosts", "notebooks", "clouds", "soak", "benchmarks", "tests", "docs", ".ci",
          "README.md", "Makefile", "train_cuda.sh", "Dockerfile.cuda", "docker-compose.yml")  # fmt: skip
SUFFIXES = {"", ".py", ".md", ".j2", ".css", ".html", ".js", ".cpp", ".hpp", ".swift", ".yaml", ".yml", ".sh", ".cuda",
            ".toml"}  # fmt: skip
THIS = Path(__file__).relative_to(PROJECT).as_posix()


def refused_in(text: str) -> list[tuple[int, str, str]]:
    """(line number, word, what to write instead). Names in snake and camel case are taken apart first."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"([a-z])([A-Z])", r"\1 \2", line).replace("_", " ")
        found += [(number, hit[0], instead) for pattern, instead in PATTERNS.items() for hit in pattern.finditer(words)]
    return found


def allowed_removed(name: str) -> str:
    """The text of a file without the texts that ALLOWED permits in it."""
    text = (PROJECT / name).read_text(encoding="utf-8", errors="replace")
    for where, permitted, _ in ALLOWED:
        text = text.replace(permitted, "") if where == name else text
    return text


def project_files() -> list[str]:
    """Tracked files, or all where the project is no git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z", *PLACES], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        names = listed.stdout.split("\0")
    else:
        roots = [PROJECT / place for place in PLACES]
        paths = [path for root in roots for path in (root.rglob("*") if root.is_dir() else [root])]
        names = [path.relative_to(PROJECT).as_posix() for path in paths if "__pycache__" not in path.parts]
    return sorted(name for name in names if name and Path(name).suffix in SUFFIXES and (PROJECT / name).is_file())


@pytest.mark.parametrize("place", PLACES)
def test_names_comments_messages_and_docs_use_plain_words(place):
    hits = [
        f"{name}:{number}: `{word}` -> {instead}"
        for name in project_files()
        if (name == place or name.startswith(f"{place}/")) and name != THIS
        for number, word, instead in refused_in(allowed_removed(name))
    ]
    assert not hits, f"{len(hits)} refused words:\n" + "\n".join(hits)


def test_what_is_allowed_is_there():
    """An entry whose text is gone would permit a later one."""
    for where, permitted, why in ALLOWED:
        assert permitted in (PROJECT / where).read_text(encoding="utf-8"), where
        assert why


def test_refused_words_are_found_in_names_and_sentences():
    for line in ("cloud_told = 1", "def saidSo():", "# the whole file", "asked for: 3", "RIVALS=1", "it goes on"):
        assert refused_in(line), line
    for line in ("untold", "whole numbers", "unsaid", "outgoing only", "arrivals", "blackish"):
        assert not refused_in(line), line
