"""The networks of captures as torch modules."""
