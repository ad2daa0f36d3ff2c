"""Checks that find faults of the data before hours of training are spent."""
