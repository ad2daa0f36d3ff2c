"""The data set of the interface."""

from giblet.data.dataset import MultimodalDataset, SherlockDataset

__all__ = ["MultimodalDataset", "SherlockDataset"]
