"""Training, for every family. The engine uses the classes of training/recipe.py alone: it imports no domain, model or
export."""
