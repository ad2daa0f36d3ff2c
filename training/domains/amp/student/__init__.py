"""Training of a capture's network so that it aliases less: the recipe, its data, and its loss."""
