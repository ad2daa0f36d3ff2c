"""The encoding model: from the stimulus through a shared bottleneck to the voxels of every subject."""
