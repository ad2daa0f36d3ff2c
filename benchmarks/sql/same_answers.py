"""Do the exported files answer as the trained model does? Held-out questions, each file in its consumer's own program.

python -m benchmarks.sql.same_answers OUT [--count 50]

`OUT` is the folder of a finished SQL job (`./train_cuda.sh sql --out OUT`). The adapter is run by PEFT on the base, the
merged model by transformers, the GGUF files by llama.cpp, the ONNX file by ONNX Runtime, token by token with its cache:
none with code of this project's generation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.rows import select
from training.domains.sql.bases.folder import base_at, model_of
from training.domains.sql.prompting.tokens import end_of, prompt_ids
from training.domains.sql.text_to_sql.exports import golden, llama_cpp
from training.domains.sql.text_to_sql.generate import Answer, answers
from training.domains.sql.text_to_sql.judging import Judge
from training.domains.sql.text_to_sql.rows import Prompts
from training.stages.splits import load_split
from training.stages.trained import load_trained
from training.threads import configure
from training.workspace import Workspace

FAMILY = "text_to_sql"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql.same_answers")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--count", type=int, default=50, metavar="N", help="questions (default: 50)")
    options = parser.parse_args(arguments)
    configure()
    workspace = Workspace(options.out.absolute())
    trained = load_trained(FAMILY, workspace)
    model, settings = trained.model.float().eval(), trained.recipe.settings
    rows = load_split(trained.recipe, workspace, "val")
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(options.count, len(rows))).astype(int))
    rows = select(rows, chosen)
    prompts = Prompts(model.tokenizer, settings)
    asked = [prompts.of_row(row, settings.generation.max_new_tokens) for row in rows]
    if None in asked:
        raise SystemExit("A question does not fit model.max_tokens.")
    ids = [prompt_ids(model.tokenizer, prompt) for prompt in asked]
    end, most = end_of(model.tokenizer), settings.generation.max_new_tokens
    own = answers(model.lm, model.tokenizer, ids, end=end, max_new_tokens=most, batch_size=16)
    about = {"prompts": ids, "answers": [list(a.tokens) for a in own], "end": end, "most_tokens": most}

    found = {"the trained model": about["answers"]}
    files, nf4 = workspace.exports, settings.model.nf4
    tokenizer = model.tokenizer
    del model
    found["adapter, by PEFT"] = _adapter(files / "adapter", settings.model.base, nf4, about)
    found["merged, by transformers"] = _merged(files / "merged", about)
    for path in sorted((files / "gguf").glob("*.gguf")):
        found[f"{path.name}, by llama.cpp"] = _llama(path, about)
    if (onnx := files / "text_to_sql.onnx").exists():  # a base of over 2 GB has none
        found["ONNX file, by ONNX Runtime"] = _onnx(onnx, about)
    print(f"{len(rows)} held-out questions; the same answers, token by token, and the right ones (suite):")
    with (
        tempfile.TemporaryDirectory() as place,
        Judge(rows, Path(place), settings.judging.copies, settings.judging.seconds, settings.seed) as judge,
    ):
        for name, tokens in found.items():
            same = sum(list(a) == list(b) for a, b in zip(tokens, about["answers"], strict=True))
            outcomes = judge.judge(
                [Answer(tuple(t), True, tokenizer.decode(t, skip_special_tokens=True)) for t in tokens]
            )
            right = sum(bool(outcome.suite) for outcome in outcomes)
            print(f"  {name:<32} {same:>3} of {len(rows)} the same, {right:>3} right", flush=True)
    return 0


def _adapter(path: Path, base: Any, nf4: Any, about: dict[str, Any]) -> list[list[int]]:
    from peft import PeftModel

    model = PeftModel.from_pretrained(model_of(base_at(base), torch.float32, nf4), path, local_files_only=True).eval()
    return golden.plain_generate(model, about)


def _merged(path: Path, about: dict[str, Any]) -> list[list[int]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True).eval()
    return golden.plain_generate(model, about)


def _llama(path: Path, about: dict[str, Any]) -> list[list[int]]:
    # llama.cpp stops at the length that is expected of it: one token more for the end
    expected = [[*answer, about["end"]] for answer in about["answers"]]
    ran = llama_cpp.run(path, [], about["prompts"], expected, torch.get_num_threads())
    ended = [about["end"] in answer for answer in ran.answers]
    return [
        answer[: answer.index(about["end"])] if stop else answer
        for answer, stop in zip(ran.answers, ended, strict=True)
    ]


def _onnx(path: Path, about: dict[str, Any]) -> list[list[int]]:
    """One prompt at a time: its tokens with an empty cache, then each new token with the cache of the call before."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    empty = {
        entry.name: np.zeros([n if isinstance(n, int) else int(n == "batch") for n in entry.shape], np.float32)
        for entry in session.get_inputs()
        if entry.name in ("past_keys", "past_values")
    }
    out = []
    for prompt in about["prompts"]:
        answer: list[int] = []
        feed = {"tokens": np.array([prompt]), "positions": np.arange(len(prompt))[None]}
        feed |= {"past_positions": np.zeros((1, 0), np.int64), **empty}
        while len(answer) < about["most_tokens"]:
            logits, positions, keys, values = session.run(
                ["logits", "present_positions", "present_keys", "present_values"], feed
            )
            token = int(logits[0, -1].argmax())
            if token == about["end"]:
                break
            answer.append(token)
            feed = {"tokens": np.array([[token]]), "positions": np.array([[positions.shape[1]]])}
            feed |= {"past_positions": positions, "past_keys": keys, "past_values": values}
        out.append(answer)
    return out


if __name__ == "__main__":
    sys.exit(main())
