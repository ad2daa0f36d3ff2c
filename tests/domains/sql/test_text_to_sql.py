"""The model, its bundles and its answers: sharing a schema changes nothing but the time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.domains.sql.bases.folder import base_at
from training.domains.sql.databases.schema import Schema
from training.domains.sql.prompting.prompt import messages
from training.domains.sql.prompting.tokens import end_of, prompt_ids, tokenize
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.domains.sql.text_to_sql.data import IGNORED, Bundles, Questions, bundled, collate
from training.domains.sql.text_to_sql.generate import answers
from training.domains.sql.text_to_sql.model import TextToSql, adapter_names
from training.errors import UsageError

SCHEMA = Schema.from_ddl(
    "CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, year INTEGER); CREATE TABLE loans (book_id INTEGER)",
    "sqlite",
)
PAIRS = (
    ("How many books are there?", "SELECT COUNT(*) FROM books"),
    ("Titles after 1990?", "SELECT title FROM books WHERE year > 1990"),
    ("Which books were lent?", "SELECT title FROM books WHERE id IN (SELECT book_id FROM loans)"),
    ("The oldest book?", "SELECT title FROM books ORDER BY year LIMIT 1"),
    ("Years?", "SELECT DISTINCT year FROM books"),
)


def settings(base, **changes) -> TextToSqlConfig:
    model = {"base": str(base), "dtype": "float32", "gradient_checkpointing": False} | changes.pop("model", {})
    return TextToSqlConfig(model=model, lora={"r": 4, "dropout": 0.0} | changes.pop("lora", {}), **changes)


@pytest.fixture
def model(tiny_base) -> TextToSql:
    torch.manual_seed(1)
    made = TextToSql(base_at(tiny_base), settings(tiny_base))
    for name, parameter in made.named_parameters():  # a fresh adapter changes nothing: B is zero
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return made


@pytest.fixture
def sharp(model) -> TextToSql:
    """A model whose attention is not nearly uniform, so that a wrong position changes its answers."""
    for name, parameter in model.named_parameters():
        if "q_proj.base_layer" in name or "k_proj.base_layer" in name:
            parameter.data *= 30
    return model.eval()


@pytest.fixture
def rows(model):
    return [tokenize(model.tokenizer, messages(SCHEMA, question), sql) for question, sql in PAIRS]


def gradients(model, batches) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = sum(
        model(*(batch[name] for name in ("tokens", "positions", "segments", "labels")))[0].sum() for batch in batches
    )
    total.backward()
    return float(total.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def alike(first, second) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-5) for name in first
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_bundle_has_the_loss_and_gradients_of_separate_rows(model, rows, checkpointing):
    if checkpointing:
        model.lm.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    separate = [collate([bundled([row])]) for row in rows]
    together = [collate([bundled(rows)])]
    one, of_one = gradients(model, separate)
    other, of_other = gradients(model, together)
    assert other == pytest.approx(one, rel=1e-5) and of_one and alike(of_one, of_other)
    packed = [collate([bundled(rows[:2]), bundled(rows[2:])])]  # of unequal lengths: padding
    third, of_third = gradients(model, packed)
    assert third == pytest.approx(one, rel=1e-5) and alike(of_one, of_third)
    assert together[0]["tokens"].numel() < 0.5 * sum(batch["tokens"].numel() for batch in separate)


def test_only_answers_are_learnt_and_all_of_them(model, rows):
    item = bundled(rows)
    labelled = item["labels"][item["labels"] != IGNORED]
    assert (labelled == np.concatenate([row.answer for row in rows])).all()
    assert (labelled == end_of(model.tokenizer)).sum() == len(rows)


def test_a_question_sees_nothing_of_the_others(model, rows):
    """Another last question changes no loss of the first."""
    losses = [
        model(*(batch[name] for name in ("tokens", "positions", "segments", "labels")))[0]
        for batch in (collate([bundled([rows[0], rows[1]])]), collate([bundled([rows[0], rows[2]])]))
    ]
    first = len(rows[0].answer)
    assert torch.allclose(losses[0][:first], losses[1][:first], atol=1e-5)


def test_bundles_are_a_function_of_seed_and_epoch_and_hold_every_question_once(rows):
    questions = Questions(tuple(rows) * 3, ("a",) * 8 + ("b",) * 7)
    bundles = Bundles(questions, 4, seed=3)
    assert len(bundles) == 4
    by_epoch = [[bundles.item(epoch, index)["tokens"].tolist() for index in range(len(bundles))] for epoch in (0, 0, 1)]
    assert by_epoch[0] == by_epoch[1] != by_epoch[2]
    answers_of = [
        sum((bundles.item(epoch, i)["labels"] == questions.rows[0].answer[-1]).sum() for i in range(4))
        for epoch in (0, 1)
    ]
    assert answers_of == [15, 15]
    held_out = Bundles(questions, 4, seed=None)
    assert held_out.item(0, 1)["tokens"].tolist() == held_out.item(5, 1)["tokens"].tolist()


def test_only_adapters_are_trained_and_saved(model):
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(adapter_names(model)) and len(trained) == 2 * 7 * 3
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters() if parameter.requires_grad)


def test_an_unknown_target_module_is_refused_with_those_that_there_are(tiny_base):
    with pytest.raises(UsageError, match=r"no module wi_0; it has .*q_proj"):
        TextToSql(base_at(tiny_base), settings(tiny_base, lora={"targets": ("q_proj", "wi_0")}))


@pytest.mark.parametrize("batch_size", [4, 8])  # 8: questions about both schemas are answered together
def test_answers_are_those_of_transformers_own_generation(sharp, batch_size):
    """Token by token, though the prompts share their beginning, are padded, and end at different times."""
    model = sharp
    tokenizer, end = model.tokenizer, end_of(model.tokenizer)
    prompts = [prompt_ids(tokenizer, messages(SCHEMA, question)) for question, _ in PAIRS]
    other = Schema.from_ddl("CREATE TABLE cats (name TEXT)", "sqlite")
    prompts.append(prompt_ids(tokenizer, messages(other, "How many cats?")))
    ours = answers(model.lm, tokenizer, prompts, end=end, max_new_tokens=12, batch_size=batch_size)
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            expected = model.lm.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=end,
                pad_token_id=end,
            )[0, len(prompt) :].tolist()  # fmt: skip
        assert list(answer.tokens) == [token for token in expected if token != end]
        assert answer.ended == (expected[-1] == end)


def test_answers_that_end_leave_the_batch_and_keep_their_place(sharp):
    """With a token as the end that some of the answers contain, they end at different steps."""
    model = sharp
    prompts = [prompt_ids(model.tokenizer, messages(SCHEMA, question)) for question, _ in PAIRS]
    long = answers(model.lm, model.tokenizer, prompts, end=-1, max_new_tokens=10, batch_size=8)
    end = long[0].tokens[4]
    short = answers(model.lm, model.tokenizer, prompts, end=end, max_new_tokens=10, batch_size=8)
    for before, after in zip(long, short, strict=True):
        tokens = list(before.tokens)
        assert list(after.tokens) == (tokens[: tokens.index(end)] if end in tokens else tokens)
        assert after.ended == (end in tokens)


def test_an_answer_that_is_complete_leaves_the_batch_and_counts_as_ended(sharp):
    model = sharp
    prompts = [prompt_ids(model.tokenizer, messages(SCHEMA, question)) for question, _ in PAIRS]
    long = answers(model.lm, model.tokenizer, prompts, end=-1, max_new_tokens=10, batch_size=8)
    stop = model.tokenizer.decode(long[1].tokens[:5])
    short = answers(
        model.lm, model.tokenizer, prompts, end=-1, max_new_tokens=10, batch_size=8, complete=lambda text: text == stop
    )  # fmt: skip
    assert (short[1].tokens, short[1].ended) == (long[1].tokens[:5], True)
    others = [(a.tokens, a.ended) for a in short if a.tokens[:5] != long[1].tokens[:5]]
    assert others and others == [(a.tokens, False) for a in long if a.tokens[:5] != long[1].tokens[:5]]


def test_without_adapters_it_is_the_base(model, tiny_base):
    model.eval()
    plain = TextToSql(base_at(tiny_base), settings(tiny_base)).eval()
    ids = torch.tensor([prompt_ids(model.tokenizer, messages(SCHEMA, PAIRS[0][0]))])
    with torch.no_grad():
        tuned, base = model.lm(ids).logits, plain.lm(ids).logits
        with model.without_adapters():
            alone = model.lm(ids).logits
        again = model.lm(ids).logits
    assert torch.equal(alone, base) and torch.equal(again, tuned) and not torch.allclose(tuned, base)
    assert all(parameter.requires_grad == ("lora_" in name) for name, parameter in model.named_parameters())
