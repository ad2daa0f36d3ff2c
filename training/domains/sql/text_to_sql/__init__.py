"""The family text_to_sql: a LoRA adapter on a causal language model, judged by executing its answers."""
