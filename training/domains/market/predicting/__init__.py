"""Probabilities for new bars, by a trained family."""
