"""The MIDI generator, as the engine, the judges and the exporter see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.models.midi_generator import metrics, steering
from training.models.midi_generator.config import MidiGeneratorConfig
from training.models.midi_generator.data import (
    IGNORED,
    HeldOutWindows,
    Songs,
    TrainingWindows,
    check_emotion,
    emotion_vector,
    openings,
)
from training.models.midi_generator.generate import generate, torch_step
from training.models.midi_generator.graphs import full_graph, step_graph
from training.models.midi_generator.model import MidiGenerator
from training.models.midi_generator.ngram import NGram
from training.music import emotion
from training.music.composing.synth import PREVIEW, render, write_preview
from training.music.midi import tokens
from training.music.midi.reader import write_midi
from training.music.picture import draw_piano_roll
from training.recipe import Batch, Exam, Examples, Graph, Loss, Moment, Recipe

if TYPE_CHECKING:
    from training.data.encode import Encoder
    from training.data.manifest import Row

BASELINE_TOKENS = 4_000_000  # of the training songs; sorting five orders of them takes seconds and 500 MB
PROBE_SONGS = 48
PROBE_PIECES = 6  # generated for each emotion
EXAM_SONGS, EXAM_TOKENS = 16, 256


class MidiGeneratorRecipe(Recipe):
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

    def examples(self, rows: Sequence[Row], training: bool) -> Examples:
        settings = self.settings
        least = 2 if settings.training.compile else 1  # a compiler takes a size of 1 for a constant
        if training:
            return TrainingWindows(rows, settings.model.context, settings.seed, settings.augment, least)
        return HeldOutWindows(rows, settings.model.context, least)

    def fit_constants(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """What the training music of each emotion is like, to judge by it later what the model writes for them."""
        return {"styles": steering.styles(Songs(rows))}

    def build(self, constants: Mapping[str, np.ndarray]) -> MidiGenerator:
        return MidiGenerator(self.settings.model, constants.get("styles"))

    def counts(self, batch: Batch) -> dict[str, float]:
        targets = float((batch["targets"] != IGNORED).sum())
        return {"loss": targets, "accuracy": targets}

    def losses(self, model: torch.nn.Module, batch: Batch, moment: Moment) -> dict[str, Loss]:
        logits = model(batch["input_ids"], batch["emotion"], batch["documents"])
        loss, right = self._loss(logits, batch["targets"], self.settings.loss.label_smoothing)
        return {"loss": Loss(loss), "accuracy": Loss(right.float(), coefficient=0.0)}

    def validate(self, model: torch.nn.Module, batch: Batch) -> dict[str, tuple[torch.Tensor, float]]:
        logits = model(batch["input_ids"], batch["emotion"], batch["documents"])
        return metrics.token_sums(logits, batch["targets"])

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        return metrics.with_perplexities(means)

    def flops(self, model: torch.nn.Module, batch: Batch) -> float:
        """6 a weight and token, and 12 layers x width x length a token for the attention (Chowdhery et al. 2022, PaLM,
        appendix B). The embedding is looked up, not multiplied; the emotion's 8 tokens a song count for nothing."""
        settings = self.settings.model
        weights = sum(p.numel() for name, p in model.named_parameters() if "emotion." not in name)
        if not settings.tied_head:
            weights -= tokens.VOCABULARY * settings.width
        length = batch["input_ids"].shape[1]
        return batch["input_ids"].numel() * (6.0 * weights + 12.0 * settings.layers * settings.width * length)

    def baselines(self, train: Sequence[Row], held_out: Sequence[Row]) -> dict[str, dict[str, float]]:
        """Frequencies of single ids, of pairs, and an interpolated Kneser-Ney 5-gram, on validation's own targets."""
        known, budget = [], BASELINE_TOKENS
        for song in range(len(songs := Songs(train))):
            known.append(np.asarray(songs.ids(song))[: max(0, budget)])
            budget -= len(known[-1])
            if budget <= 0:
                break
        judged = Songs(held_out)
        out = {}
        for name, order in (("unigram", 1), ("bigram", 2), ("kneser_ney_5gram", 5)):
            ngram = NGram(known, order)
            ids = [np.asarray(judged.ids(song)) for song in range(len(judged))]
            nats = np.concatenate([-np.log(ngram.probabilities(one)[1:]) for one in ids])
            out[name] = metrics.with_perplexities(metrics.mean_losses(nats, np.concatenate([one[1:] for one in ids])))
        return out

    @torch.no_grad()
    def probe(self, model: torch.nn.Module, held_out: Sequence[Row]) -> dict[str, float]:
        """What the emotion is worth: loss over the beginnings of held-out songs told their own emotion, told the
        farthest emotion that any of the others has, and told none; and whether it steers what is written."""
        model.eval()
        device = next(model.parameters()).device
        opening = openings(held_out, self.settings.model.context, PROBE_SONGS)
        own = opening["emotion"]
        distance = np.linalg.norm(own[:, None] - own[None], axis=-1)
        told = {"own": own, "swapped": own[distance.argmax(axis=1)], "untold": np.zeros_like(own)}
        sums = dict.fromkeys(told, 0.0)
        for start in range(0, len(own), 8):
            some = slice(start, start + 8)
            ids, targets = (torch.from_numpy(opening[key][some]).to(device) for key in ("input_ids", "targets"))
            for name, vectors in told.items():
                logits = model(ids, torch.from_numpy(vectors[some]).to(device))
                loss, _ = metrics.training_loss(logits, targets, 0.0)
                sums[name] += float(loss)
        count = int((opening["targets"] != IGNORED).sum())
        out = {f"{name}_emotion_loss": total / count for name, total in sums.items()}
        out["emotion_gain"] = out["swapped_emotion_loss"] - out["own_emotion_loss"]
        return out | self._steering(model)

    def _steering(self, model: MidiGenerator) -> dict[str, float]:
        """Pieces are written for every base emotion that the training music had, and judged (steering.py)."""
        known = model.styles.cpu().numpy()
        bases = np.flatnonzero(known[2, :, 0])
        if len(bases) < 2:
            return {}
        asked = np.repeat(bases, PROBE_PIECES)
        vectors = np.stack([emotion_vector(emotion.vector(emotion.BASES[base])) for base in asked])
        settings = self.settings
        pieces = generate(torch_step(model), vectors, settings.generation, settings.model.context, settings.seed)
        return steering.judge(pieces, asked, known)

    def samples(self, model: torch.nn.Module, held_out: Sequence[Row], folder: Path, seed: int) -> list[Path]:
        """A piece for each of the six base emotions: <emotion>.mid, .png, its piano roll, and .mp3, its beginning as a
        simple synthesiser plays it."""
        model.eval()
        folder.mkdir(parents=True, exist_ok=True)
        vectors = np.stack([emotion_vector(emotion.vector(name)) for name in emotion.BASES])
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

    def graphs(self, model: torch.nn.Module) -> list[Graph]:
        export = self.settings.export
        return [full_graph(model, export), step_graph(model, export)]

    def exam(self, held_out: Sequence[Row]) -> Exam | None:
        opening = openings(held_out, min(EXAM_TOKENS, self.settings.model.context), EXAM_SONGS)
        inputs = {key: opening[key] for key in ("input_ids", "emotion")}
        return Exam("midi_generator", inputs, {"targets": opening["targets"]})

    @staticmethod
    def grade(outputs: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> dict[str, float]:
        return metrics.grade(outputs["logits"], references["targets"])
