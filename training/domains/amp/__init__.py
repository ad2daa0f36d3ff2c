"""Captures of guitar amplifiers that alias less, in the file formats that players load."""
