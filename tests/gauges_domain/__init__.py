"""A second small domain, which only fans out: predictors of water gauges.

A folder of text files, one a gauge, holds one level a line, taken at equal times. `level` trains one small network a
gauge that tells the next level from the last ones. No nodes, no sealed test split, no artefacts.
"""
