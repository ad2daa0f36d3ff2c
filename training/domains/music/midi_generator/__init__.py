"""The MIDI generator: emotion in, music out, one token at a time."""
