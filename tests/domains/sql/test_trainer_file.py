"""A configuration in the form of Hugging Face's Trainer: what each key becomes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from training import cli
from training.config import Layer, build, read_yaml
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.domains.sql.trainer_file import SAME, layers_of, read_trainer_file, translated
from training.engine.step import schedule
from training.errors import UsageError

FILE = Path(__file__).parents[3] / "training/configs/mistral_lora_config.yaml"
FULL = Path(__file__).parents[3] / "training/cuda_session/text_to_sql_training_config.yaml"


def test_every_key_becomes_a_setting_or_a_line_with_the_reason():
    layers = layers_of(FILE, FULL)
    settings, printed = build(TextToSqlConfig, *layers), "\n".join(layers[-1].notes)
    assert (settings.lora.r, settings.lora.alpha, settings.lora.dropout, len(settings.lora.targets)) == (
        16,
        32,
        0.05,
        7,
    )
    assert (settings.model.max_tokens, settings.model.dtype, settings.model.gradient_checkpointing) == (
        2048,
        "bfloat16",
        True,
    )
    training = settings.training
    assert (training.epochs, training.log_every, training.save_steps, training.eval_steps, training.keep) == (
        3,
        10,
        500,
        500,
        2,
    )
    assert settings.prompt.bundle * settings.data.batch_size * training.grad_accum_steps == 16  # 4 x 4 questions a step
    assert (settings.optim.lr, settings.optim.weight_decay, settings.optim.grad_clip) == (2e-4, 1e-3, 0.3)
    assert (settings.scheduler.name, training.early_stopping.monitor) == ("cosine", "val_loss")
    assert schedule.warmup(1000, settings.scheduler) == 30 and "warmup_ratio" not in printed
    assert settings.logging.tensorboard and settings.logging.wandb == "off"
    assert (settings.model.quantization, settings.model.double_quantization) == ("nf4", True)
    for key in ("model.name", "bnb_4bit_compute_dtype", "training.optim", "output_dir", "torch_dtype"):
        assert key in printed, key
    assert "--base DIR" in printed and "--persist DIR" in printed


#: Every key that becomes one setting -> that setting, and a value that is not the default.
OTHER = {
    "model.max_seq_length": ("model.max_tokens", 1234), "lora.r": ("lora.r", 5),
    "lora.lora_dropout": ("lora.dropout", 0.25), "lora.target_modules": ("lora.targets", ["q_proj"]),
    "lora.use_rslora": ("lora.rslora", True), "lora.use_dora": ("lora.dora", True), "training.seed": ("seed", 7),
    "training.num_train_epochs": ("training.epochs", 9), "training.max_steps": ("training.max_steps", 77),
    "training.gradient_checkpointing": ("model.gradient_checkpointing", False),
    "training.learning_rate": ("optim.lr", 0.007), "training.weight_decay": ("optim.weight_decay", 0.07),
    "training.adam_epsilon": ("optim.eps", 1e-6), "training.max_grad_norm": ("optim.grad_clip", 0.7),
    "training.logging_steps": ("training.log_every", 27),
    "training.save_total_limit": ("training.keep", 7), "logging.project_name": ("logging.wandb_project", "other"),
}  # fmt: skip


@pytest.mark.parametrize("key", SAME)
def test_each_key_changes_its_setting_and_no_other(key):
    def flat(**keys):
        full = read_yaml(FULL)
        found = translated(Layer(keys, name="config.yaml")).settings
        values = build(TextToSqlConfig, full, Layer(found)).model_dump(mode="json")
        return dict(leaves(values))

    section, _, name = key.partition(".")
    (setting, value), before = OTHER[key], flat()
    after = flat(**{section: {name: value}})
    assert {name for name in after if after[name] != before[name]} == {setting}
    assert after[setting] == value


def leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def changed(**keys) -> Layer:
    values = yaml.safe_load(FILE.read_text())
    for dotted, value in keys.items():
        section, _, key = dotted.partition("__")
        values[section][key] = value
    return Layer(values, {"training.epoches": f"{FILE}:26"}, str(FILE))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"training__epoches": 3}, "mistral_lora_config.yaml:26: `training.epoches` is not a key"),
        ({"training__fp16": True}, "fp16 and bf16 are both true"),
        ({"lora__bias": "all"}, "`lora.bias` should be none"),
        ({"training__optim": "adafactor"}, "should be an AdamW"),
        ({"training__lr_scheduler_type": "polynomial"}, "should be one of cosine"),
        ({"training__metric_for_best_model": "rouge"}, "should be eval_loss or exec"),
        ({"model__torch_dtype": "int8"}, "should be float16"),
        ({"model__name": 7}, "`model.name` should be text"),
        ({"quantization__bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type should be nf4"),
        ({"quantization__load_in_8bit": True}, "eight bits are not supported"),
        ({"training__per_device_train_batch_size": "four"}, "should be a whole number of at least 1; it is 'four'"),
    ],
)
def test_what_cannot_be_meant_is_refused(keys, words):
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        translated(changed(**keys))


def test_a_value_that_its_setting_refuses_is_reported_with_the_files_line_and_key(tmp_path):
    path = tmp_path / "config.yaml"
    lines = FILE.read_text().splitlines()
    number = lines.index("  warmup_ratio: 0.03") + 1
    path.write_text("\n".join([*lines[: number - 1], "  warmup_ratio: 3", *lines[number:]]))
    words = re.escape(f"config.yaml:{number}, `training.warmup_ratio`: `scheduler.warmup_ratio` should be less than")
    with pytest.raises(UsageError, match=words):
        build(TextToSqlConfig, *layers_of(path, FULL))


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"warmup_ratio": 0.05}, 50),
        ({"warmup_steps": 0, "warmup_ratio": 0.05}, 50),
        ({"warmup_steps": 17, "warmup_ratio": 0.05}, 17),
        ({"warmup_steps": 17}, 17),
        ({"warmup_steps": 0.02}, 20),  # as newer versions of Trainer write a ratio
        ({"warmup_steps": 0}, 0),
    ],
)
def test_warm_up_is_that_of_trainer(keys, steps):
    found = translated(Layer({"training": keys}, name="config.yaml"))
    assert schedule.warmup(1000, build(TextToSqlConfig, read_yaml(FULL), Layer(found.settings)).scheduler) == steps
    assert bool(found.notes) == (len(keys) == 2 and steps == 17)


def test_a_folder_as_the_models_name_is_the_base(tmp_path):
    assert translated(changed(model__name=str(tmp_path))).settings["model"]["base"] == str(tmp_path)


def test_execution_accuracy_may_choose_the_best_checkpoint():
    stopping = translated(changed(training__metric_for_best_model="exec")).settings["training"]["early_stopping"]
    assert stopping == {"monitor": "exec", "direction": "higher"}


def test_our_own_settings_are_no_such_file():
    assert read_trainer_file(FULL) is None


def test_prepare_reads_the_files_that_it_names(tmp_path, capsys):
    values = yaml.safe_load(FILE.read_text())
    values["data"] = {"train_file": "q.jsonl"}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    words = ["prepare", "--domain", "sql", "--config", str(config), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2 and "data.train_file names q.jsonl" in capsys.readouterr().err
    (tmp_path / "q.jsonl").write_text("no JSON\n")
    assert cli.main(words) == 3 and "q.jsonl:1" in capsys.readouterr().err  # beside the configuration


def test_fp16_holds_the_base_in_float16():
    """For GPUs without bfloat16: the scale of the loss is adapted then."""
    assert translated(changed(training__fp16=True, training__bf16=False)).settings["model"]["dtype"] == "float16"
    assert translated(changed()).settings["model"]["dtype"] == "bfloat16"  # torch_dtype is float16, and bf16 is true


def test_without_four_bits_the_base_is_not_quantised():
    settings = translated(changed(quantization__load_in_4bit=False)).settings
    assert "quantization" not in settings["model"]


def test_prepare_reads_texts_of_the_column_that_it_names(tmp_path, capsys):
    """SQL of PostgreSQL, judged by its text: there is a schema and no server."""
    schema = "CREATE TABLE sales (id SERIAL PRIMARY KEY, region VARCHAR(20), amount NUMERIC, sold_at TIMESTAMP);"
    asked = "[INST] Database: shop\nSchema: {}\nQuestion: Sales above {} in any spelling of north? [/INST]"
    forms = ("SELECT sold_at::date FROM sales WHERE region ILIKE 'north' AND amount > {}",
             "SELECT DATE_TRUNC('month', sold_at) FROM sales WHERE region ILIKE 'north' AND amount > {}")  # fmt: skip
    rows = [{"formatted": f"<s>{asked.format(schema, n)} {forms[n % 2].format(n)}</s>"} for n in range(12)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data": {"train_file": "q.jsonl", "text_column": "formatted"}}))
    words = ["prepare", "--domain", "sql", "--config", str(config), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--dialect", "postgres"]) == 0
    assert "12 questions read, about 1 database (postgres)" in capsys.readouterr().out
    (first, *_) = (tmp_path / "out/data/manifests/text_to_sql_train.jsonl").read_text().splitlines()
    row = json.loads(first)
    assert row["question"].startswith("Sales above") and "ILIKE 'north' AND" in row["sql"]
    assert (row["database"], row["judged"]) == ("shop", "text")
    assert cli.main(words) == 3 and "for PostgreSQL's add --dialect postgres" in capsys.readouterr().err
