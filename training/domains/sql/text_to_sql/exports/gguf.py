"""GGUF, for llama.cpp and Ollama: the merged model as float16 and as q8_0, and a Modelfile.

Written with llama.cpp's own package `gguf`. The tensors of `llama` and `mistral` have the rows of their query and key
projections in another order than in transformers: llama.cpp rotates neighbours (2i, 2i + 1), transformers (i, i + d/2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from training import threads
from training.domains.sql.prompting.prompt import rendered
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.domains.sql.text_to_sql.exports import golden, llama_cpp
from training.domains.sql.text_to_sql.exports.decoder import (
    head_width,
    longest,
    plain_frequencies,
    refusal,
    rotary_frequencies,
    tied,
)  # fmt: skip
from training.domains.sql.text_to_sql.exports.merged import merged_state
from training.domains.sql.text_to_sql.exports.modelfile import modelfile, prompt_of
from training.domains.sql.text_to_sql.exports.vocabulary import UnknownTokenizerError, Vocabulary, vocabulary_of
from training.domains.sql.text_to_sql.model import TextToSql
from training.errors import ExportError
from training.graphs import Artefact

NAME, MODELFILE = "gguf", "Modelfile"
F16, Q8_0 = gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0
#: File -> its type, and the share of the golden answers that must be the model's, token by token; or else the share of
#: next tokens along these answers. (A model that is hardly trained has many tokens that are nearly as likely as the
#: first. Rounding exchanges some, and an answer that differs in one token differs in most of those after it.)
FILES = {"model-f16.gguf": (F16, 0.9, 0.98), "model-q8_0.gguf": (Q8_0, 0.5, 0.9)}
_BLOCK = 32  # numbers that share a scale in q8_0
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
_SCALINGS = ("default", "linear", "llama3")


def artefacts(model: TextToSql, settings: TextToSqlConfig, about: Mapping[str, Any] | None = None) -> list[Artefact]:
    """The folder `gguf`; none, with a printed note, of a model that llama.cpp would not run as it was trained. `about`:
    the result of golden.expected, if it has been computed."""
    config = model.lm.config
    try:
        vocabulary = vocabulary_of(model.tokenizer, config.vocab_size)
        reason = refusal(config, settings.model.max_tokens) or _unknown_scaling(config)
    except UnknownTokenizerError as error:
        reason = str(error)
    if reason:
        print(f"  NOTE: no GGUF files: {reason}.")
        return []
    answer = settings.generation.max_new_tokens
    context = min(longest(config), settings.model.max_tokens + answer)
    text = modelfile(model.tokenizer, vocabulary, "model-q8_0.gguf", context, answer)

    def write(path: Path) -> None:
        path.mkdir()
        state = merged_state(model)
        for name, (kind, *_) in FILES.items():
            write_gguf(path / name, config, state, vocabulary, kind)
        (path / MODELFILE).write_text(text, encoding="utf-8")

    known = about or golden.expected(model.lm, model.tokenizer, settings.prompt.samples)
    return [Artefact(NAME, write, NAME, {**known, **_texts(model.tokenizer, known)})]


def _unknown_scaling(config: Any) -> str | None:
    scaling = config.rope_parameters.get("rope_type", "default")
    return None if scaling in _SCALINGS else f"rotary embeddings scaled by `{scaling}` are not written"


def _texts(tokenizer: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the prover needs of the tokenizer: the golden prompts as text, and how two messages become a prompt."""
    texts = [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in about["prompts"]]
    turns = [{"role": "system", "content": "The rules.\n\nThe schema."}, {"role": "user", "content": "A question?"}]
    return {"texts": texts, "turns": [turn["content"] for turn in turns], "rendered": rendered(tokenizer, turns)}


# -- writing -------------------------------------------------------------------------------------------------------


def write_gguf(
    path: Path,
    config: Any,
    state: Mapping[str, torch.Tensor],
    vocabulary: Vocabulary,
    kind: gguf.GGMLQuantizationType,
) -> None:
    """Write one file. Matrices are stored as `kind` (as float16 where q8_0's blocks do not fit), vectors as float32.
    Raises ExportError for a weight that float16 cannot hold."""
    writer = gguf.GGUFWriter(None, _ARCHITECTURES[config.model_type])
    _describe(writer, config, kind)
    _add_vocabulary(writer, vocabulary)
    names = gguf.get_tensor_name_map(writer_architecture(config), config.num_hidden_layers)
    kept = [(_gguf_name(names, name), name, _kind_of(state[name], kind)) for name in _written_names(state)]
    for name, source, stored in kept:
        shape = gguf.quant_shape_to_byte_shape(state[source].shape, stored) if stored == Q8_0 else state[source].shape
        dtype = {F16: np.dtype(np.float16), Q8_0: np.dtype(np.uint8)}.get(stored, np.dtype(np.float32))
        size = int(np.prod(shape)) * dtype.itemsize
        writer.add_tensor_info(name, list(shape), dtype, size, raw_dtype=stored)
    extra = dict(_extra_tensors(config))
    for name, array in extra.items():
        writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, source, stored in kept:  # one at a time: a large model is not held twice
        writer.write_tensor_data(_stored(name, _reordered(source, state[source], config), stored))
    for array in extra.values():
        writer.write_tensor_data(array)
    writer.close()


def writer_architecture(config: Any) -> gguf.MODEL_ARCH:
    return {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[_ARCHITECTURES[config.model_type]]


def _written_names(state: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """llama.cpp uses the token embedding as output layer where there is none."""
    leave_out = "lm_head.weight" if tied(state) else None
    return (name for name in state if name != leave_out)


def _gguf_name(names: gguf.TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ExportError(f"GGUF has no name for the tensor {name}.")
    return found


def _kind_of(value: torch.Tensor, kind: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    if value.ndim < 2:
        return gguf.GGMLQuantizationType.F32
    return F16 if kind == Q8_0 and value.shape[-1] % _BLOCK else kind


def _reordered(name: str, value: torch.Tensor, config: Any) -> np.ndarray:
    """The rows of the query and key projections in llama.cpp's order; qwen2 has that of transformers there too."""
    array = value.detach().float().numpy()
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None or _ARCHITECTURES[config.model_type] != "llama":
        return array
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))


def _stored(name: str, array: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    largest = float(np.abs(array).max())
    most = float(np.finfo(np.float32 if kind == gguf.GGMLQuantizationType.F32 else np.float16).max)
    if not largest <= most:  # also NaN
        raise ExportError(f"{name}: its largest weight is {largest:g}, which GGUF's {kind.name} cannot hold.")
    if kind == F16:
        return array.astype(np.float16)
    return gguf.quants.quantize(array, kind) if kind == Q8_0 else array


def _describe(writer: gguf.GGUFWriter, config: Any, kind: gguf.GGMLQuantizationType) -> None:
    rotary = config.rope_parameters
    types = {F16: gguf.LlamaFileType.MOSTLY_F16, Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0}
    writer.add_type("model")
    writer.add_file_type(types[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(longest(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_width(config))
    writer.add_value_length(head_width(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_width(config))
    writer.add_rope_freq_base(rotary["rope_theta"])
    if rotary.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rotary["factor"])


def _extra_tensors(config: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Llama 3's scaling is stored as a tensor of factors by which the angles are divided."""
    if config.rope_parameters.get("rope_type") == "llama3":
        yield "rope_freqs.weight", (plain_frequencies(config) / rotary_frequencies(config)[0]).float().numpy()


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")  # byte-level BPE of any kind
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    if vocabulary.begin is not None:
        writer.add_bos_token_id(vocabulary.begin)
    writer.add_eos_token_id(vocabulary.end)
    writer.add_eot_token_id(vocabulary.end)
    if vocabulary.padding is not None:
        writer.add_pad_token_id(vocabulary.padding)
    writer.add_add_bos_token(vocabulary.adds_begin)
    writer.add_add_eos_token(False)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


# -- proof ---------------------------------------------------------------------------------------------------------


def prove(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Read both files back, and run them in llama.cpp: the ids of the golden prompts, and the golden answers. Without
    the package xllamacpp the result says that they were not run."""
    made = prompt_of((path / MODELFILE).read_text(encoding="utf-8"), *about["turns"])
    if not about["rendered"].endswith(made):
        raise ExportError(f"{path.name}/{MODELFILE}: its template gives another prompt than that of training.")
    for name in FILES:
        read_back(path / name, about)
    version = llama_cpp.version()
    if version is None:
        return {"run": "not run: the package xllamacpp is not installed; read back by the package gguf"}
    found: dict[str, Any] = {"run": f"by llama.cpp (xllamacpp {version})"}
    for name, (kind, answers, tokens) in FILES.items():
        measured = _measured(path / name, about)
        if measured["same_answers"] < answers * measured["of"] and measured["same_next_tokens"] < tokens:
            raise ExportError(
                f"{name}: llama.cpp gives {measured['same_answers']} of {measured['of']} golden answers and "
                f"{measured['same_next_tokens']:.1%} of their tokens; {answers:.0%} or {tokens:.0%} are required."
            )
        found |= {f"{kind.name.lower()}_{key}": value for key, value in measured.items()}
    return found | {"prompt_ids_equal": True}


def _measured(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The answers of a file in llama.cpp. Raises ExportError if it has other token ids."""
    end, most = about["end"], about["most_tokens"]
    expected = [[*answer, end][:most] for answer in about["answers"]]
    ran = llama_cpp.run(path, about["texts"], about["prompts"], expected, threads.count())
    wrong = [at for at, (a, b) in enumerate(zip(ran.ids, about["prompts"], strict=True)) if a != list(b)]
    if wrong:
        raise ExportError(f"{path.name}: llama.cpp gives other token ids of the golden prompts {wrong}.")
    answers = [answer[: answer.index(end)] if end in answer else answer for answer in ran.answers]
    measured = golden.compare(path.name, about, answers, least=0.0)
    return measured | {"same_next_tokens": ran.same_next / sum(map(len, expected))}


def read_back(path: Path, about: Mapping[str, Any]) -> None:
    """Read a file with the package gguf. Raises ExportError if it is damaged, if a weight is not finite, or if its
    vocabulary does not spell the golden prompts."""
    try:
        reader = gguf.GGUFReader(path)
        tokens = reader.fields["tokenizer.ggml.tokens"]
        spelled = {at: bytes(tokens.parts[tokens.data[at]]).decode() for ids in about["prompts"] for at in ids}
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ExportError(f"{path.name} cannot be read: {type(error).__name__}: {error}") from None
    for tensor in reader.tensors:
        # of q8_0, whose scales are float16 among int8, nothing is read: _stored checked its range
        if tensor.tensor_type != Q8_0 and not np.isfinite(tensor.data).all():
            raise ExportError(f"{path.name}: a weight of {tensor.name} is not finite.")
    for ids, text in zip(about["prompts"], about["texts"], strict=True):
        if _text(spelled[at] for at in ids) != text:
            raise ExportError(f"{path.name}: its vocabulary does not spell the golden prompts.")


def _text(tokens: Iterator[str]) -> str:
    """The text of tokens. Special tokens are text already; theirs consists of characters that stand for themselves."""
    byte_of = {character: byte for byte, character in _byte_alphabet().items()}
    return b"".join(
        bytes(byte_of[c] for c in token) if all(c in byte_of for c in token) else token.encode() for token in tokens
    ).decode("utf-8", "replace")


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's character of each byte: printable ones stand for themselves, others for 256, 257, ..."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + at) for at, byte in enumerate(others)}
