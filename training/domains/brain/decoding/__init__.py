"""The decoding model: from the voxels of a subject to the features of the stimulus that it saw and heard."""
