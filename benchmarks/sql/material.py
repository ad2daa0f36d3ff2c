"""The material of the comparison with TRL: base models, and the questions of each step, from the SQL domain's demo.

In a case, every step trains on `per_step` bundles of `bundle` questions about one database. Only full bundles are
taken, so that all steps have the same number of questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.domains.sql.bases import demo, tiny
from training.domains.sql.bases.making import made_once
from training.domains.sql.databases.schema import Schema, Table
from training.domains.sql.databases.sqlite import introspect
from training.domains.sql.demo.making import QUESTIONS, demo_questions
from training.domains.sql.prompting.prompt import messages, rendered
from training.domains.sql.prompting.tokens import TokenizedRow, tokenize

SEED = 42
WIDE = 1_000  # tokens of the schema in the second case
SAMPLES = 3  # values shown for each column, as in the presets


@dataclass(frozen=True)
class Asked:
    """A question: the text of its prompt, its SQL, and the token ids of both."""

    prompt: str
    sql: str
    row: TokenizedRow


@dataclass(frozen=True)
class Case:
    """The questions of every step: steps[s] holds `per_step` bundles of `bundle` questions about one database."""

    bundle: int
    per_step: int
    steps: tuple[tuple[tuple[Asked, ...], ...], ...]
    schema_tokens: float  # mean tokens of a schema

    @property
    def questions(self) -> int:
        """Questions a step."""
        return self.bundle * self.per_step

    def asked(self, first: int, count: int) -> list[Asked]:
        """The questions of `count` steps from step `first` on, in order."""
        return [one for step in self.steps[first : first + count] for bundle in step for one in bundle]


@dataclass(frozen=True)
class Questions:
    """Questions of the demo's training split, by database, and the schemas of these databases."""

    rows: dict[str, list[tuple[str, str]]]  # database -> (question, SQL)
    schemas: dict[str, Schema]

    @property
    def texts(self) -> list[str]:
        """Texts to train a tokenizer on."""
        asked = [text for rows in self.rows.values() for row in rows for text in row]
        return asked + [schema.ddl(SAMPLES) for schema in self.schemas.values()]


def demo_material(folder: Path, count: int = QUESTIONS) -> Questions:
    """The demo's `count` training questions; its databases are written to `folder`."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for row in demo_questions(SEED, count, folder)["train"]:
        rows.setdefault(row["db_id"], []).append((row["question"], row["sql"]))
    return Questions(rows, {name: introspect(folder / f"{name}.sqlite") for name in rows})


def demo_case(questions: Questions, tokenizer: Any, bundle: int, per_step: int) -> Case:
    """The demo's questions about its databases."""
    bundles: list[tuple[Asked, ...]] = []
    for name, rows in questions.rows.items():
        asked = [_asked(tokenizer, questions.schemas[name], *row) for row in rows]
        bundles += [tuple(asked[at : at + bundle]) for at in range(0, len(asked) - bundle + 1, bundle)]
    random.Random(SEED).shuffle(bundles)  # as in a training: a step has bundles of several databases
    steps = [tuple(bundles[at : at + per_step]) for at in range(0, len(bundles) - per_step + 1, per_step)]
    lengths = [_length(tokenizer, schema) for schema in questions.schemas.values()]
    return Case(bundle, per_step, tuple(steps), sum(lengths) / len(lengths))


def wide_case(questions: Questions, tokenizer: Any, bundle: int, per_step: int) -> Case:
    """The same questions about databases with more tables, whose schemas are about WIDE tokens long: tables of the
    other databases follow its own."""

    def length(schema: Schema) -> int:
        return _length(tokenizer, schema)

    every = [table for schema in questions.schemas.values() for table in schema.tables]
    schemas = {name: _widened(schema, every, length) for name, schema in questions.schemas.items()}
    return demo_case(replace(questions, schemas=schemas), tokenizer, bundle, per_step)


def _widened(schema: Schema, tables: Sequence[Table], length: Callable[[Schema], int]) -> Schema:
    """`schema` with as many of `tables` as bring it closest to WIDE tokens, but for names that it has already."""
    best = schema
    for table in tables:
        if table.name not in {one.name for one in best.tables}:
            wider = replace(best, tables=(*best.tables, table))
            if abs(length(wider) - WIDE) >= abs(length(best) - WIDE):
                break
            best = wider
    return best


def _asked(tokenizer: Any, schema: Schema, question: str, sql: str) -> Asked:
    prompt = messages(schema, question, samples=SAMPLES)
    return Asked(rendered(tokenizer, prompt), sql, tokenize(tokenizer, prompt, sql))


def _length(tokenizer: Any, schema: Schema) -> int:
    return len(tokenizer(schema.ddl(SAMPLES), add_special_tokens=False)["input_ids"])


#: Name -> (questions, tokenizer, questions a bundle, bundles a step) -> the case.
CASES: dict[str, Callable[[Questions, Any, int, int], Case]] = {"demo": demo_case, "wide": wide_case}

# -- bases -----------------------------------------------------------------------------------------------------------


def small_base(cache: Path, texts: Sequence[str]) -> Path:
    """A random Llama of about 5 million parameters, in the folder that is returned; its tokenizer is the one of the
    domain's tiny base, trained on `texts`. It is made once."""
    source = tiny.make(cache, texts)

    def make(folder: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

        config = AutoConfig.from_pretrained(source)
        config.update(
            {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 64}
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model = LlamaForCausalLM(config)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)

    return made_once(source.with_name(f"{source.name}-5m"), make)


#: Name -> (folder for what is made, texts) -> the base's folder.
BASES: dict[str, Callable[[Path, Sequence[str]], Path]] = {
    "tiny": tiny.make,
    "small": small_base,
    "demo": lambda cache, _: demo.make(cache, lambda line: None),
}
