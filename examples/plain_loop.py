"""Ops in a plain torch loop: records of one patient are brought together. All data are SYNTHETIC.

Run it with ``python examples/plain_loop.py``; it takes some seconds on one core.
"""

from __future__ import annotations

import torch

from ecgfast.config import Signal
from ecgfast.data.synthetic import make_cohort
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.ops import AugmentSpec, augment, lead_norm, nt_xent

SPEC = AugmentSpec(fs=250.0, gain=(0.8, 1.25), noise_mv=(0.0, 0.05), shift_s=0.2)
STEPS = 48
PATIENTS = 16  # in a batch, two records of each


def main() -> None:
    """Trains an encoder for some steps and prints the loss."""
    torch.manual_seed(0)
    samples, _ = make_cohort(64, signal=Signal(seconds=2.0), visits=(2, 2))
    ecg = torch.from_numpy(samples)  # (128, 12, 500) in mV; records 2i and 2i + 1 are a patient's
    patients = torch.arange(64).repeat_interleave(2)

    encoder = ResNet1d(12, 32, width=8, dropout=0.0)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    values = []
    for _ in range(STEPS):
        chosen = torch.randperm(64)[:PATIENTS]
        rows = torch.cat([2 * chosen, 2 * chosen + 1])
        embeddings = encoder(lead_norm(augment(ecg[rows], SPEC)))
        loss = nt_xent(embeddings, patients[rows], temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    for name, part in (("first", values[:8]), ("last", values[-8:])):
        print(f"SYNTHETIC patients, {name} steps: nt_xent {sum(part) / len(part):.3f}")


if __name__ == "__main__":
    main()
