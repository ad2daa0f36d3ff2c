"""Rows about the brain domain."""
