"""A stand-in for Colab's own package: what it promises and how it fails, on a host without Colab."""
