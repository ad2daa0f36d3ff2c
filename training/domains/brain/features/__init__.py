"""Features of the stimulus, fitted on training rows, and their delay by the haemodynamic response."""
