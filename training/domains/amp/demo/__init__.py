"""Demo data: captures of a circuit that is computed, and guitar strings that are plucked by rules."""
