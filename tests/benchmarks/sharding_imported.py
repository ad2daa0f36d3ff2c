"""What each rank of benchmarks/sql/gpu_sharding.py imports: for processes that are forked with it (tests/warm.py)."""

import peft
import transformers.models.llama.modeling_llama

import benchmarks.sql.gpu_sharding
import training.domains.sql.text_to_sql.recipe
from tests.imported import unchanged

__all__ = ["benchmarks", "peft", "training", "transformers", "unchanged"]
