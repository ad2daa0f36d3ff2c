"""Scores: reading and writing MIDI files, notes, tokens, and style measurements."""
