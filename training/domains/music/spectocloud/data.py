"""The dataset: windows of songs, for training and validation.

Every epoch draws other windows of each song, one from each of `per_song` equal parts. A window begins on a hop frame;
its target is rendered from the notes that sound in it, at the times that the row's time map gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.index import cached
from training.data.rows import Row, counts, select, stored
from training.domains.music.alignment.timemap import mapped_notes
from training.domains.music.audio import HOP, N_MELS, SAMPLE_RATE, WINDOW_FRAMES
from training.domains.music.clouds.cloud import PARTICLES, SUBFRAMES, render
from training.domains.music.clouds.features import midi_features
from training.domains.music.rows import TIME_MAP
from training.domains.music.spectocloud.config import Augment, Windows
from training.domains.music.spectocloud.sound import LOG_FLOOR, at_gain, transposed
from training.errors import DataError

FRAMES_PER_SUBFRAME = WINDOW_FRAMES // SUBFRAMES
EMOTION = 64


def check_row(row: Mapping[str, Any]) -> None:
    """Raise ValueError for an invalid target cloud."""
    if "target_pointcloud_path" in row:
        read_target(Path(row["target_pointcloud_path"]))


def read_target(path: Path) -> np.ndarray:
    """Positions float32 [1200, 3] from a .npy file. Raises ValueError, with the reason, for any other content."""
    try:
        # Mapped, so that a header that claims terabytes allocates nothing.
        positions = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise ValueError(f"`target_pointcloud_path` {path} is not a readable .npy file: {error}") from None
    if positions.shape != (PARTICLES, 3) or positions.dtype != np.float32:
        found = f"{positions.dtype} {list(positions.shape)}"
        raise ValueError(f"`target_pointcloud_path` {path} must hold float32 [{PARTICLES}, 3], not {found}")
    if not np.isfinite(positions).all():
        raise ValueError(f"`target_pointcloud_path` {path} holds numbers that are not finite")
    return np.array(positions)


def target_start(row: Mapping[str, Any]) -> int:
    """The hop frame at which a row's precomputed cloud begins: `target_pointcloud_start` in seconds, 0 by default."""
    return round(row.get("target_pointcloud_start", 0.0) * SAMPLE_RATE / HOP)


def seconds(frame: int) -> float:
    """The start of a hop frame, in seconds."""
    return frame * HOP / SAMPLE_RATE


def emotion_vector(emotion: Sequence[float]) -> np.ndarray:
    """3 or 64 numbers -> float32 [64]; 3 are padded with zeros."""
    vector = np.zeros(EMOTION, np.float32)
    vector[: len(emotion)] = emotion
    return vector


def window_starts(notes: np.ndarray, frames: int, min_sounding: float) -> np.ndarray:
    """The frames at which a window may begin in a song of `frames` frames: those with a note in a share `min_sounding`
    of the sub-frames or more; if there are none, those with a note in any; if there are none either, all. Ascending,
    never empty. Drums sound only where they are struck."""
    last = max(0, frames - WINDOW_FRAMES)
    span = last + WINDOW_FRAMES
    rate = SAMPLE_RATE / HOP
    begin = np.floor(notes["onset"] * rate).astype(np.int64)
    end = np.ceil((notes["onset"] + notes["duration"]) * rate).astype(np.int64)
    end = np.maximum(np.where(notes["drum"], begin + 1, end), begin + 1)
    begin, end = np.clip(begin, 0, span), np.clip(end, 0, span)
    change = np.bincount(begin, minlength=span + 1) - np.bincount(end, minlength=span + 1)
    so_far = np.concatenate([[0], np.cumsum(np.cumsum(change[:-1]) > 0)])
    subframe = so_far[FRAMES_PER_SUBFRAME:] > so_far[:-FRAMES_PER_SUBFRAME]  # [s]: a note in frames s .. s + 7
    starts = np.arange(last + 1)
    sounding = sum(subframe[starts + k * FRAMES_PER_SUBFRAME].astype(np.int64) for k in range(SUBFRAMES))
    for least in (max(1, int(np.ceil(min_sounding * SUBFRAMES))), 1):
        if (sounding >= least).any():
            return np.flatnonzero(sounding >= least)
    return starts


def cut(logmel: np.ndarray, start: int) -> np.ndarray:
    """Frames start .. start + 63 of a stored log-mel [T, 128] as float32, padded with silence past the end. float16 in
    the store rounds the floor down a little; it is restored."""
    part = np.maximum(np.asarray(logmel[start : start + WINDOW_FRAMES], np.float32), np.float32(LOG_FLOOR))
    if len(part) < WINDOW_FRAMES:
        part = np.concatenate([part, np.full((WINDOW_FRAMES - len(part), N_MELS), LOG_FLOOR, np.float32)])
    return part


class Songs:
    """A split. Item: logmel [128, 64] in nats, emotion [64], midi_features [32], the target's positions [1200, 3],
    colors [1200, 4] and properties [1200, 3], sounding [8] (1 where a sub-frame is not silent), all float32; song,
    int64.

    Training (`augment` given): `windows.per_song` items per song, other ones in every epoch. Held out: fixed windows,
    evenly spaced, without augmentation, and with midi_features of zeros unless `score`. The first item of a row with a
    precomputed cloud is that cloud's window, with the positions of the file.
    """

    def __init__(
        self, rows: Sequence[Row], windows: Windows, augment: Augment | None, seed: int, score: bool = False
    ) -> None:
        heard = np.flatnonzero((counts(rows, "midi_path", "notes") > 0) & (counts(rows, "audio_path", "logmel") > 0))
        if not len(heard):
            raise DataError(
                f"None of the {len(rows)} songs has both sound and notes. Check the files that the manifest names, and "
                "run `prepare` again."
            )
        self.rows, self.heard = select(rows, heard), heard
        self.windows, self.augment, self.seed, self.score = windows, augment, seed, score
        self.fixed = None if augment else self._every_fixed()

    def __len__(self) -> int:
        return len(self.rows) * self.windows.per_song if self.fixed is None else len(self.fixed)

    def row_of_each(self) -> np.ndarray:
        """The row of each item, int64 [items]: an index into all rows, those without sound or notes included."""
        items = np.arange(len(self))
        return self.heard[items // self.windows.per_song if self.fixed is None else self.fixed[:, 0]]

    def own(self, song: int) -> int | None:
        """The frame of a row's precomputed cloud; None if it has none."""
        values = self.rows[song].values
        return target_start(values) if "target_pointcloud_path" in values else None

    def _every_fixed(self) -> np.ndarray:
        """(song, frame) of every held-out window: int64 [n, 2]. Cached, because it requires reading complete songs."""
        how = f"held-out windows 1 {self.windows.validation_per_song} {self.windows.min_sounding}"
        return cached(self.rows, how, lambda: np.array([w for s in range(len(self.rows)) for w in self._fixed(s)]))

    def _fixed(self, song: int) -> list[tuple[int, int]]:
        starts = self._starts(song)
        count = self.windows.validation_per_song
        chosen = starts[np.unique((np.arange(count) + 0.5) / count * len(starts)).astype(np.int64)]
        own = [start for start in (self.own(song),) if start is not None]
        return [(song, start) for start in dict.fromkeys([*own, *chosen.tolist()])]

    def _starts(self, song: int) -> np.ndarray:
        return window_starts(self._notes(song), len(self._logmel(song)), self.windows.min_sounding)

    def _notes(self, song: int) -> np.ndarray:
        """In times of the recording."""
        notes, knots = stored(self.rows, song, "midi_path", "notes"), self.rows[song].values.get(TIME_MAP)
        return notes if knots is None else mapped_notes(np.array(knots), notes)

    def _logmel(self, song: int) -> np.ndarray:
        return stored(self.rows, song, "audio_path", "logmel")

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        if self.fixed is not None:
            song, start = self.fixed[index].tolist()
            return self._window(song, start, None)
        rng = np.random.default_rng((self.seed, epoch, index))
        song, stretch = divmod(index, self.windows.per_song)
        if stretch == 0 and (own := self.own(song)) is not None:
            return self._window(song, own, rng)
        starts = self._starts(song)
        start = starts[int((stretch + rng.random()) / self.windows.per_song * len(starts))]
        return self._window(song, int(start), rng)

    def _window(self, song: int, start: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        row = self.rows[song]
        own = self.own(song) == start
        notes, logmel = self._notes(song), cut(self._logmel(song), start)
        emotion, shows_score = emotion_vector(row.values["emotion"]), self.score
        if rng is not None:
            vary = self.augment
            semitones = int(rng.integers(-vary.transpose, vary.transpose + 1))
            gain_db = rng.uniform(-vary.gain_db, vary.gain_db)
            noise = vary.emotion_noise * rng.standard_normal(3)
            shows_score = rng.random() >= vary.no_score
            emotion[:3] = np.clip(emotion[:3] + noise, (-1, -1, 0), 1)
            if not own:  # a precomputed cloud cannot be transposed
                notes, logmel = transposed(notes, logmel, semitones)
            logmel = at_gain(logmel, gain_db)
        cloud = render(notes, seconds(start), emotion)
        positions = cloud.positions
        if own:
            positions = self._given(row)
        features = midi_features(notes, seconds(start)) if shows_score else np.zeros(32, np.float32)
        return {
            "logmel": np.ascontiguousarray(logmel.T, np.float32),
            "emotion": emotion,
            "midi_features": features,
            "positions": positions,
            "colors": cloud.colors,
            "properties": cloud.properties,
            "sounding": (~cloud.lifeline["silent"]).astype(np.float32),
            "song": np.int64(song),
        }

    @staticmethod
    def _given(row: Row) -> np.ndarray:
        try:
            return read_target(Path(row.values["target_pointcloud_path"]))
        except ValueError as error:
            raise DataError(f"{row.place}: {error}") from None

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}
