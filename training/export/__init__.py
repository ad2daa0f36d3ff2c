"""How a model leaves: graphs become files, and the files are proved against the model."""
