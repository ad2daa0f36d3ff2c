"""Folders become songs: what was found, which recording belongs to which score, its label and its side of the split."""
