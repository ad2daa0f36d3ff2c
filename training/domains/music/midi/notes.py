"""Notes in seconds, independent of ticks, bars and tracks."""

from __future__ import annotations

import numpy as np

#: One sounding note. Arrays of notes are always sorted by (onset, program, pitch).
NOTE = np.dtype(
    [
        ("onset", "f8"),  # seconds from the start of the file
        ("duration", "f8"),  # seconds, > 0
        ("pitch", "u1"),  # MIDI 0..127; for drums, the drum key
        ("velocity", "u1"),  # 1..127
        ("program", "u1"),  # General MIDI program 0..127; 0 for drums
        ("drum", "?"),
    ]
)
