"""Rows about the market domain."""
