"""Questions with their SQL: reading files, checking golds, splitting, and overlap between the splits."""
