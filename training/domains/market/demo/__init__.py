"""A market with a known edge, and its twin without any."""
