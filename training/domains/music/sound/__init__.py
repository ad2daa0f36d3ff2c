"""From sound files to samples: what their bytes hold, compared with what their headers declare, and decoding."""
