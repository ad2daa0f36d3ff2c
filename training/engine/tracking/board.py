"""TensorBoard's event files, written as they come.

torch's SummaryWriter hands events to a thread; on a full disk that thread dies, and the eleventh event after it waits
for ever. Only numbers, pictures and sounds are logged here, and a file is enough for that.
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
    """One event file in `folder`. `purge`: what earlier files say of this step and later ones is not shown."""

    def __init__(self, folder: Path, purge: int | None = None):
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.file = AppendOnlyFile(folder / name)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge is not None:
            self.purge(purge)

    def purge(self, step: int) -> None:
        """What was logged for this step and later ones is not shown."""
        self._add(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        """Scalars of a step."""
        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._add(_event(step, *values))

    def show(self, step: int, pictures: Mapping[str, bytes], sounds: Mapping[str, bytes]) -> None:
        """Pictures (PNG) and sounds (WAV, 16 bit) of a step, an event each: together they may be large."""
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
