"""Tones with exact targets, audible noise, error measures, filters, and oversampled networks."""
