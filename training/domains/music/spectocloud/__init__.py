"""Spectocloud: sound and emotion in, a cloud of 1,200 particles out."""
