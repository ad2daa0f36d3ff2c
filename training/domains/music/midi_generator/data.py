"""Songs concatenated and cut into windows of equal length: in training no token is padded and none is left out.

The songs' token ids are memory-mapped from the store; a window copies only its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.rows import counts, select, stored
from training.domains.music.midi import tokens
from training.errors import DataError

if TYPE_CHECKING:
    import torch

    from training.data.manifest import Row
    from training.domains.music.midi_generator.config import Augment

EMOTION = 64
MOST_RANGES = 1 << 14  # songs whose pitch range is cached in a process
TEMPO_STEP = math.log(tokens.FASTEST / tokens.SLOWEST) / (tokens.TEMPI - 1)  # between the logarithms of two tempi
IGNORED = -100  # not a target: the first token of another song, or padding
_SHUFFLE, _SONG, _WINDOW = 0, 1, 2  # keys of independent random streams


def emotion_vector(numbers: Sequence[float]) -> np.ndarray:
    """3 numbers (valence, arousal, intensity) or 64 -> f32 [64]; 3 are padded with zeros. All zeros: no emotion."""
    out = np.zeros(EMOTION, np.float32)
    out[: len(numbers)] = numbers
    return out


def instrument_at(ids: np.ndarray, position: int, chunk: int = 4096) -> int:
    """The INSTRUMENT id in force before ids[position], searched backwards; a piano if there is none."""
    for end in range(position, 0, -chunk):
        part = np.asarray(ids[max(0, end - chunk) : end])
        found = np.flatnonzero((part >= tokens.INSTRUMENT) & (part < tokens.TEMPO))
        if len(found):
            return int(part[found[-1]])
    return tokens.INSTRUMENT


def faster(ids: np.ndarray, start: int, end: int, steps: int) -> np.ndarray:
    """ids[start:end] of a song, each of its tempi `steps` of the 225 faster (slower, if negative): i64.

    The second of a tempo's two digits may carry into the first. If the window is cut between them, the digit outside is
    read, too, so that all windows of a song have the same tempi as the complete song.
    """
    before, after = int(start > 0), int(end < len(ids))
    out = np.array(ids[start - before : end + after], np.int64)
    digit = (out >= tokens.TEMPO) & (out < tokens.PAD)
    coarse = np.flatnonzero(digit[:-1] & digit[1:])  # the grammar has exactly two digits in a row
    tempo = (out[coarse] - tokens.TEMPO) * tokens.DIGITS + out[coarse + 1] - tokens.TEMPO
    tempo = np.clip(tempo + steps, 0, tokens.TEMPI - 1)
    out[coarse], out[coarse + 1] = tokens.TEMPO + tempo // tokens.DIGITS, tokens.TEMPO + tempo % tokens.DIGITS
    return out[before : len(out) - after]


@dataclass(frozen=True)
class Variation:
    """The augmentation of one song in one epoch."""

    shift: int  # semitones
    loudness: float  # factor
    emotion: np.ndarray  # f32 [64]
    faster: int  # steps of the 225 tempi


class Songs:
    """The songs of a split: their ids (memory-mapped), lengths and emotions."""

    def __init__(self, rows: Sequence[Row]):
        lengths = counts(rows, "midi_path", "ids")
        written = np.flatnonzero(lengths > 2)  # more than BOS EOS
        if not len(written):
            raise DataError(
                f"None of the {len(rows)} songs holds a note to learn from. Check the MIDI files that the manifest "
                "names, and run `prepare` again."
            )
        self.rows, self.lengths = select(rows, written), lengths[written]
        self._range: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self, song: int) -> np.ndarray:
        return stored(self.rows, song, "midi_path", "ids")

    def emotion(self, song: int) -> np.ndarray:
        return emotion_vector(self.rows[song].values["emotion"])

    def pitch_range(self, song: int) -> tuple[int, int]:
        """Lowest and highest pitch without drums; (127, 0) if there is none, which does not limit a transposition."""
        if song not in self._range:
            if len(self._range) >= MOST_RANGES:
                self._range.clear()
            ids = np.asarray(self.ids(song))
            pitched = ids[(ids < tokens.VELOCITY) & ~tokens.drum_notes(ids)]
            self._range[song] = (int(pitched.min()), int(pitched.max())) if len(pitched) else (127, 0)
        return self._range[song]

    def varied(self, song: int, start: int, end: int, variation: Variation) -> np.ndarray:
        """ids[start:end] of a song, transposed (but for drums), made louder or softer, and faster or slower: i64."""
        ids = faster(self.ids(song), start, end, variation.faster)
        if variation.shift:
            before = instrument_at(self.ids(song), start)
            drums = tokens.drum_notes(np.append(before, ids))[1:]
            pitched = (ids < tokens.VELOCITY) & ~drums
            ids[pitched] += variation.shift
        if variation.loudness != 1.0:
            velocity = (ids >= tokens.VELOCITY) & (ids < tokens.POSITION)
            middle = (ids[velocity] - tokens.VELOCITY) * 4 + 2
            louder = np.clip(np.rint(middle * variation.loudness), 1, 127).astype(np.int64)
            ids[velocity] = tokens.VELOCITY + louder // 4
        return ids


class Windows:
    """The part that both splits share: a sample is a window of packed songs.

    It is {"input_ids" i64 [S], "targets" i64 [S] (IGNORED where there is none), "documents" i64 [S] (which of the
    window's D songs), "emotion" f32 [D, 64]}, S = context.
    """

    def __init__(self, rows: Sequence[Row], context: int, least: int = 1):
        """`least`: lower bound of D, the number of songs per window in a batch."""
        self.songs = Songs(rows)
        self.context, self.least = context, least
        self.total = int(self.songs.lengths.sum())

    @staticmethod
    def sample(pieces: Sequence[np.ndarray], emotions: Sequence[np.ndarray], context: int) -> dict[str, np.ndarray]:
        """Consecutive pieces of songs, context + 1 tokens in all (fewer: padded, and the padding is no target)."""
        ids = np.concatenate(pieces)
        documents = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
        targets = np.where(documents[1:] == documents[:-1], ids[1:], IGNORED)
        missing = context + 1 - len(ids)
        seen = documents[:context]
        return {
            "input_ids": np.pad(ids[: len(ids) - 1], (0, missing), constant_values=tokens.PAD),
            "targets": np.pad(targets, (0, missing), constant_values=IGNORED),
            "documents": np.pad(seen[: len(ids) - 1], (0, missing), mode="edge"),
            "emotion": np.stack(emotions[: int(seen[: len(ids) - 1].max()) + 1]),
        }

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """D is padded to a power of two, so that few different shapes occur."""
        import torch  # here, because `prepare` imports this module and does not need torch

        most = max(self.least, *(len(item["emotion"]) for item in items))
        emotion = np.zeros((len(items), 1 << (most - 1).bit_length(), EMOTION), np.float32)
        for row, item in zip(emotion, items, strict=True):
            row[: len(item["emotion"])] = item["emotion"]
        stacked = {key: np.stack([item[key] for item in items]) for key in ("input_ids", "targets", "documents")}
        return {key: torch.from_numpy(value) for key, value in {**stacked, "emotion": emotion}.items()}


class TrainingWindows(Windows):
    """In every epoch, the songs are concatenated to a ring in a new order and cut from a new phase. Every token is in
    one window, or in two as their common border.

    Variations are drawn per song and epoch, so that all windows of a song agree; emotion dropout, per sample.
    """

    def __init__(self, rows: Sequence[Row], context: int, seed: int, augment: Augment, least: int = 1):
        super().__init__(rows, context, least)
        self.seed, self.augment = seed, augment
        self._plan: tuple[int, np.ndarray, np.ndarray, int] | None = None

    def __len__(self) -> int:
        return math.ceil(self.total / self.context)

    def plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray, int]:
        """(order of the songs, where each ends on the ring, phase): a function of the epoch, cached for one epoch."""
        if self._plan is None or self._plan[0] != epoch:
            random = np.random.default_rng((self.seed, _SHUFFLE, epoch))
            order = random.permutation(len(self.songs))
            ends = np.cumsum(self.songs.lengths[order])
            self._plan = (epoch, order, ends, int(random.integers(self.total)))
        return self._plan[1:]

    def variation(self, epoch: int, song: int) -> Variation:
        augment = self.augment
        random = np.random.default_rng((self.seed, _SONG, epoch, song))
        shift = int(random.integers(-augment.transpose, augment.transpose + 1))
        loudness = float(random.uniform(1 - augment.velocity, 1 + augment.velocity))
        emotion = self.songs.emotion(song)
        given = len(self.songs.rows[song].values["emotion"])
        if emotion.any():
            emotion[:given] += random.normal(0, 1, given).astype(np.float32) * augment.emotion_noise
            if given == 3:
                emotion[:3] = np.clip(emotion[:3], (-1, -1, 0), (1, 1, 1))
        if shift:
            low, high = self.songs.pitch_range(song)
            shift = max(-low, min(127 - high, shift))
        steps = round(math.log1p(augment.tempo) / TEMPO_STEP)  # symmetric: up to 1.1 times as fast or as slow
        return Variation(shift, loudness, emotion, int(random.integers(-steps, steps + 1)))

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        order, ends, phase = self.plan(epoch)
        at, wanted = (phase + index * self.context) % self.total, self.context + 1
        place = int(np.searchsorted(ends, at, side="right"))
        pieces, emotions = [], []
        while wanted:
            song = int(order[place])
            begin = int(ends[place] - self.songs.lengths[song])
            taken = min(wanted, int(ends[place]) - at)
            variation = self.variation(epoch, song)
            pieces.append(self.songs.varied(song, at - begin, at - begin + taken, variation))
            emotions.append(variation.emotion)
            at, wanted = (at + taken) % self.total, wanted - taken
            place = (place + 1) % len(order)
        random = np.random.default_rng((self.seed, _WINDOW, epoch, index))
        if random.random() < self.augment.emotion_dropout:
            emotions = [np.zeros_like(emotion) for emotion in emotions]
        return self.sample(pieces, emotions, self.context)


class HeldOutWindows(Windows):
    """The songs as they are, in the manifest's order; every token but each song's first is a target exactly once."""

    def __init__(self, rows: Sequence[Row], context: int, least: int = 1):
        super().__init__(rows, context, least)
        self.ends = np.cumsum(self.songs.lengths)

    def __len__(self) -> int:
        return math.ceil((self.total - 1) / self.context)

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        at = index * self.context
        end = min(at + self.context + 1, self.total)
        pieces, emotions = [], []
        while at < end:
            song = int(np.searchsorted(self.ends, at, side="right"))
            begin = int(self.ends[song] - self.songs.lengths[song])
            upto = min(end, int(self.ends[song]))
            pieces.append(np.array(self.songs.ids(song)[at - begin : upto - begin], np.int64))
            emotions.append(self.songs.emotion(song))
            at = upto
        return self.sample(pieces, emotions, self.context)


def openings(rows: Sequence[Row], length: int, most: int) -> dict[str, np.ndarray]:
    """The beginnings of up to `most` songs, one per row, in the form of an exported graph's inputs.

    {"input_ids" i64 [B, length], "targets" i64 [B, length] (IGNORED on padding), "emotion" f32 [B, 64]}.
    """
    songs = Songs(rows)
    spread = np.unique(np.linspace(0, len(songs) - 1, min(most, len(songs))).round().astype(int))
    samples = [
        Windows.sample([np.array(songs.ids(song)[: length + 1], np.int64)], [songs.emotion(song)], length)
        for song in spread
    ]
    out = {key: np.stack([sample[key] for sample in samples]) for key in ("input_ids", "targets")}
    return {**out, "emotion": np.stack([sample["emotion"][0] for sample in samples])}


def check_emotion(row: Mapping[str, Any]) -> None:
    """Raises ValueError unless the row's emotion is 3 numbers in their ranges, or 64."""
    numbers = row.get("emotion")
    if not isinstance(numbers, list | tuple) or len(numbers) not in (3, EMOTION):
        raise ValueError(f"`emotion` must be 3 numbers (valence, arousal, intensity) or {EMOTION}; it is {numbers!r}")
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not np.isfinite(x) for x in numbers):
        raise ValueError(f"`emotion` must hold finite numbers only; it is {numbers!r}")
    if len(numbers) == 3 and not (abs(numbers[0]) <= 1 and abs(numbers[1]) <= 1 and 0 <= numbers[2] <= 1):
        raise ValueError(f"`emotion` is outside valence and arousal [-1, 1], intensity [0, 1]: {numbers!r}")
