"""Measures of held-out predictions: correlations, ceilings, segment matching, and their intervals."""
