"""Databases: their schemas, executing a statement in a locked process, comparing results, re-populated copies."""
