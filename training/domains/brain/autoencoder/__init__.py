"""The autoencoder: the encoding model, whose bottleneck must also reconstruct what was seen and heard."""
