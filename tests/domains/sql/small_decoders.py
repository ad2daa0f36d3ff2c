"""Small random language models of the architectures that are exported. Their weights are large, so that the most likely
token is clearly the most likely one, as in a trained model."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
#: Name -> (configuration, model, own keys): scaled rotary embeddings and tied weights, a head width that is not
#: width / heads, biases.
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "mistral": (MistralConfig, MistralForCausalLM, {"head_dim": 24, "sliding_window": 1024}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
}


def config(kind, vocabulary=300, **keys):
    form, _, own = KINDS[kind]
    sizes = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "vocab_size": vocabulary,
    }  # fmt: skip
    return form(**{**sizes, **own, **keys})


def model(kind, vocabulary=300, seed=0, **keys):
    torch.manual_seed(seed)
    made = KINDS[kind][1](config(kind, vocabulary, **keys)).eval().requires_grad_(False)
    for name, value in made.named_parameters():
        if "norm" not in name:
            value.normal_(0, 0.3)
    return made
