"""From the fold models of all families to one ensemble."""
