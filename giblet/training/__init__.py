"""Training of the interface: configuration, losses, trainer, several processes."""

from giblet.training.config import TrainingConfig
from giblet.training.losses import CombinedAutoEncoderLoss, FMRIMatchingLoss, ReconstructionLoss
from giblet.training.processes import cleanup_distributed, setup_distributed
from giblet.training.trainer import Trainer

__all__ = ["CombinedAutoEncoderLoss", "FMRIMatchingLoss", "ReconstructionLoss", "Trainer", "TrainingConfig",
           "cleanup_distributed", "setup_distributed"]  # fmt: skip
