"""Sample clouds for the report: predictions for held-out songs, with their targets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.domains.music.picture import draw_clouds
from training.domains.music.spectocloud.data import Songs, seconds
from training.domains.music.spectocloud.judge import predict

MOST = 6


def write_samples(model: nn.Module, held_out: Songs, folder: Path, seed: int) -> list[Path]:
    """Up to six held-out windows, of songs with emotions as different as possible: `NN_<song>.npy`, the predicted cloud
    as float32 [1200, 10] (x y z, red green blue alpha, size glow depth); `NN_<song>.target.npy`, its target; and a .png
    of both. `clouds.json` has the song, the second and the emotion of each."""
    folder.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    written, listed = [], {}
    for number, index in enumerate(_choose(held_out, seed)):
        item = held_out.item(0, index)
        batch = {key: value.to(device) for key, value in held_out.collate([item]).items()}
        with torch.inference_mode():
            cloud = [part[0].cpu().numpy() for part in predict(model, batch)]
        song, start = held_out.fixed[index]
        name = str(held_out.rows[song].values.get("id", song))
        path = folder / f"{number:02d}_{re.sub(r'[^A-Za-z0-9_-]+', '_', name).strip('_')[-60:]}"
        np.save(path.with_suffix(".npy"), np.concatenate(cloud, -1))
        target = [item[key] for key in ("positions", "colors", "properties")]
        np.save(path.with_suffix(".target.npy"), np.concatenate(target, -1).astype(np.float32))
        felt = [round(float(x), 4) for x in item["emotion"][:3]]
        listed[path.name] = {"song": name, "start": round(seconds(start), 3), "emotion": felt}
        emotion = ", ".join(f"{x:+.1f}" for x in item["emotion"][:3])
        title = f"{name}, {seconds(start):.1f} s, emotion [{emotion}]"
        draw_clouds([target, cloud], path.with_suffix(".png"), ("from its notes", "from its sound"), title)
        written += [path.with_suffix(end) for end in (".npy", ".target.npy", ".png")]
    about = folder / "clouds.json"
    about.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return [*written, about]


def _choose(songs: Songs, seed: int) -> list[int]:
    """One window each of up to MOST songs: the first is drawn with `seed`, each next one is farthest in emotion from
    the previous ones. Ties are broken at random, so that no folder is preferred."""
    rng = np.random.default_rng(seed)
    by_song: dict[int, list[int]] = {}
    for index, (song, _) in enumerate(songs.fixed):
        by_song.setdefault(song, []).append(index)
    mixed = rng.permutation(np.array(list(by_song))).tolist()
    emotions = np.array([songs.rows[song].values["emotion"][:3] for song in mixed])
    order = [int(rng.integers(len(emotions)))]
    while len(order) < min(MOST, len(emotions)):
        away = np.linalg.norm(emotions[:, None] - emotions[order], axis=-1).min(1)
        away[order] = -1
        order.append(int(away.argmax()))
    return [int(rng.choice(by_song[mixed[i]])) for i in order]
