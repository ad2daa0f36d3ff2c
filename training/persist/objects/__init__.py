"""An object store as the second place."""
