"""Exports a trained model: its graphs are written as files, and the files are compared with the model."""
