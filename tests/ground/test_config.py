"""Settings: mistakes in YAML are reported with file, line, key and the nearest valid key."""

from __future__ import annotations

import os

import pytest

from training.config import build, dotted_keys, override_layer, read_yaml
from training.errors import UsageError
from training.settings import RunSettings


def settings(tmp_path, text, *overrides):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return build(RunSettings, read_yaml(path), override_layer(overrides))


def refusal(tmp_path, text, *overrides):
    with pytest.raises(UsageError) as caught:
        settings(tmp_path, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", "1e-04", ".1e-3"])
def test_a_number_may_be_written_in_any_common_format(tmp_path, text):
    """Plain PyYAML would read 1e-4 as text."""
    assert settings(tmp_path, f"optim:\n  lr: {text}\n").optim.lr == 1e-4


def test_integers_words_and_quoted_numbers_keep_their_types(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 12\nb: e4\nc: 1.2.3\nd: '1e-4'\ne: -7\nf: on\n")
    assert read_yaml(path).values == {"a": 12, "b": "e4", "c": "1.2.3", "d": "1e-4", "e": -7, "f": True}


def test_a_misspelt_key_is_reported_with_its_line_and_the_nearest_valid_key(tmp_path):
    message = refusal(tmp_path, "training:\n  epochs: 3\n  grad_acum_steps: 2\n")
    assert "run.yaml:3" in message and "Did you mean `training.grad_accum_steps`?" in message


def test_the_error_for_a_key_in_the_wrong_section_names_the_right_one(tmp_path):
    assert "`optim.grad_clip`" in refusal(tmp_path, "training:\n  grad_clip: 1.0\n")


def test_every_mistake_is_reported_at_once(tmp_path):
    message = refusal(tmp_path, "training:\n  epochs: '10'\n  amp: 1\nsede: 3\n")
    assert message.count("run.yaml:") == 3


@pytest.mark.parametrize("text", ["training:\n  epochs: 1\n  epochs: 2\n", "seed: 1\nseed: 2\n"])
def test_a_duplicate_key_is_refused_with_both_lines(tmp_path, text):
    message = refusal(tmp_path, text)
    assert "is set twice" in message and "first on line" in message


def test_tags_that_build_objects_are_refused(tmp_path):
    assert "is not valid YAML" in refusal(tmp_path, "seed: !!python/object/apply:os.getpid []\n")


@pytest.mark.parametrize("value", ["1:30", "007", ".inf", ".nan", "1e400", "0x10"])
def test_ambiguous_and_non_finite_numbers_are_refused(tmp_path, value):
    """YAML 1.1 would read 1:30 as 90 and 010 as 8."""
    assert "`optim.lr`" in refusal(tmp_path, f"optim:\n  lr: {value}\n")
    assert "`training.epochs`" in refusal(tmp_path, f"training:\n  epochs: {value}\n")


@pytest.mark.parametrize(
    "text",
    [
        "base: &a {epochs: 3}\ntraining: *a\n",
        "training: &t\n  epochs: 3\n  <<: {epochs: 4}\nx: *t\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "seed: !!int '7'\n",
        "seed: !!timestamp x\n",
        "seed: 2024-13-45\n",
        "seed: " + "[" * 100_000 + "]" * 100_000 + "\n",
        "seed: 1" + "0" * 5000 + "\n",
    ],
)
def test_aliases_tags_deep_nesting_and_huge_numbers_are_refused(tmp_path, text):
    assert "is not valid YAML" in refusal(tmp_path, text)
    with pytest.raises(UsageError):
        override_layer([f"seed={text.partition(': ')[2]}"] if "&" not in text else ["seed=[&a [1], *a]"])


def test_a_key_of_another_section_is_preferred_to_a_sibling_with_a_similar_name(tmp_path):
    assert "`training.epochs`" in refusal(tmp_path, "optim:\n  epochs: 3\n")
    assert "Did you mean `optim.eps`?" in refusal(tmp_path, "optim:\n  EPS: 3\n")


@pytest.mark.parametrize("text", ["- a\n", "just words\n", "a: [1\n"])
def test_a_file_without_settings_is_refused(tmp_path, text):
    assert "run.yaml" in refusal(tmp_path, text)


def test_a_missing_file_is_reported_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.yaml"):
        read_yaml(tmp_path / "gone.yaml")


def test_a_fifo_or_a_huge_file_is_refused_unread(tmp_path):
    """Reading a FIFO would block, and parsing a model file of gigabytes would take hours."""
    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(UsageError, match="FIFO or device"):
        read_yaml(tmp_path / "run.yaml")
    (tmp_path / "model.onnx").touch()
    os.truncate(tmp_path / "model.onnx", 1 << 31)
    with pytest.raises(UsageError, match="2,147,483,648 bytes"):
        read_yaml(tmp_path / "model.onnx")


def test_overrides_replace_values_of_the_file_and_are_validated_like_them(tmp_path):
    got = settings(tmp_path, "optim:\n  lr: 1e-3\n", "optim.lr=2e-4", "optim.betas=[0.8, 0.9]")
    assert got.optim.lr == 2e-4 and got.optim.betas == (0.8, 0.9)
    assert "--set optim.lr=fast" in refusal(tmp_path, "", "optim.lr=fast")
    assert "--set" in refusal(tmp_path, "", "optim.lr")


@pytest.mark.parametrize("key", sorted(dotted_keys(RunSettings)))
def test_every_shared_key_refuses_a_wrong_type(tmp_path, key):
    class Odd:
        """A type that no setting accepts."""

    nested: object = Odd()
    for part in reversed(key.split(".")):
        nested = {part: nested}
    from training.config import Layer

    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        build(RunSettings, Layer(nested))
