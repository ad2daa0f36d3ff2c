"""A base in four bits: the weights that QLoRA defines, the same in every mode, and exports that answer as it does."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch

from tests.domains.sql import small_decoders
from tests.domains.sql.test_text_to_sql import PAIRS, SCHEMA, gradients, settings
from training.domains.sql.bases.folder import Nf4, base_at, model_of
from training.domains.sql.bases.quantized import is_quantized, parameter_count
from training.domains.sql.prompting.prompt import messages
from training.domains.sql.prompting.tokens import tokenize
from training.domains.sql.text_to_sql.data import bundled, collate
from training.domains.sql.text_to_sql.exports import adapter, golden, merged
from training.domains.sql.text_to_sql.model import TextToSql
from training.domains.sql.text_to_sql.recipe import TextToSqlRecipe
from training.engine.checkpoints.partial import split_state
from training.errors import ExportError, UsageError

# Dettmers et al. 2023, appendix E
CODES = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
BLOCK = 64


def quantized_settings(base, **changes):
    double = changes.pop("double", False)
    return settings(base, model={"quantization": "nf4", "double_quantization": double}, **changes)


def trained(base, chosen) -> TextToSql:
    """A model whose adapters change its answers."""
    torch.manual_seed(1)
    made = TextToSql(base_at(base), chosen)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def nearest_codes(weight: torch.Tensor) -> torch.Tensor:
    """Each number of a block of 64 as the nearest of the sixteen times the block's largest magnitude."""
    blocks = weight.float().reshape(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / largest)[..., None].sub(CODES).abs().argmin(-1)
    return (CODES[nearest] * largest).reshape(weight.shape)


def test_the_weights_are_those_that_qlora_defines(tiny_base):
    plain = model_of(base_at(tiny_base), torch.float32).state_dict()
    found = merged.merged_state(TextToSql(base_at(tiny_base), quantized_settings(tiny_base)))
    assert found.keys() == plain.keys()
    linear = [name for name in plain if name.endswith("_proj.weight")]
    assert len(linear) >= 7
    for name in plain:
        right = nearest_codes(plain[name]) if name in linear else plain[name]
        torch.testing.assert_close(found[name], right, rtol=1e-6, atol=1e-7)
        assert (name in linear) == (not torch.equal(found[name], plain[name]))


def test_double_quantisation_changes_the_scales_a_little(tiny_base):
    once, twice = (
        merged.merged_state(TextToSql(base_at(tiny_base), quantized_settings(tiny_base, double=double)))
        for double in (False, True)
    )
    name = next(name for name in once if name.endswith("up_proj.weight"))
    difference = (once[name] - twice[name]).abs().max() / once[name].abs().max()
    assert 0 < difference < 0.02


def test_loss_and_gradients_are_those_of_the_dequantised_weights(tiny_base):
    chosen = quantized_settings(tiny_base)
    model = trained(tiny_base, chosen)
    plain = trained(tiny_base, settings(tiny_base))
    weights = merged.merged_state(TextToSql(base_at(tiny_base), chosen))  # without a trained adapter: the base alone
    for name, parameter in plain.lm.named_parameters():
        if ".lora_" not in name:
            parameter.data.copy_(weights[name.replace(".base_layer", "")])
    for (name, mine), (_, other) in zip(model.lm.named_parameters(), plain.lm.named_parameters(), strict=True):
        if ".lora_" in name:
            other.data.copy_(mine)
    rows = [tokenize(model.tokenizer, messages(SCHEMA, question), sql) for question, sql in PAIRS]
    loss, found = gradients(model, [collate([bundled(rows)])])
    right, expected = gradients(plain, [collate([bundled(rows)])])
    assert loss == pytest.approx(right, rel=1e-5)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_generating_leaves_the_frozen_weights_as_they_are(tiny_base, double):
    """On CPUs with AVX512-BF16, bitsandbytes would reorder their bytes, and a resume be refused."""
    recipe = TextToSqlRecipe(quantized_settings(tiny_base, double=double))
    model = trained(tiny_base, recipe.settings)
    saved, before = split_state(recipe, model)
    assert all(".lora_" in name for name in saved)
    golden.expected(model.lm, model.tokenizer, 3)
    model.train()
    fresh = TextToSql(base_at(tiny_base), recipe.settings)
    assert split_state(recipe, model)[1] == split_state(recipe, fresh)[1] == before


def test_the_adapter_file_gives_its_answers_on_the_quantised_base(tiny_base, tmp_path):
    chosen = quantized_settings(tiny_base)
    model = trained(tiny_base, chosen)
    about = golden.expected(model.lm, model.tokenizer, 3)
    assert len({tuple(answer) for answer in about["answers"]}) > 1
    artefact = adapter.artefact(model, chosen, about)
    artefact.write(tmp_path / "adapter")
    known = json.loads(json.dumps(artefact.about))
    assert adapter.prove(tmp_path / "adapter", known)["same_answers"] >= 9
    with pytest.raises(ExportError, match="golden answers are the model's"):
        adapter.prove(tmp_path / "adapter", known | {"nf4": None})  # on the original base


@pytest.mark.parametrize("double", [False, True])
def test_the_merged_model_has_the_logits_of_the_quantised_one(tiny_base, double):
    model = trained(tiny_base, quantized_settings(tiny_base, double=double))
    plain = model_of(base_at(tiny_base), torch.float32).eval()
    plain.load_state_dict(merged.merged_state(model))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, model.lm(ids).logits, rtol=1e-4, atol=1e-4)


def test_dora_is_merged_with_its_magnitudes(tiny_base):
    chosen = settings(tiny_base, lora={"dora": True})
    model = trained(tiny_base, chosen)
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data *= torch.linspace(0.5, 2, len(parameter))
    plain = model_of(base_at(tiny_base), torch.float32).eval()
    plain.load_state_dict(merged.merged_state(model))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, model.lm(ids).logits, rtol=1e-4, atol=1e-4)


def test_parameters_are_counted_as_numbers_not_as_bytes(tiny_base):
    plain, four_bits = (model_of(base_at(tiny_base), torch.float32, nf4) for nf4 in (None, Nf4()))
    assert any(is_quantized(module) for module in four_bits.modules())
    assert parameter_count(four_bits) == parameter_count(plain) == sum(p.numel() for p in plain.parameters())


def test_a_base_that_is_quantised_already_is_refused(tiny_base, tmp_path):
    copy = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(UsageError, match=r"is quantised already\. Name the original"):
        model_of(base_at(copy), torch.float32, Nf4())


def test_layers_that_do_not_come_in_blocks_are_refused(tmp_path):
    small_decoders.model("llama", hidden_size=96, num_attention_heads=4).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"q_proj has 96 inputs.*blocks of 64\. Set model\.quantization: none"):
        model_of(base_at(tmp_path), torch.float32, Nf4())


def test_without_its_library_the_error_names_it(tiny_base, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(UsageError, match="needs the package bitsandbytes"):
        model_of(base_at(tiny_base), torch.float32, Nf4())


def test_a_merged_folder_with_other_weights_or_another_tokenizer_is_refused(tiny_base, tmp_path):
    """Rounding to bfloat16 changes many answers of a model that is unsure of each token, but few of the next tokens."""
    model = trained(tiny_base, settings(tiny_base))
    about = golden.expected(model.lm, model.tokenizer, 3)
    artefact = merged.artefact(model, about)
    artefact.write(tmp_path / "merged")
    assert merged.prove(tmp_path / "merged", about)["same_next_tokens"] >= 0.9
    model.tokenizer.save_pretrained(tmp_path / "base")
    model_of(base_at(tiny_base), torch.float32).save_pretrained(tmp_path / "base")  # without the adapter
    with pytest.raises(ExportError, match=r"of their tokens; 50% or 90% are required"):
        merged.prove(tmp_path / "base", about)
    with pytest.raises(ExportError, match="its tokenizer gives other token ids"):
        merged.prove(tmp_path / "merged", about | {"prompts": about["prompts"][::-1]})
