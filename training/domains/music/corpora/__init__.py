"""From folders to songs: scanning, pairing of recordings with scores, labels, and the split."""
