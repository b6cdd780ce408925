"""Losses in a Lightning module, with a memory of past batches. All data are SYNTHETIC.

Run it with ``python examples/lightning_module.py``; it takes some seconds on one core. With
``Trainer(devices=2, strategy="ddp")`` the memory gathers the rows of all ranks: what every rank
logs is the loss of the whole batch, and gradients are those of one process.
"""

from __future__ import annotations

import warnings

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ecgfast.config import Signal
from ecgfast.data.synthetic import make_cohort
from ecgfast.losses.contrastive import NTXentLoss
from ecgfast.losses.memory import CrossBatchMemory
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.ops import AugmentSpec, lead_norm
from ecgfast.transforms.augment import Augment

SPEC = AugmentSpec(fs=250.0, gain=(0.8, 1.25), noise_mv=(0.0, 0.05), lead_dropout_p=0.2)


class TwoViews(LightningModule):
    """Two variants of a record are each other's positive; other patients' are negatives."""

    def __init__(self) -> None:
        super().__init__()
        self.augment = Augment(SPEC)
        self.encoder = ResNet1d(12, 32, width=8, dropout=0.0)
        self.loss = CrossBatchMemory(
            NTXentLoss(temperature=0.1),
            memory_size=96,
            embedding_dim=32,
            groups=True,
            gather=True,
        )
        self.values: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch of records, their numbers and their patients."""
        ecg, records, patients = batch
        views = torch.cat([lead_norm(self.augment(ecg)) for _ in range(2)])
        # a patient's other records are neither: equal groups, different labels
        loss: Tensor = self.loss(self.encoder(views), records.repeat(2), patients.repeat(2))
        self.values.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.AdamW(self.encoder.parameters(), lr=2e-3)


def main() -> None:
    """Trains for two epochs and prints the loss."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    torch.manual_seed(0)
    samples, table = make_cohort(64, signal=Signal(seconds=2.0), visits=(2, 2))
    patients = torch.tensor([int(name[1:]) for name in table["patient_id"]])
    records = TensorDataset(torch.from_numpy(samples), torch.arange(len(samples)), patients)
    batches = DataLoader(records, batch_size=32, shuffle=True, drop_last=True)

    module = TwoViews()
    trainer = Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches)
    for name, part in (("first", module.values[:4]), ("last", module.values[-4:])):
        print(f"SYNTHETIC records, {name} epoch: nt_xent {sum(part) / len(part):.3f}")


if __name__ == "__main__":
    main()
