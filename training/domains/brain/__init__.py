"""Encoding models of film fMRI: from a film and its annotations to the BOLD signal of every voxel."""
