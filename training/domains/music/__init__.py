"""What audio, MIDI and emotion are: notes, tokens, clouds, and corpora (scan, pair, label, split)."""
