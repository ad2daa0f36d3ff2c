"""Athanor: data in; trained, verified and exported models out."""

__version__ = "0.1.0"
