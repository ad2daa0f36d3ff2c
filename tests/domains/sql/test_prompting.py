"""Prompts, their token ids and labels, and pruned schemas."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from training.domains.sql.databases.schema import Schema
from training.domains.sql.prompting.prompt import messages, rendered, with_examples
from training.domains.sql.prompting.pruning import by_relevance, prune, words
from training.domains.sql.prompting.tokens import (
    TokenizedRow,
    answer_ids,
    check,
    common_prefix,
    end_of,
    prompt_ids,
    tokenize,
)

DDL = """CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers(id), total REAL);
CREATE TABLE weather (day TEXT, rain REAL);"""
SCHEMA = Schema.from_ddl(DDL, "sqlite")


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return AutoTokenizer.from_pretrained(tiny_base)


def test_the_labels_are_the_answer_and_its_end(tokenizer):
    sql = "SELECT name FROM customers WHERE city = 'Oslo'"
    row = tokenize(tokenizer, messages(SCHEMA, "Which customers live in Oslo?"), sql)
    assert tokenizer.decode(row.answer[:-1]) == sql
    assert row.answer[-1] == end_of(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.decode(row.prompt).endswith("<|im_start|>assistant\n")
    assert "CREATE TABLE customers" in tokenizer.decode(row.prompt)


def test_a_query_that_holds_the_end_as_text_is_refused(tokenizer):
    with pytest.raises(ValueError, match="end-of-sequence"):
        tokenize(tokenizer, messages(SCHEMA, "?"), "SELECT '<|im_end|>'")


def test_labels_that_are_not_the_answer_and_its_end_are_refused(tokenizer, tiny_base):
    sql = "SELECT name FROM customers"
    row = tokenize(tokenizer, messages(SCHEMA, "Who?"), sql)
    with pytest.raises(ValueError, match="does not end with"):
        check(tokenizer, TokenizedRow(row.prompt, row.answer[:-1]), sql)
    with pytest.raises(ValueError, match="does not reproduce"):
        check(tokenizer, row, "SELECT city FROM customers")
    with pytest.raises(ValueError, match="is empty"):
        check(tokenizer, TokenizedRow(row.prompt, row.answer[-1:]), sql)
    other = AutoTokenizer.from_pretrained(tiny_base)
    other.bos_token = "<|endoftext|>"
    twice = np.concatenate([[other.bos_token_id] * 2, row.prompt]).astype(np.int32)
    with pytest.raises(ValueError, match="2 beginning-of-sequence tokens"):
        check(other, TokenizedRow(twice, row.answer), sql)


def test_a_tokenizer_without_an_end_is_refused(tokenizer, tiny_base):
    other = AutoTokenizer.from_pretrained(tiny_base)
    other.chat_template, other.eos_token = "{{ messages }}", None
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        answer_ids(other, "SELECT 1")


def test_a_template_without_a_system_message_gets_it_in_the_question(tokenizer, tiny_base):
    other = AutoTokenizer.from_pretrained(tiny_base)
    other.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "[INST] {{ messages[0]['content'] }} [/INST]"
    )
    text = rendered(other, messages(SCHEMA, "How many?"))
    assert text.startswith("[INST] You write one SQLite query") and text.endswith("How many? [/INST]")


def test_a_base_model_without_a_template_is_asked_in_plain_text(tokenizer, tiny_base):
    other = AutoTokenizer.from_pretrained(tiny_base)
    other.chat_template = None
    assert rendered(other, messages(SCHEMA, "How many?")).endswith("How many?<|im_end|>\n<|im_start|>assistant\n")
    other.convert_tokens_to_ids = lambda token: None  # no token of turns
    assert rendered(other, messages(SCHEMA, "How many?")).endswith("Question: How many?\n\nSQL:")


def test_questions_of_one_database_share_their_first_tokens(tokenizer):
    first, second = (prompt_ids(tokenizer, messages(SCHEMA, text)) for text in ("How many?", "Who?"))
    shared = common_prefix([first, second])
    assert first[:shared] == second[:shared] and shared < min(len(first), len(second))
    assert "weather" in tokenizer.decode(first[:shared])
    assert common_prefix([first, first]) == len(first) - 1  # something is left to predict from


def test_examples_come_before_the_question_and_name_their_schema_if_it_is_another(tokenizer):
    asked, other = messages(SCHEMA, "How many orders?"), messages(SCHEMA.only(["weather"]), "How much rain?")
    turns = with_examples(asked, [(asked, "SELECT 1"), (other, "SELECT 2")])
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "CREATE TABLE" not in turns[1]["content"] and "CREATE TABLE weather" in turns[3]["content"]
    assert turns[-1]["content"] == "How many orders?"


def test_the_tables_that_a_question_names_are_kept_longest():
    assert by_relevance(SCHEMA, "What is the total of each customer's orders?")[-1] == "weather"
    assert by_relevance(SCHEMA, "How much rain fell?")[0] == "weather"
    kept = prune(SCHEMA, "total of orders", lambda schema: len(schema.tables) <= 2)
    assert {table.name for table in kept.tables} == {"orders", "customers"}  # to which orders refer
    assert prune(SCHEMA, "anything", lambda schema: True) is SCHEMA
    assert prune(SCHEMA, "anything", lambda schema: False) is None


def test_names_are_compared_by_their_words():
    assert words("customerNames") == words("customer_name") == {"customer", "name"}
    assert "the" not in words("the cities") and "city" in words("the cities")


def test_prompts_are_the_same_in_every_process(tokenizer):
    ids = np.array(prompt_ids(tokenizer, messages(SCHEMA, "How many?")))
    assert (ids == np.array(prompt_ids(tokenizer, messages(Schema.from_ddl(DDL, "sqlite"), "How many?")))).all()
