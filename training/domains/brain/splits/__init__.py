"""Splits in blocks of time with gaps between them."""
