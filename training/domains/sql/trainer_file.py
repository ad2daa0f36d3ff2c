"""Configuration files in the form that scripts around Hugging Face's Trainer, PEFT and bitsandbytes use: their keys as
settings of this family, and what each becomes.

Such a file has the sections model (name, max_seq_length, torch_dtype), lora, quantization, training (the names of
TrainingArguments), data (train_file ...) and logging. It is recognised by `training.num_train_epochs`, `model.name` or
`data.train_file`, none of which is a setting of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.config import Layer, read_yaml
from training.domain import Job
from training.errors import UsageError

BUNDLE = 8  # prompt.bundle of the full settings: questions that one sample holds

#: Keys that become one setting, with the same value.
SAME = {
    "model.max_seq_length": "model.max_tokens",
    "lora.r": "lora.r",
    "lora.lora_dropout": "lora.dropout",
    "lora.target_modules": "lora.targets",
    "lora.use_rslora": "lora.rslora",
    "lora.use_dora": "lora.dora",
    "training.seed": "seed",
    "training.num_train_epochs": "training.epochs",
    "training.max_steps": "training.max_steps",
    "training.gradient_checkpointing": "model.gradient_checkpointing",
    "training.learning_rate": "optim.lr",
    "training.weight_decay": "optim.weight_decay",
    "training.adam_epsilon": "optim.eps",
    "training.max_grad_norm": "optim.grad_clip",
    "training.logging_steps": "training.log_every",
    "training.save_total_limit": "training.keep",
    "logging.project_name": "logging.wandb_project",
}
#: Keys of which nothing follows, and the reason, which is printed.
NOTHING = {
    "training.output_dir": "outputs are under --out; --persist DIR keeps copies on a drive",
    "training.per_device_eval_batch_size": "answers are generated generation.batch_size at a time",
    "training.load_best_model_at_end": "the best checkpoint is always the one that is evaluated and exported",
    "training.greater_is_better": "it follows from the metric",
    "training.remove_unused_columns": "columns that are not needed are not read",
    "training.dataloader_num_workers": "data.num_workers",
    "training.group_by_length": "questions are grouped by database",
    "logging.run_name": "a run is named by its time",
    "logging.log_dir": "logs are under runs/",
    "logging.tensorboard_dir": "TensorBoard's files are under runs/",
}
FILES = {"data.train_file": "train", "data.val_file": "val", "data.test_file": "test"}
MARKS = ("training.num_train_epochs", "model.name", "data.train_file")


@dataclass
class TrainerFile:
    """What a file says: settings, files of questions and their column, and lines about what became of its keys."""

    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    text_column: str | None = None  # of these files: it holds a text with the question and its SQL
    notes: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # setting -> where the file sets it
    place: str = ""  # the file's line and key that is translated at present

    def set(self, dotted: str, value: Any) -> None:
        *sections, key = dotted.split(".")
        at = self.settings
        for section in sections:
            at = at.setdefault(section, {})
        at[key] = value
        self.places[dotted] = self.place

    def note(self, key: str, text: str) -> None:
        self.notes.append(f"{key}: {text}")


def is_trainer_file(layer: Layer) -> bool:
    return any(mark in _flat(layer.values) for mark in MARKS)


def read_trainer_file(path: Path) -> TrainerFile | None:
    """The file at `path`; None if it is a file of our own settings. Raises UsageError with file and line for a key that
    is not known, and for values that contradict each other."""
    layer = read_yaml(path)
    return translated(layer) if is_trainer_file(layer) else None


def translated(layer: Layer) -> TrainerFile:
    out, values = TrainerFile(), _flat(layer.values)
    known = [*SAME, *NOTHING, *FILES, *_SPECIAL]
    for key, value in values.items():
        place = layer.places.get(key, layer.name)
        out.place = f"{place}, `{key}`"
        if key in SAME:
            out.set(SAME[key], tuple(value) if isinstance(value, list) else value)
        elif key in FILES:
            if value:
                out.files[FILES[key]] = Path(value)
        elif key in NOTHING:
            out.note(key, f"not used: {NOTHING[key]}")
        elif key in _SPECIAL:
            _SPECIAL[key](out, key, value, values, place)
        else:
            near = difflib.get_close_matches(key, known, 1, 0.6)
            hint = f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(sorted(known))}."
            raise UsageError(f"{place}: `{key}` is not a key that is known.{hint}")
    _batches(out, values, layer)
    return out


def layers_of(path: Path, full: Path) -> list[Layer]:
    """The layers of a configuration file: our own settings as they are; of another trainer's, its keys over those of
    the full settings."""
    found = read_trainer_file(path)
    if found is None:
        return [read_yaml(path)]
    notes = [f"{path.name}: {note}" for note in found.notes]
    return [read_yaml(full), Layer(found.settings, found.places, str(path), notes)]


def with_files(job: Job) -> Job:
    """The job with the files of questions that its configuration names, where the command names none, and with the
    column that holds their texts. Relative paths are taken from the working directory, or from the configuration's
    folder. Raises UsageError for a missing file."""
    config = job.path("config")
    found = read_trainer_file(config) if config is not None else None
    if found is None or config is None:
        return job
    options = dict(job.options) | {"text_column": found.text_column}
    for name, path in found.files.items():
        if options.get(name) is None:
            place = path if path.is_absolute() or path.exists() else config.parent / path
            if not place.is_file():
                raise UsageError(
                    f"{config}: data.{name}_file names {path}, which does not exist; name it with --{name}."
                )
            options[name] = place.absolute()
    return replace(job, options=options)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def _batches(out: TrainerFile, values: Mapping[str, Any], layer: Layer) -> None:
    """Questions a step: batch size times accumulation, in bundles of questions about one database."""
    names = ("training.per_device_train_batch_size", "training.gradient_accumulation_steps")
    size, accumulate = values.get(names[0]), values.get(names[1], 1)
    if size is None:
        return
    for key, value in zip(names, (size, accumulate), strict=True):
        if type(value) is not int or value < 1:
            place = layer.places.get(key, layer.name)
            raise UsageError(f"{place}: `{key}` should be a whole number of at least 1; it is {value!r}.")
    out.place = f"{layer.places.get(names[0], layer.name)}, `{names[0]}`"
    questions = size * accumulate
    bundle = min(BUNDLE, questions)
    out.set("prompt.bundle", bundle)
    out.set("data.batch_size", 1)
    out.set("training.grad_accum_steps", max(1, round(questions / bundle)))
    out.note(
        "training.per_device_train_batch_size",
        f"{questions} questions a step and GPU, {bundle} of one database in a sample that states its schema once",
    )


# -- keys that need a thought ------------------------------------------------------------------------------------------

_Special = Callable[[TrainerFile, str, Any, Mapping[str, Any], str], None]


def _name(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if not isinstance(value, str):
        raise UsageError(f"{place}: `{key}` should be text, the name or the folder of a base model; it is {value!r}.")
    if Path(value).expanduser().is_dir():
        out.set("model.base", str(Path(value).expanduser().absolute()))
    else:
        out.note(key, f"{value} is no folder here: the base is that of --base DIR or --download NAME@REVISION")


def _dtype(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if value not in ("float16", "bfloat16", "float32", "auto"):
        raise UsageError(f"{place}: `{key}` should be float16, bfloat16 or float32; it is {value!r}.")
    out.set("model.dtype", "float32" if value == "float32" else "bfloat16")
    if values.get("training.fp16"):
        out.set("model.dtype", "float16")
    elif value == "float16":
        out.note(key, "bfloat16, whose range is that of float32: no loss scaling is needed")


def _bias(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if value != "none":
        raise UsageError(f"{place}: `{key}` should be none: biases are not trained; it is {value!r}.")


def _task(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if value != "CAUSAL_LM":
        raise UsageError(f"{place}: `{key}` should be CAUSAL_LM; it is {value!r}.")


def _alpha(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    out.set("lora.alpha", float(value) if type(value) is int else value)


def _four_bit(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if not value:
        return
    kind = values.get("quantization.bnb_4bit_quant_type", "fp4")  # the library's own default
    if kind != "nf4":
        raise UsageError(f"{place}: bnb_4bit_quant_type should be nf4; it is {kind!r}.")
    out.set("model.quantization", "nf4")
    out.set("model.double_quantization", bool(values.get("quantization.bnb_4bit_use_double_quant", False)))
    out.note("quantization.bnb_4bit_compute_dtype", "products are computed in model.dtype")


def _eight_bit(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if value:
        raise UsageError(f"{place}: `{key}`: eight bits are not supported; use load_in_4bit with nf4, or neither.")


def _together(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    """A key that is read together with others: the details of load_in_4bit, and the batches."""


def _optimizer(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if "adamw" not in str(value):
        raise UsageError(f"{place}: `{key}` should be an AdamW; it is {value!r}.")
    out.note(key, "fused AdamW in float32: the state of an adapter is small, and nothing needs paging")


def _warmup(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    """Steps, or a share of all: `warmup_ratio`, and `warmup_steps` below 1 in newer versions of Trainer. Steps come
    first, as in Trainer."""
    steps = values.get("training.warmup_steps") or 0
    if key == "training.warmup_ratio" and steps:
        out.note(key, f"not used: training.warmup_steps is {steps}")
    elif key == "training.warmup_ratio" or (isinstance(value, float) and 0 < value < 1):
        out.set("scheduler.warmup_ratio", value)
    else:
        out.set("scheduler.warmup_steps", value)


def _schedule(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    names = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}
    if value not in names:
        raise UsageError(f"{place}: `{key}` should be one of {', '.join(names)}; it is {value!r}.")
    out.set("scheduler.name", names[value])


def _text_column(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{place}: `{key}` should be the name of a column; it is {value!r}.")
    out.text_column = value


def _precision(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if values.get("training.fp16") and values.get("training.bf16"):
        raise UsageError(f"{place}: fp16 and bf16 are both true; choose one.")
    if key == "training.fp16" and value:
        out.set("model.dtype", "float16")


def _save(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if values.get("training.save_strategy", "steps") == "steps" and key == "training.save_steps":
        out.set("training.save_steps", value)


def _eval(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    strategy = values.get("training.eval_strategy", values.get("training.evaluation_strategy", "steps"))
    if strategy == "steps" and key == "training.eval_steps":
        out.set("training.eval_steps", value)


def _metric(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    if value in ("eval_loss", "loss"):
        out.set("training.early_stopping.monitor", "val_loss")
        out.set("training.early_stopping.direction", "lower")
        out.note(
            key, "the best checkpoint is that of the lowest held-out loss; the share of right answers is logged too"
        )
    elif value in ("exec", "eval_exec"):
        out.set("training.early_stopping.monitor", "exec")
        out.set("training.early_stopping.direction", "higher")
    else:
        raise UsageError(f"{place}: `{key}` should be eval_loss or exec; it is {value!r}.")


def _report_to(out: TrainerFile, key: str, value: Any, values: Mapping[str, Any], place: str) -> None:
    wanted = [value] if isinstance(value, str) else list(value or [])
    out.set("logging.tensorboard", "tensorboard" in wanted or "all" in wanted)
    out.set("logging.wandb", "online" if "wandb" in wanted or "all" in wanted else "off")


_SPECIAL: dict[str, _Special] = {
    "model.name": _name,
    "model.torch_dtype": _dtype,
    "lora.lora_alpha": _alpha,
    "lora.bias": _bias,
    "lora.task_type": _task,
    "quantization.load_in_4bit": _four_bit,
    "quantization.load_in_8bit": _eight_bit,
    "quantization.bnb_4bit_compute_dtype": _together,
    "quantization.bnb_4bit_use_double_quant": _together,
    "quantization.bnb_4bit_quant_type": _together,
    "training.per_device_train_batch_size": _together,
    "training.gradient_accumulation_steps": _together,
    "training.optim": _optimizer,
    "training.warmup_ratio": _warmup,
    "training.warmup_steps": _warmup,
    "training.lr_scheduler_type": _schedule,
    "training.fp16": _precision,
    "training.bf16": _precision,
    "training.save_strategy": _save,
    "training.save_steps": _save,
    "training.eval_strategy": _eval,
    "training.evaluation_strategy": _eval,
    "training.eval_steps": _eval,
    "training.metric_for_best_model": _metric,
    "training.report_to": _report_to,
    "data.text_column": _text_column,
}
