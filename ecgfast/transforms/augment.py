"""Augmentation as a layer: drawn anew at every call while training, nothing else."""

from __future__ import annotations

from torch import Tensor, nn

from ecgfast.ops.augment import AugmentSpec, augment


class Augment(nn.Module):
    """Draws a variant of every record while training, ``(N, L, T) -> (N, L, S)``.

    The seed comes from torch's generator at each call, so that ``torch.manual_seed`` repeats a run
    and no two calls draw alike. In evaluation mode signals pass as they are: with ``crop_s`` they
    are then longer than in training. No gradient passes.

    Args:
        spec: What to draw from.

    Example:
        >>> import torch
        >>> drop = Augment(AugmentSpec(lead_dropout_p=1.0))
        >>> (drop(torch.ones(3, 12, 100)) != 0).any(dim=-1).sum(dim=-1)  # one lead stays
        tensor([1, 1, 1])
        >>> drop.eval()(torch.ones(3, 12, 100)).min()
        tensor(1.)
    """

    def __init__(self, spec: AugmentSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, ecg: Tensor, record_ids: Tensor | None = None) -> Tensor:
        """Augments a batch.

        Args:
            ecg: mV, ``(N, L, T)``.
            record_ids: ``(N,)`` int64, who the records are; their places in the batch if none.

        Returns:
            The same dtype and device, mV; S samples while training.
        """
        return augment(ecg, self.spec, record_ids=record_ids) if self.training else ecg

    def extra_repr(self) -> str:
        """What is on, for ``print``."""
        default = AugmentSpec()
        names = self.spec.__dataclass_fields__
        values = {name: getattr(self.spec, name) for name in names}
        changed = {k: v for k, v in values.items() if v != getattr(default, k)}
        return ", ".join(f"{name}={value}" for name, value in changed.items())
