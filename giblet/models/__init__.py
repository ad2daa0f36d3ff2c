"""The model of the interface."""

from giblet.models.autoencoder import SherlockAutoencoder, create_autoencoder

__all__ = ["SherlockAutoencoder", "create_autoencoder"]
