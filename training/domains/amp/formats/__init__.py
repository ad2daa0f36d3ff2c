"""Readers and writers of capture files."""
