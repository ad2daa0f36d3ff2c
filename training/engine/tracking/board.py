"""A writer of TensorBoard event files that never blocks.

torch's SummaryWriter passes events to a thread through a queue of ten. On a full disk that thread ends, and once the
queue is full the next event blocks forever. Here only scalars, images and sounds are logged, which needs no thread.
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import struct
import time
import wave
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from training.engine.tracking.append_only import AppendOnlyFile

_numbers = itertools.count()


class Board:
    """One event file in `folder`. `purge`: TensorBoard hides events of earlier files from this step on."""

    def __init__(self, folder: Path, purge: int | None = None):
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.file = AppendOnlyFile(folder / name)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge is not None:
            self.purge(purge)

    def purge(self, step: int) -> None:
        """Make TensorBoard hide the events that were logged for `step` and later steps."""
        self._add(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scalars of a step."""
        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._add(_event(step, *values))

    def show(self, step: int, pictures: Mapping[str, bytes], sounds: Mapping[str, bytes]) -> None:
        """Log images (PNG) and sounds (WAV, 16 bit) of a step, each as a separate event, as they may be large."""
        for name, data in pictures.items():
            width, height, _, kind = struct.unpack_from(">IIBB", data, 16)  # of the header, PNG's first chunk
            colours = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[kind]
            image = Summary.Image(width=width, height=height, colorspace=colours, encoded_image_string=data)
            self._add(_event(step, Summary.Value(tag=name, image=image)))
        for name, data in sounds.items():
            with wave.open(io.BytesIO(data)) as sound:
                audio = Summary.Audio(
                    sample_rate=sound.getframerate(), num_channels=sound.getnchannels(),
                    length_frames=sound.getnframes(), encoded_audio_string=data, content_type="audio/wav",
                )  # fmt: skip
            self._add(_event(step, Summary.Value(tag=name, audio=audio)))

    def close(self) -> None:
        self.file.close()

    def _add(self, event: Event) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self.file.write(
            length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
        )


def _event(step: int, *values: Summary.Value) -> Event:
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))
