"""Boosted trees of three libraries, grown in chunks of rounds that a killed run repeats exactly."""
