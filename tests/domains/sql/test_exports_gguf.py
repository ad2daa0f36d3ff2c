"""The GGUF export: llama.cpp reads the files, splits text as the tokenizer does, and answers as the model does."""

import dataclasses
import json

import gguf as format_
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.domains.sql import small_decoders
from training.domains.sql.bases import tiny
from training.domains.sql.bases.folder import base_at
from training.domains.sql.text_to_sql.config import Model, TextToSqlConfig
from training.domains.sql.text_to_sql.exports import gguf, llama_cpp, modelfile, vocabulary
from training.domains.sql.text_to_sql.model import TextToSql
from training.errors import ExportError
from training.export.artefact import prove, write_artefact

TEXTS = (
    "SELECT COUNT(*), name FROM t WHERE x >= 1234567 AND name = 'it''s'\n\n  ORDER BY 2 LIMIT 10;",
    "don't we'LL THEY'VE  naïve café - 日本 42\t\t x\r\n\r\n",
    "<|im_start|>user\nHow many authors were born before 1950?<|im_end|>\n",
)
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
needs_llama_cpp = pytest.mark.skipif(llama_cpp.version() is None, reason="the package xllamacpp is not installed")


def by_pattern(pattern):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )


#: llama.cpp's name -> how tokenizers of that kind split text.
SPLITS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]),
    "llama-bpe": by_pattern(WORDS + r"\p{N}{1,3}" + REST),
    "qwen2": by_pattern(WORDS + r"\p{N}" + REST),
}


def tokenizer_with(split, texts=TEXTS * 2, **keys):
    raw = Tokenizer(models.BPE(ignore_merges=keys.pop("ignore_merges", False)))
    raw.normalizer = keys.pop("normalizer", None)
    raw.pre_tokenizer, raw.decoder = split, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(tiny.SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    raw.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = tiny.TEMPLATE
    return made


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A model with adapters, and its settings."""
    base = tiny.make(tmp_path_factory.mktemp("tiny"), [*TEXTS, "SELECT title, price FROM books"] * 3)
    settings = TextToSqlConfig(model=Model(base=str(base), dtype="float32", gradient_checkpointing=False))
    torch.manual_seed(0)
    model = TextToSql(base_at(base), settings).eval().requires_grad_(False)
    for name, value in model.named_parameters():
        if value.ndim > 1:  # random weights, so large that answers are not decided by rounding
            value.normal_(0, 0.02) if ".lora_B" in name else value.mul_(6)
    return model, settings


@pytest.fixture(scope="module")
def written(tuned, tmp_path_factory):
    """(artefact, its folder, `about` as it is read from a receipt, with four golden prompts)"""
    (artefact,) = gguf.artefacts(*tuned)
    path = tmp_path_factory.mktemp("written") / artefact.name
    write_artefact(artefact, path)
    about = json.loads(json.dumps(artefact.about))
    return artefact, path, about | {key: about[key][:4] for key in ("prompts", "answers", "texts")}


def proved(path, about):
    return prove("gguf", {"gguf": gguf.prove}, "gguf", path, about)


@needs_llama_cpp
def test_llama_cpp_answers_as_the_tuned_model(written):
    _, path, about = written
    found = proved(path, about)
    assert found["run"].startswith("by llama.cpp")
    assert found["prompt_ids_equal"]
    assert found["f16_same_next_tokens"] >= 0.98
    assert found["q8_0_same_next_tokens"] >= 0.9


@needs_llama_cpp
def test_weights_in_the_order_of_transformers_are_noticed(tuned, written, tmp_path, monkeypatch):
    artefact, _, about = written
    monkeypatch.setattr(gguf, "_reordered", lambda name, value, config: value.detach().float().numpy())
    write_artefact(artefact, tmp_path / "gguf")
    with pytest.raises(ExportError, match=r"model-f16.gguf: llama.cpp gives 0 of 4 golden answers"):
        proved(tmp_path / "gguf", about)


def test_without_llama_cpp_the_proof_says_so(written, monkeypatch):
    monkeypatch.setattr(llama_cpp, "version", lambda: None)
    _, path, about = written
    assert proved(path, about) == {
        "run": "not run: the package xllamacpp is not installed; read back by the package gguf"
    }


def test_a_vocabulary_with_exchanged_tokens_is_noticed_without_llama_cpp(tuned, written, tmp_path):
    model, _ = tuned
    known = vocabulary.vocabulary_of(model.tokenizer, model.lm.config.vocab_size)
    used = written[2]["prompts"][0][5:7]
    tokens = list(known.tokens)
    tokens[used[0]], tokens[used[1]] = tokens[used[1]], tokens[used[0]]
    assert tokens != list(known.tokens)
    wrong = dataclasses.replace(known, tokens=tuple(tokens))
    gguf.write_gguf(tmp_path / "x.gguf", model.lm.config, gguf.merged_state(model), wrong, gguf.F16)
    with pytest.raises(ExportError, match="does not spell the golden prompts"):
        gguf.read_back(tmp_path / "x.gguf", written[2])


def test_a_file_that_was_cut_is_refused(written, tmp_path):
    content = (written[1] / "model-f16.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match=r"cut.gguf cannot be read"):
        gguf.read_back(tmp_path / "cut.gguf", written[2])


def test_a_modelfile_with_another_prompt_is_refused(written, tmp_path):
    _, path, about = written
    with pytest.raises(ExportError, match="another prompt than that of training"):
        gguf.prove(path, {**about, "rendered": about["rendered"].replace("<|im_start|>user", "<|im_start|>human")})


def test_the_same_model_gives_the_same_bytes(written, tmp_path):
    artefact, path, _ = written
    write_artefact(artefact, tmp_path / "gguf")
    for name in (*gguf.FILES, gguf.MODELFILE):
        assert (tmp_path / "gguf" / name).read_bytes() == (path / name).read_bytes()


def test_a_weight_that_float16_cannot_hold_is_refused(tuned, tmp_path):
    model, _ = tuned
    state = dict(gguf.merged_state(model))
    state["model.layers.1.mlp.up_proj.weight"] = state["model.layers.1.mlp.up_proj.weight"] * 1e6
    known = vocabulary.vocabulary_of(model.tokenizer, model.lm.config.vocab_size)
    with pytest.raises(ExportError, match=r"blk.1.ffn_up.weight: its largest weight"):
        gguf.write_gguf(tmp_path / "x.gguf", model.lm.config, state, known, gguf.F16)


def test_q8_0_is_half_of_float16_and_close_to_it(written):
    readers = [format_.GGUFReader(written[1] / name) for name in gguf.FILES]
    wanted, found = ({t.name: t for t in reader.tensors}["blk.0.ffn_up.weight"] for reader in readers)
    assert found.n_bytes < 0.54 * wanted.n_bytes
    numbers = format_.quants.dequantize(found.data, found.tensor_type)
    assert np.abs(numbers - wanted.data.astype(np.float32)).max() < np.abs(wanted.data).max() / 120


@needs_llama_cpp
@pytest.mark.parametrize("kind", tuple(small_decoders.KINDS))
def test_every_architecture_continues_in_llama_cpp_as_in_transformers(kind, tmp_path):
    tokenizer = tokenizer_with(SPLITS["gpt-2"])
    model = small_decoders.model(kind, vocabulary=512)  # more rows than tokens
    known = vocabulary.vocabulary_of(tokenizer, 512)
    gguf.write_gguf(tmp_path / "x.gguf", model.config, model.state_dict(), known, gguf.F16)
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    wanted = [
        model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False, eos_token_id=known.end)[0, len(ids) :]
        for ids in prompts
    ]
    ran = llama_cpp.run(tmp_path / "x.gguf", TEXTS, prompts, [ids.tolist() for ids in wanted], threads=1)
    assert ran.ids == prompts
    assert ran.same_next >= 0.97 * sum(map(len, wanted))


@needs_llama_cpp
@pytest.mark.parametrize("name", tuple(SPLITS))
def test_llama_cpp_gives_the_ids_of_the_tokenizer(name, tmp_path):
    tokenizer = tokenizer_with(SPLITS[name], ignore_merges=name == "llama-bpe")
    known = vocabulary.vocabulary_of(tokenizer, len(tokenizer))
    assert known.pre == name
    model = small_decoders.model("qwen2", vocabulary=len(tokenizer), num_hidden_layers=1)
    gguf.write_gguf(tmp_path / "x.gguf", model.config, model.state_dict(), known, gguf.F16)
    wanted = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    ran = llama_cpp.run(tmp_path / "x.gguf", TEXTS, [[5]], [[5]], threads=1)
    assert ran.ids == wanted


def test_each_split_has_other_ids():
    """Else the test above could not tell them apart."""
    ids = {tuple(map(tuple, tokenizer_with(split)(list(TEXTS))["input_ids"])) for split in SPLITS.values()}
    assert len(ids) == len(SPLITS)


@pytest.mark.parametrize(
    ("split", "keys", "reason"),
    [
        (pre_tokenizers.Metaspace(), {}, "splits text by Metaspace"),
        (by_pattern(r"\p{L}+|\s+"), {}, "splits text by Split"),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), {}, "splits text by ByteLevel"),
        (SPLITS["gpt-2"], {"normalizer": normalizers.Lowercase()}, "normalises text by Lowercase"),
        (SPLITS["qwen2"], {"ignore_merges": True}, "ignore_merges"),
        (SPLITS["llama-bpe"], {}, "ignore_merges"),
    ],
)
def test_a_tokenizer_that_llama_cpp_may_not_have_is_refused(split, keys, reason):
    with pytest.raises(vocabulary.UnknownTokenizerError, match=reason):
        vocabulary.vocabulary_of(tokenizer_with(split, **keys), 1000)


def test_refused_models_get_no_files_and_a_note(tuned, capsys, monkeypatch):
    model, settings = tuned
    monkeypatch.setitem(model.lm.config.rope_parameters, "rope_type", "dynamic")
    assert gguf.artefacts(model, settings) == []
    assert "NOTE: no GGUF files: the rotary embeddings are scaled by `dynamic`" in capsys.readouterr().out


def test_special_and_unused_tokens_are_marked():
    tokenizer = tokenizer_with(SPLITS["gpt-2"])
    tokenizer.add_tokens(["<plain>"])
    known = vocabulary.vocabulary_of(tokenizer, len(tokenizer) + 3)
    assert known.types[: len(tiny.SPECIAL)] == (vocabulary.CONTROL,) * 3
    assert known.types[-4:] == (vocabulary.USER_DEFINED, *[vocabulary.UNUSED] * 3)
    assert known.tokens[-4] == "<plain>" and len(set(known.tokens)) == len(known.tokens)
    assert (known.end, known.begin, known.padding, known.adds_begin) == (2, 0, 0, False)
    with pytest.raises(vocabulary.UnknownTokenizerError, match="tokens, but the model 100"):
        vocabulary.vocabulary_of(tokenizer, 100)


def test_a_modelfile_leaves_the_beginning_to_ollama_where_the_tokenizer_adds_it():
    tokenizer = tokenizer_with(SPLITS["gpt-2"])
    tokenizer.chat_template = "{{ bos_token }}" + tiny.TEMPLATE
    known = vocabulary.vocabulary_of(tokenizer, len(tokenizer))
    kept = modelfile.modelfile(tokenizer, known, "m.gguf", 64, 16)
    left = modelfile.modelfile(tokenizer, dataclasses.replace(known, adds_begin=True), "m.gguf", 64, 16)
    assert modelfile.prompt_of(kept, "S", "Q").startswith("<|endoftext|><|im_start|>system\nS<|im_end|>")
    assert modelfile.prompt_of(left, "S", "Q").startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ")
    assert 'PARAMETER stop "<|im_end|>"' in kept and "FROM ./m.gguf" in kept
