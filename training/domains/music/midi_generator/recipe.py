"""The recipe of the MIDI generator: its implementation of the contract in training/recipe.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.data.rows import select
from training.domains.music import emotion
from training.domains.music.composing.synth import PREVIEW, read_preview, render, write_preview
from training.domains.music.midi import tokens
from training.domains.music.midi.reader import write_midi
from training.domains.music.midi_generator import judging, metrics, steering
from training.domains.music.midi_generator.config import MidiGeneratorConfig
from training.domains.music.midi_generator.data import (
    IGNORED,
    HeldOutWindows,
    Songs,
    TrainingWindows,
    check_emotion,
    openings,
)
from training.domains.music.midi_generator.generate import CLOSING, generate, torch_step
from training.domains.music.midi_generator.graphs import full_graph, step_graph
from training.domains.music.midi_generator.model import MidiGenerator
from training.domains.music.picture import draw_piano_roll
from training.graphs import Graph, Int8Check
from training.judgement import Judgement, verdict
from training.recipe import Batch, Dataset, EvaluationContext, Loss, Stepped, TrainingProgress

if TYPE_CHECKING:
    from training.data.encode import Encoder
    from training.data.manifest import Row

#: Most tokens on which the trained baseline continues from the evaluated model's weights, without the emotion. So its
#: cost is proportional to the model's size.
PLAIN_TOKENS = {"cpu": 300_000, "cuda": 9_000_000}
PLAIN_RATE = 0.3  # factor on the learning rate of a baseline that continues from the model's weights
PROBE_PIECES = 6  # generated for each emotion
INT8_SONGS, INT8_TOKENS = 16, 256


class MidiGeneratorRecipe(Stepped):
    family = "midi_generator"
    title = "MIDI generator"
    manifest = "midi"
    settings_type = MidiGeneratorConfig
    settings: MidiGeneratorConfig

    _loss = staticmethod(metrics.training_loss)

    def accelerate(self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._loss = compiled(metrics.training_loss)

    def encoders(self) -> Mapping[str, Encoder]:
        return {"midi_path": tokens.TOKENS}

    def check_row(self, row: Mapping[str, Any]) -> None:
        check_emotion(row)

    def dataset(self, rows: Sequence[Row], training: bool) -> Dataset:
        settings = self.settings
        least = 2 if settings.training.compile else 1  # torch.compile treats a size of 1 as a constant
        if training:
            return TrainingWindows(rows, settings.model.context, settings.seed, settings.augment, least)
        return HeldOutWindows(rows, settings.model.context, least)

    def fit_constants(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """The styles of the training music of each emotion, with which generated pieces are compared later."""
        return {"styles": steering.styles_of(rows)}

    def build(self, constants: Mapping[str, np.ndarray]) -> MidiGenerator:
        return MidiGenerator(self.settings.model, constants.get("styles"))

    def counts(self, batch: Batch) -> dict[str, float]:
        targets = float((batch["targets"] != IGNORED).sum())
        return {"loss": targets, "accuracy": targets}

    def losses(self, model: torch.nn.Module, batch: Batch, progress: TrainingProgress) -> dict[str, Loss]:
        logits = model(batch["input_ids"], batch["emotion"], batch["documents"])
        settings = self.settings.loss
        loss, right = self._loss(logits, batch["targets"], settings.label_smoothing, settings.tempo)
        return {"loss": Loss(loss), "accuracy": Loss(right.float(), coefficient=0.0)}

    def validate(self, model: torch.nn.Module, batch: Batch) -> dict[str, tuple[torch.Tensor, float]]:
        logits = model(batch["input_ids"], batch["emotion"], batch["documents"])
        return metrics.token_sums(logits, batch["targets"])

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        return metrics.with_perplexities(means)

    def flops(self, model: torch.nn.Module, batch: Batch) -> float:
        """6 per parameter and token, and 12 x layers x width x length per token for the attention (Chowdhery et al.
        2022, PaLM, appendix B). The embedding is a lookup, not a product; the emotion's 8 tokens per song and the rows
        of pitch classes are negligible."""
        settings = self.settings.model
        free = {"emotion", "classes", "head_classes"}
        weights = sum(p.numel() for name, p in model.named_parameters() if not free & set(name.split(".")))
        if not settings.tied_head:
            weights -= tokens.VOCABULARY * settings.width
        length = batch["input_ids"].shape[1]
        return batch["input_ids"].numel() * (6.0 * weights + 12.0 * settings.layers * settings.width * length)

    def evaluate(self, context: EvaluationContext) -> Judgement:
        settings, model = self.settings, context.model
        train = Songs(context.train)
        chosen = np.unique(
            np.linspace(0, len(context.held_out) - 1, min(judging.MOST_SONGS, len(context.held_out))).astype(int)
        )
        windows = HeldOutWindows(select(context.held_out, chosen), settings.model.context)
        plain, trained = self._plain(context)
        found = judging.prediction(model, plain.to(next(model.parameters()).device), train, windows, settings.seed)
        more: dict[str, Any] = {"trained_baselines": {"plain_transformer": trained}}
        known = model.styles.cpu().numpy()
        if (known[2, :, 0] > 0).sum() > 1:
            made, real, forbidden = self._written(model, known, train, windows.songs)
            limit = settings.generation.max_tokens - CLOSING
            found |= judging.writing(made, real, known, settings.seed)
            found |= judging.order(made, forbidden, limit, settings.seed)
            more["shifts"] = judging.shifts(made, known)
        return Judgement(found, verdict(judging.findings(found)), more)

    def _plain(self, context: EvaluationContext) -> tuple[MidiGenerator, dict[str, Any]]:
        """A trained baseline: an equal model that never gets the emotion, and a record of its training. With
        `context.baseline_share` 1 it is trained from the start, for as long as the evaluated model. Otherwise it
        continues from that model's weights for this share of its steps (and on PLAIN_TOKENS or less), which makes it
        stronger: it has been trained longer."""
        settings, update = self.settings, {}
        begin, steps = None, context.steps
        if context.baseline_share < 1:
            begin = context.model.state_dict()
            a_step = settings.data.batch_size * settings.training.grad_accum_steps * settings.model.context
            most = PLAIN_TOKENS[next(context.model.parameters()).device.type] // a_step
            steps = max(1, min(round(context.baseline_share * steps), most))
            update = {"optim": settings.optim.model_copy(update={"lr": settings.optim.lr * PLAIN_RATE})}
        update["augment"] = settings.augment.model_copy(update={"emotion_dropout": 1.0})
        baseline = context.train_baseline(
            type(self)(settings.model_copy(update=update)), "plain_transformer", begin, steps
        )
        details = {
            "steps": steps,
            "of": context.steps,
            "begins": "at the start" if begin is None else "at the model's weights",
        }
        return baseline, details

    def _written(
        self, model: MidiGenerator, known: np.ndarray, train: Songs, held_out: Songs
    ) -> tuple[judging.Written, judging.Written, float]:
        """Pieces generated for every base emotion of the training music; held-out songs with these emotions; and the
        mean probability of forbidden ids."""
        asked = np.repeat(np.flatnonzero(known[2, :, 0]), PROBE_PIECES)
        vectors = steering.request_vectors(asked.tolist(), train)
        settings, forbidden = self.settings, []
        pieces = generate(
            torch_step(model), vectors, settings.generation, settings.model.context, settings.seed, forbidden=forbidden
        )
        label = steering.classes([held_out.emotion(song) for song in range(len(held_out))])
        fit = np.flatnonzero(np.isin(label, asked))
        songs = [np.asarray(train.ids(song)) for song in steering.spread(train)]
        longest = judging.longest_usual(songs)
        made = judging.Written.of(pieces, asked, songs, longest)
        real = judging.Written.of([np.asarray(held_out.ids(song)) for song in fit], label[fit], songs, longest)
        return made, real, float(np.mean(forbidden))

    def samples(self, model: torch.nn.Module, held_out: Sequence[Row], folder: Path, seed: int) -> list[Path]:
        """A piece for each of the six base emotions, with emotion vectors as in held-out songs: <emotion>.mid, .png
        (its piano roll) and .mp3 (its beginning, played by a simple synthesiser)."""
        model.eval()
        folder.mkdir(parents=True, exist_ok=True)
        vectors = steering.request_vectors(range(len(emotion.BASES)), Songs(held_out))
        settings = self.settings
        pieces = generate(torch_step(model), vectors, settings.generation, settings.model.context, seed)
        written = []
        for name, ids in zip(emotion.BASES, pieces, strict=True):
            score = tokens.decode(ids)
            write_midi(score, folder / f"{name}.mid")
            notes = score.seconds()
            draw_piano_roll(notes, folder / f"{name}.png")
            write_preview(folder / f"{name}.mp3", render(notes[notes["onset"] < PREVIEW], seed))
            written += [folder / f"{name}{end}" for end in (".mid", ".png", ".mp3")]
        return written

    def preview(self, path: Path, seconds: float) -> bytes:
        return read_preview(path, seconds)

    def graphs(self, model: torch.nn.Module) -> list[Graph]:
        export, generation = self.settings.export, self.settings.generation
        return [full_graph(model, export, generation), step_graph(model, export, generation)]

    def int8_check(self, held_out: Sequence[Row]) -> Int8Check | None:
        opening = openings(held_out, min(INT8_TOKENS, self.settings.model.context), INT8_SONGS)
        inputs = {key: opening[key] for key in ("input_ids", "emotion")}
        return Int8Check("midi_generator", inputs, {"targets": opening["targets"]})

    @staticmethod
    def grade(outputs: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> dict[str, float]:
        return metrics.grade(outputs["logits"], references["targets"])
