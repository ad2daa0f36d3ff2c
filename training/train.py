"""A complete job from one configuration file: `python -m training.train --config FILE [options of ./train_cuda.sh]`.

The file is one of Hugging Face's Trainer, such as training/configs/mistral_lora_config.yaml, or one of settings. Its
`training.output_dir` becomes --persist: outputs are written to this disk, and verified copies of them go there, so that
a drive that is lost does not end the training. `--domain WORD` names the domain (default: sql).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
DOMAIN = "sql"  # whose configurations have the form of Hugging Face's Trainer


def main(arguments: list[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--domain", default=DOMAIN, metavar="WORD", help=f"default: {DOMAIN}")
    options, more = parser.parse_known_args(arguments)
    config = options.config if options.config.exists() else PROJECT / options.config
    if not config.is_file():
        print(f"error: --config {options.config} is not a file.", file=sys.stderr)
        return 2
    words = [options.domain, "--config", str(config.resolve()), *more]
    if not any(word.partition("=")[0] == "--persist" for word in more):
        place = output_folder(config, options.domain)
        if place:
            print(f"training.output_dir: {place} is used as --persist.", flush=True)
            words += ["--persist", place]
    os.execv(PROJECT / "train_cuda.sh", [str(PROJECT / "train_cuda.sh"), *words])


def output_folder(config: Path, domain: str) -> str:
    """`training.output_dir` of the file, which is read with the environment's YAML; empty if it has none."""
    setup = subprocess.run([PROJECT / "scripts/setup_env.sh", domain], stdout=subprocess.PIPE, text=True, check=False)
    if setup.returncode:
        raise SystemExit(setup.returncode)
    code = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))"
    words = [setup.stdout.strip(), "-P", "-c", code, str(config)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"error: {config} is no YAML: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        raise SystemExit(2)
    content: Any = json.loads(done.stdout)
    section = content.get("training") if isinstance(content, dict) else None
    return str(section.get("output_dir") or "") if isinstance(section, dict) else ""


if __name__ == "__main__":
    sys.exit(main())
