"""Code and configuration as people type them who follow the guide of the programming interface (giblet)."""

QUICK_START = """
from giblet.models.autoencoder import create_autoencoder
from giblet.data.dataset import SherlockDataset
from giblet.training import Trainer, TrainingConfig

model = create_autoencoder()
train_dataset = SherlockDataset('data/', split='train')
val_dataset = SherlockDataset('data/', split='val')
config = TrainingConfig(
    learning_rate=1e-4,
    batch_size=64,
    num_epochs=100,
    use_mixed_precision=True
)
trainer = Trainer(model, train_dataset, val_dataset, config)
history = trainer.train()
"""
RESUME = """
config = TrainingConfig(
    resume_from='checkpoints/checkpoint_epoch_50.pt',
)
trainer = Trainer(model, train_dataset, val_dataset, config)
trainer.train()
"""
TRAINER = """
trainer = Trainer(
    model=model,
    train_dataset=train_dataset,
    val_dataset=val_dataset,
    config=config,
    distributed=False,
    local_rank=0,
    world_size=1
)
history = trainer.train()
print(f"Best validation loss: {history['best_val_loss']}")
print(f"Train losses: {history['train_history']}")
print(f"Val losses: {history['val_history']}")
"""
BY_HAND = """
import torch.distributed as dist
from giblet.training import setup_distributed, cleanup_distributed

setup_distributed(rank=local_rank, world_size=world_size)
trainer = Trainer(
    model=model,
    train_dataset=train_dataset,
    val_dataset=val_dataset,
    config=config,
    distributed=True,
    local_rank=local_rank,
    world_size=world_size
)
trainer.train()
cleanup_distributed()
"""
LOSSES = """
from giblet.training.losses import ReconstructionLoss
loss_fn = ReconstructionLoss(
    video_weight=1.0,
    audio_weight=1.0,
    text_weight=1.0
)
loss, loss_dict = loss_fn(
    video_recon, video_target,
    audio_recon, audio_target,
    text_recon, text_target
)
from giblet.training.losses import FMRIMatchingLoss
loss_fn = FMRIMatchingLoss(loss_type='mse')
loss_fn = FMRIMatchingLoss(loss_type='correlation')
loss = loss_fn(predicted_fmri, target_fmri)

from giblet.training.losses import CombinedAutoEncoderLoss
loss_fn = CombinedAutoEncoderLoss(
    reconstruction_weight=1.0,
    fmri_weight=1.0
)
outputs = {"video_recon": video_recon, "audio_recon": audio_recon, "text_recon": text_recon,
           "predicted_fmri": predicted_fmri}
loss, loss_dict = loss_fn(outputs, video_target, audio_target, text_target, fmri_target)
"""
LOSSES_TAKE = ("video_recon", "video_target", "audio_recon", "audio_target", "text_recon", "text_target",
               "predicted_fmri", "target_fmri", "fmri_target")  # fmt: skip
PREPARING = """
from giblet.data.dataset import SherlockDataset
train_ds = SherlockDataset('data/', split='train', preprocess=True)
val_ds = SherlockDataset('data/', split='val', preprocess=True)
print(f'Train: {len(train_ds)}, Val: {len(val_ds)}')
"""
CONFIGURATION = """
# Optimizer parameters
learning_rate: 1.0e-4
batch_size: 64
num_epochs: 100
weight_decay: 1.0e-5

# Loss weights
reconstruction_weight: 1.0
fmri_weight: 1.0
video_weight: 1.0
audio_weight: 1.0
text_weight: 1.0

# Learning rate scheduling
scheduler_type: 'cosine'  # 'cosine', 'step', or 'none'
warmup_epochs: 5
min_lr: 1.0e-6

# Training settings
gradient_clip_val: 1.0
use_mixed_precision: true
num_workers: 4

# Checkpointing
checkpoint_dir: 'checkpoints'
save_every: 5

# Early stopping
early_stopping_patience: 10
"""
