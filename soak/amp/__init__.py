"""Rows about the amp domain."""
