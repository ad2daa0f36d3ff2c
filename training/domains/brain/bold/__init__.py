"""BOLD files: reading, repetition times, masks, and the values that models are trained on."""
