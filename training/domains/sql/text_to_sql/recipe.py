"""The recipe of the family: its implementation of the contract in training/recipe.py."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from training.data.rows import select
from training.domains.sql.bases import origin
from training.domains.sql.bases.folder import base_at, tokenizer_of
from training.domains.sql.bases.quantized import compute_in, parameter_count
from training.domains.sql.databases.sqlite import DATABASE
from training.domains.sql.text_to_sql import judging
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.domains.sql.text_to_sql.data import IGNORED, Bundles
from training.domains.sql.text_to_sql.exports import adapter, gguf, golden, merged, onnx
from training.domains.sql.text_to_sql.model import TextToSql, adapter_names
from training.domains.sql.text_to_sql.predictors import Predictors
from training.domains.sql.text_to_sql.rows import questions_of
from training.graphs import Artefact, Graph
from training.judgement import Judgement, verdict
from training.pretrained import Base
from training.recipe import Batch, Dataset, DtypePolicy, EvaluationContext, Loss, Room, Stepped, TrainingProgress
from training.report.measures import ROWS

if TYPE_CHECKING:
    from training.data.encode import Encoder
    from training.data.rows import Row

INPUTS = ("tokens", "positions", "segments", "labels")


class TextToSqlRecipe(Stepped):
    family = "text_to_sql"
    title = "Text-to-SQL"
    manifest = "text_to_sql"
    settings_type = TextToSqlConfig
    settings: TextToSqlConfig

    @property
    def dtype_policy(self) -> DtypePolicy:  # type: ignore[override]  by the base's dtype
        policies: dict[str, DtypePolicy] = {"bfloat16": "bfloat16_base", "float16": "float16_base"}
        return policies.get(self.settings.model.dtype, "autocast")

    @property
    def parallel(self) -> Literal["ddp", "fsdp"]:  # type: ignore[override]  by the settings
        return self.settings.model.parallel

    def blocks(self, model: torch.nn.Module) -> Sequence[torch.nn.Module]:
        return model.lm.model.layers

    def encoders(self) -> Mapping[str, Encoder]:
        return {"database_path": DATABASE}

    def dataset(self, rows: Sequence[Row], training: bool) -> Dataset:
        settings = self.settings
        questions = questions_of(rows, tokenizer_of(base_at(settings.model.base)), settings)
        return Bundles(questions, settings.prompt.bundle, settings.seed if training else None)

    def build(self, constants: Mapping[str, np.ndarray]) -> TextToSql:
        return TextToSql(base_at(self.settings.model.base), self.settings)

    def saved(self, model: torch.nn.Module) -> Collection[str]:
        return adapter_names(model)

    def room(self, model: torch.nn.Module) -> Room:
        """Exports: bytes a parameter of the merged model, of the GGUF files, and of the ONNX file."""
        weights = parameter_count(model)
        sizes = {"merged": 2, "gguf": 3, "onnx": 4}
        return Room(exports=weights * sum(sizes[name] for name in self.settings.export.formats))

    # steps

    def counts(self, batch: Batch) -> dict[str, float]:
        labels = float((batch["labels"] != IGNORED).sum())
        return {"loss": labels, "accuracy": labels}

    def losses(self, model: torch.nn.Module, batch: Batch, progress: TrainingProgress) -> dict[str, Loss]:
        loss, right = model(*(batch[name] for name in INPUTS))
        return {"loss": Loss(loss.sum()), "accuracy": Loss(right.float().sum(), coefficient=0.0)}

    def validate(self, model: torch.nn.Module, batch: Batch) -> dict[str, tuple[torch.Tensor, float]]:
        loss, right = model(*(batch[name] for name in INPUTS))
        count = float(len(loss))
        return {"val_loss": (loss.sum(), count), "val_accuracy": (right.float().sum(), count)}

    def appraise(
        self, model: torch.nn.Module, rows: Sequence[Row], seconds: float
    ) -> dict[str, tuple[torch.Tensor, float]]:
        """`exec`: the share of questions, in per cent, whose answer gives the right rows on the database itself, or is
        the right query where there is no database."""
        ends = time.monotonic() + seconds
        right = count = 0
        size = self.settings.generation.batch_size
        for at in range(0, len(rows), size):
            part = rows[at : at + size]
            outcomes = self._outcomes(model, part, 0)
            found = [outcome.right if outcome.exec is None else outcome.exec for outcome in outcomes]
            right += sum(bool(one) for one in found)
            count += sum(one is not None for one in found)
            if time.monotonic() > ends:
                break
        return {"exec": (torch.tensor(100.0 * right), float(count))}

    def _outcomes(self, model: Any, rows: Sequence[Row], copies: int) -> list[judging.Outcome]:
        settings = self.settings
        answers = Predictors(model, settings, (), rows).tuned()
        with judging.Judge(rows, Path(), copies, settings.judging.seconds, settings.seed) as judge:
            return judge.judge(answers)

    # evaluation

    def evaluate(self, context: EvaluationContext) -> Judgement:
        settings, held_out = self.settings, context.held_out
        most = min(settings.judging.most, len(held_out))
        chosen = select(held_out, np.unique(np.linspace(0, len(held_out) - 1, most).astype(int)))
        answers = Predictors(context.model, settings, context.train, chosen).every()
        rules = settings.judging
        with (
            tempfile.TemporaryDirectory() as place,
            judging.Judge(chosen, Path(place), rules.copies, rules.seconds, settings.seed) as judge,
        ):
            outcomes = {name: judge.judge(found) for name, found in answers.items()}
        known = {row.values["database"] for row in context.train}
        metrics = judging.metrics_of(outcomes, chosen, known, settings.seed)
        word = verdict(judging.findings(metrics))
        judged = {"train": len(context.train), "held_out": len(chosen)}
        return Judgement(metrics, word, {"sql": judging.tables(outcomes, chosen), ROWS: judged})

    # exports

    def base(self) -> Base:
        return origin.about(base_at(self.settings.model.base).path)

    def weights(self, model: torch.nn.Module) -> None:
        """None: the adapter and the merged model have their own formats."""

    def graphs(self, model: TextToSql) -> list[Graph]:
        return onnx.graphs(model, self.settings) if "onnx" in self.settings.export.formats else []

    def artefacts(self, model: TextToSql) -> list[Artefact]:
        settings = self.settings
        compute_in(model, torch.float32)  # as the files do that it is compared with
        about = golden.expected(model.lm, model.tokenizer, settings.prompt.samples)
        found = [adapter.artefact(model, settings, about)]
        if "merged" in settings.export.formats:
            found.append(merged.artefact(model, about))
        return found + (gguf.artefacts(model, settings, about) if "gguf" in settings.export.formats else [])


TextToSqlRecipe.provers = {"adapter": adapter.prove, "merged": merged.prove, "gguf": gguf.prove}
