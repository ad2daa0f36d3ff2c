"""Looks for leaks of the future in the user's own data, features and splits."""
