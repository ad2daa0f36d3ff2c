"""A second small domain, whose only family fans out: predictors for water gauges.

A folder has one text file per gauge, with one level per line, measured at equal intervals. `level` trains one small
network per gauge that predicts the next level from the last ones. The domain has no plan nodes, no sealed test split
and no artefacts.
"""
