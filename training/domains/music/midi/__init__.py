"""Scores: MIDI files in and out, notes, tokens, and what can be measured on notes."""
