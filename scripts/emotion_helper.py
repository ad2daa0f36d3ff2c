#!/usr/bin/env python3
"""Shows the emotion vector that the manifests get from an emotion word or from the path of a song, and why.

    scripts/emotion_helper.py grief                      # one word: exit 2, with near misses, if it is not known
    scripts/emotion_helper.py happy/track_grief_001.wav  # a path below the corpus root: neutral without a hint
    scripts/emotion_helper.py --list

What has a slash or a file extension is read as a path, anything else as a word or phrase.
"""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from pathlib import Path, PurePath

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.domains.music import emotion
from training.errors import AthanorError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="WORD|PATH", help="an emotion word, a phrase, or a song's path")
    parser.add_argument("--list", action="store_true", help="print the complete lexicon and exit")
    options = parser.parse_args(arguments)
    if not options.names and not options.list:
        parser.error("name a word or a path, or use --list")
    try:
        if options.list:
            print_lexicon()
        return max([explain(name) for name in options.names], default=0)
    except AthanorError as error:
        print(f"emotion_helper: {error}", file=sys.stderr)
        return error.exit_code


def explain(name: str) -> int:
    """Print what `name` means and why; 2 for an unknown word, else 0."""
    is_path = "/" in name or bool(PurePath(name).suffix)
    found = emotion.label_for(name) if is_path else emotion.match(name)
    if found is None:
        near = emotion.near_misses(name)
        word = len(emotion.split_words(name)) == 1
        print(f"{name}: {'not in the lexicon' if word else 'no hint (a negated word is none)'}.", file=sys.stderr)
        for entry in near:
            print(f"  near: {entry.word:20} {_numbers(entry.vector)}  {_place(entry)}", file=sys.stderr)
        if not near:
            print("  Nothing is spelt like it; --list prints every word.", file=sys.stderr)
        return 2
    print(f"{name}: {_numbers(found.vector)}  {_place(found)}")
    print(f"  why: {found.why}" + ("" if found.hinted else ": no folder and no file name holds a word of the lexicon"))
    return 0


def print_lexicon() -> None:
    entries = emotion.lexicon().words.values()
    for (place, vector), cell in groupby(entries, key=lambda entry: (_place(entry), entry.vector)):
        print(f"{_numbers(vector)}  {place:34} {', '.join(entry.word for entry in cell)}")


def _place(entry: emotion.Entry | emotion.Match) -> str:
    return " > ".join(part for part in (entry.emotion, entry.sub, entry.tier) if part)


def _numbers(vector: emotion.Vector) -> str:
    return "[{:+.2f} {:+.2f} {:.2f}]".format(*vector)


if __name__ == "__main__":
    sys.exit(main())
