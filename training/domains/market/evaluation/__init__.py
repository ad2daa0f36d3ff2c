"""What a model is worth: its probabilities, its trades after costs, and how likely luck is."""
