"""Benchmarks of the brain domain."""
