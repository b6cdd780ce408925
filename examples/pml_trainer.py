"""A trainer of pytorch-metric-learning with losses and miners of ecgfast. All data are SYNTHETIC.

Run it with ``python examples/pml_trainer.py``; it takes some seconds on one core and needs
``pip install pytorch-metric-learning``. Of a script for that library the imports of losses, miners
and reducers change; samplers, trainers and testers stay.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.trainers import MetricLossOnly
from torch.utils.data import TensorDataset

from ecgfast.config import Signal
from ecgfast.data.synthetic import make_cohort
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.ops import lead_norm
from ecgfast.pml import losses, miners


def main() -> None:
    """Trains for some steps and prints the loss."""
    torch.manual_seed(0)
    samples, _ = make_cohort(64, signal=Signal(seconds=2.0), visits=(2, 2))
    ecg = lead_norm(torch.from_numpy(samples))
    patients = torch.arange(64).repeat_interleave(2)

    encoder = ResNet1d(12, 32, width=8, dropout=0.0)
    values = []
    trainer = MetricLossOnly(
        models={"trunk": encoder},
        optimizers={"trunk_optimizer": torch.optim.AdamW(encoder.parameters(), lr=2e-3)},
        batch_size=32,
        loss_funcs={"metric_loss": losses.TripletMarginLoss(margin=0.2)},
        mining_funcs={"tuple_miner": miners.BatchHardMiner()},
        dataset=TensorDataset(ecg, patients),
        sampler=MPerClassSampler(patients, m=2, length_before_new_iter=384),
        dataloader_num_workers=0,
        data_device=torch.device("cpu"),
        end_of_iteration_hook=lambda it: values.append(float(it.losses["metric_loss"])),
    )
    trainer.train(num_epochs=2)
    for name, part in (("first", values[:8]), ("last", values[-8:])):
        print(f"SYNTHETIC patients, {name} steps: triplet loss {sum(part) / len(part):.3f}")


if __name__ == "__main__":
    main()
