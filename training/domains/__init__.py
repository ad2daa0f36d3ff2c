"""What is learnt: one folder a family, each with its config, model, data and recipe."""
