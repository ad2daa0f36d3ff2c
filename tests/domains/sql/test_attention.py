"""Split and flex attention compute what the dense one does; where flex does not, split is used, and a line says so."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from tests.domains.sql.test_text_to_sql import PAIRS, SCHEMA, alike, gradients, settings
from training.domains.sql.bases.folder import base_at
from training.domains.sql.prompting.prompt import messages
from training.domains.sql.prompting.tokens import end_of, tokenize
from training.domains.sql.text_to_sql import attention
from training.domains.sql.text_to_sql.data import PADDING, attention_mask, bundled, collate
from training.domains.sql.text_to_sql.generate import answers
from training.domains.sql.text_to_sql.model import TextToSql

INPUTS = ("tokens", "positions", "segments", "labels")


def by_its_mask(query, key, value, *, block_mask, scale, enable_gqa):
    """What flex_attention computes, in a way that has gradients on a CPU."""
    seen = create_mask(block_mask.mask_mod, *block_mask.shape[:2], query.shape[2], key.shape[2], device="cpu")
    return scaled_dot_product_attention(query, key, value, seen, scale=scale, enable_gqa=enable_gqa)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(attention, "_flex", lambda device: by_its_mask)
    monkeypatch.setattr("training.domains.sql.text_to_sql.model.trains_on", lambda device: True)


def made(base, way, **lora) -> TextToSql:
    torch.manual_seed(1)
    model = TextToSql(base_at(base), settings(base, model={"attention": way}, lora=lora))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        if "q_proj.base_layer" in name or "k_proj.base_layer" in name:
            parameter.data *= 30  # attention that is not nearly uniform, so that a wrong mask changes the loss
    return model


@pytest.fixture
def batch(tiny_base):
    tokenizer = made(tiny_base, "dense").tokenizer
    rows = [tokenize(tokenizer, messages(SCHEMA, question), sql) for question, sql in PAIRS]
    return collate([bundled(rows), bundled(rows[:2])])  # the second one is padded


@pytest.mark.parametrize("way", ["split", "flex"])
def test_its_loss_and_gradients_are_those_of_the_dense_one(tiny_base, batch, capsys, way):
    (right, expected), (loss, found) = (gradients(made(tiny_base, one), [batch]) for one in ("dense", way))
    assert loss == pytest.approx(right, rel=1e-5)
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-4 * value.norm()
    assert "NOTE" not in capsys.readouterr().out


def test_flex_attention_itself_gives_the_outputs_of_the_dense_one(tiny_base, batch, monkeypatch):
    monkeypatch.setattr(attention, "_flex", lambda device: flex_attention)
    with torch.no_grad():
        (right, _), (loss, _) = (
            made(tiny_base, way).eval()(*(batch[name] for name in INPUTS)) for way in ("dense", "flex")
        )
    torch.testing.assert_close(loss, right, rtol=1e-4, atol=1e-5)


def test_where_flex_has_no_gradients_a_line_says_that_the_split_one_is_used(tiny_base, batch, monkeypatch, capsys):
    monkeypatch.setattr("training.domains.sql.text_to_sql.model.trains_on", attention.trains_on)
    model = made(tiny_base, "flex")
    assert gradients(model, [batch])[0] == gradients(made(tiny_base, "split"), [batch])[0]
    assert "has no gradients on this device: the split one is used" in capsys.readouterr().out


def test_both_masks_let_the_same_positions_see_each_other(batch):
    segments = batch["segments"]
    dense = attention_mask(segments)[:, 0]
    mask = attention.block_mask(segments)
    flex = create_mask(mask.mask_mod, *segments.shape[:1], 1, *[segments.shape[1]] * 2, device="cpu")[:, 0]
    real = segments != PADDING
    assert real.any() and not real.all()
    assert torch.equal(dense[real], flex[real])
    assert flex.any(-1).all()  # a row without any would be NaN


@pytest.mark.parametrize("wrong", ["loss", "nan", "gradients"])
def test_a_wrong_flex_attention_is_noticed_and_not_used(tiny_base, batch, monkeypatch, capsys, wrong):
    def broken(query, key, value, **options):
        out = by_its_mask(query, key, value, **options)
        return {"loss": out * 1.5, "nan": out * float("nan"), "gradients": out.detach()}[wrong]

    monkeypatch.setattr(attention, "_flex", lambda device: broken)
    model = made(tiny_base, "flex")
    (right, expected), (loss, found) = gradients(made(tiny_base, "split"), [batch]), gradients(model, [batch])
    assert "flex attention is wrong on this host (the loss differs by" in capsys.readouterr().out
    assert loss == right and alike(found, expected)


def test_the_comparison_changes_no_random_number(tiny_base, batch):
    """A resumed run compares again: it must continue with the same numbers."""
    model = made(tiny_base, "flex", dropout=0.3)
    losses = []
    for _ in range(2):  # compared in the first
        torch.manual_seed(5)
        losses.append(model(*(batch[name] for name in INPUTS))[0].sum().item())
    assert losses[0] == losses[1]
    assert model.compared and model.attention == "flex"


def test_a_token_sees_the_prefix_and_its_question_so_far_and_nothing_else(batch):
    """Queries and keys of zero average the values that are seen."""
    segments = batch["segments"]
    length = segments.shape[1]
    values = torch.eye(length).expand(2, 1, length, length)
    zeros = torch.zeros(2, 1, length, 8)
    found, _ = attention.attend(None, zeros, zeros, values, None, bundles=attention.bundles_of(segments))
    real = segments != PADDING
    assert torch.equal(found[:, :, 0][real] > 0, attention_mask(segments)[:, 0][real])


def test_answers_are_those_of_the_dense_one(tiny_base, batch):
    found = []
    for way in ("dense", "flex"):
        model = made(tiny_base, way).eval()
        prompts = [tokenize(model.tokenizer, messages(SCHEMA, q), sql).prompt.tolist() for q, sql in PAIRS[:2]]
        found.append(
            answers(model.lm, model.tokenizer, prompts, end=end_of(model.tokenizer), max_new_tokens=8, batch_size=2)
        )
    assert found[0] == found[1]
