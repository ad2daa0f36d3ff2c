"""Train, evaluate, and add a row to a table: one command per ablation.

    python benchmarks/music/learning.py spectocloud --corpus chorales --set loss.lifeline=0.5 --note "lifeline loss"

The corpus is the demo's, or one that benchmarks/music/real_music.py makes (music21 and fluidsynth are needed): Bach's
chorales, or chorales and tunes performed by bands and soloists. It is prepared once below --work and shared by all
runs. Each run has its own folder there, named by a hash of its settings: the same command again continues a run that
was stopped, and does not repeat a finished training. A row has the settings, seconds of training and of evaluation, the
verdict, and the family's figures with intervals of 95 %.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
#: Corpora of benchmarks/music/real_music.py, how many pieces of each, and the share that is held out.
REAL = {"chorales": (300, 0.2), "performed": (640, 0.1)}
COLUMNS = {
    "spectocloud": ("sounding_pos_loss", "swap_rise", "below_emotion_only", "sounding_pitch_r", "sounding_z_r",
                    "sounding_size_r"),
    "midi_generator": ("perplexity", "val_loss", "emotion_named", "shift_tempo", "shift_density", "shift_velocity",
                       "shift_pitch", "shift_majorness", "copied_share"),
}  # fmt: skip
BASELINE = {"perplexity": "kneser_ney_5gram", "val_loss": "plain_transformer", "sounding_pos_loss": "emotion_only",
          "emotion_named": "by_chance"}  # fmt: skip


def command(*arguments: object) -> None:
    """Run a verb of the project and show its output. If it fails, exit with its exit code."""
    line = [sys.executable, "-m", "training", *map(str, arguments)]
    print(f"$ {shlex.join(line[1:])}", flush=True)
    done = subprocess.run(line, cwd=PROJECT)
    if done.returncode:
        sys.exit(done.returncode)


def prepared(corpus: str, count: int | None, work: Path) -> Path:
    """The workspace of a corpus, which is prepared if it is new; with `count` pieces, unless it is the demo's."""
    usual, held_out = REAL.get(corpus, (None, None))
    count = usual and (count or usual)
    root = work / (f"{corpus}-{count}" if count else corpus)
    if not (root / "data/manifests/summary.json").exists():
        roots: list[object] = []
        if count:
            music, maker = root / "music", PROJECT / "benchmarks/music/real_music.py"
            made = subprocess.run([sys.executable, maker, music, "--kind", corpus, "--count", str(count)], cwd=PROJECT)
            if made.returncode:
                sys.exit(made.returncode)
            roots = ["--audio-root", music / "audio", "--midi-root", music / "midi", "--val-split", held_out]
        command("prepare", "--out", root, *roots)
    return root


def run_folder(work: Path, corpus: Path, family: str, preset: str, changes: Sequence[str]) -> Path:
    settings_hash = hashlib.sha256(json.dumps([preset, *changes]).encode()).hexdigest()[:8]
    return work / "runs" / f"{corpus.name}-{family}-{preset}-{settings_hash}"


def settings(corpus: Path, family: str) -> list[str]:
    """Settings that make a run read the manifests and stores of a given corpus."""
    name = {"spectocloud": "spectocloud", "midi_generator": "midi"}[family]
    manifests = corpus / "data/manifests"
    return [
        f"data.train_manifest={manifests / f'{name}_train.jsonl'}",
        f"data.val_manifest={manifests / f'{name}_val.jsonl'}",
        f"data.cache_dir={corpus / 'cache'}",
    ]


def cell(metric: Mapping[str, Any] | None, baseline: str | None = None) -> str:
    """A figure with its interval, and that of a baseline if one is named."""
    if metric is None:
        return ""
    own, other = metric["model"], metric["baselines"].get(baseline or "")
    ends = f" ({own['low']:.3g} to {own['high']:.3g})" if own["low"] != own["high"] else ""
    return f"{own['value']:.3g}{ends}" + (f" / {other['value']:.3g}" if other else "")


def row(family: str, judged: Mapping[str, Any], corpus: str, preset: str, changes: Sequence[str], note: str,
        seconds: tuple[float, float]) -> str:  # fmt: skip
    figures = [cell(judged["metrics"].get(name), BASELINE.get(name)) for name in COLUMNS[family]]
    varied = ", ".join(changes) or "as it is"
    times = [f"{value:.0f} s" for value in seconds]
    rows = judged.get("rows") or judged["songs"]  # "songs" in files of older versions
    songs = f"{corpus}, {rows['train']} + {rows['held_out']}"
    cells = [note or preset, songs, f"{preset}: {varied}", *times, judged["verdict"]["word"], *figures]
    return "| " + " | ".join(cells) + " |"


def heading(family: str) -> str:
    names = [name + (f" / {BASELINE[name]}" if name in BASELINE else "") for name in COLUMNS[family]]
    titles = ["what", "corpus, songs to train on + held out", "settings", "training", "evaluation", "verdict", *names]
    return f"## {family}\n\n| " + " | ".join(titles) + " |\n|" + "---|" * len(titles)


def append(table: Path, family: str, line: str) -> None:
    """Put `line` at the end of the family's table; a missing file or table is created."""
    text = table.read_text(encoding="utf-8") if table.exists() else ""
    if f"## {family}\n" not in text:
        text = (text.rstrip() + "\n\n" if text else "") + heading(family) + "\n"
    before, head, after = text.partition(f"## {family}\n")
    body, rest, other = after.partition("\n\n## ")
    partial = table.with_name(f".{table.name}.partial")
    partial.write_text(before + head + body.rstrip("\n") + f"\n{line}\n" + (rest + other)[1:], encoding="utf-8")
    partial.replace(table)


def seconds_of_training(out: Path, family: str) -> float:
    """Seconds of all sessions of the run, from its last checkpoint."""
    import torch

    best = torch.load(out / "checkpoints" / family / "last.pt", weights_only=True, map_location="cpu")
    return float(best["progress"]["seconds"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train a preset on a corpus, evaluate it, add a row to a table.")
    parser.add_argument("family", choices=sorted(COLUMNS))
    parser.add_argument("--corpus", choices=("demo", *REAL), default="demo")
    usual = ", ".join(f"{name} {count}" for name, (count, _) in REAL.items())
    parser.add_argument("--count", type=int, help=f"pieces (default: {usual})")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--note", default="", help="what the row is about")
    parser.add_argument("--baseline-steps", default="0.2", metavar="SHARE", help="see `evaluate --help`")
    parser.add_argument("--work", type=Path, default=Path("learning"), metavar="DIR", help="corpora and runs go there")
    parser.add_argument("--table", type=Path, default=None, metavar="FILE", help="default: results.md in --work")
    options = parser.parse_args(arguments)
    os.environ.setdefault("PYTHONPATH", str(PROJECT))
    work = options.work.absolute()
    corpus = prepared(options.corpus, options.count, work)
    out = run_folder(work, corpus, options.family, options.preset, options.set)
    sets = [f"--set={one}" for one in (*options.set, *settings(corpus, options.family))]
    command("train", options.family, "--preset", options.preset, "--out", out, *sets)
    before = time.monotonic()
    command("evaluate", options.family, "--out", out, "--baseline-steps", options.baseline_steps)
    evaluating = time.monotonic() - before
    judged = json.loads((out / "exports/metrics.json").read_text(encoding="utf-8"))["families"][options.family]
    seconds = (seconds_of_training(out, options.family), evaluating)
    line = row(options.family, judged, options.corpus, options.preset, options.set, options.note, seconds)
    append(options.table or work / "results.md", options.family, line)
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
