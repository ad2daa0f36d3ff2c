"""Evaluation of a trained capture: tones over the fretboard, guitar, and the network at multiples of its rate."""
