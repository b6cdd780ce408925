"""What every method does when the numbers run away."""

from __future__ import annotations

import torch
from torch import Tensor


def expect_finite(loss: Tensor, batch: dict[str, Tensor], *, step: int) -> None:
    """Stops the run at a loss that is not finite, and names the records to look at.

    Batch norm spreads one record's overflow over the whole batch, so the embeddings do not show
    whose it was; the size of the inputs does.

    Args:
        loss: ``()``.
        batch: ``ecg`` ``(N, L, T)`` and ``index`` ``(N,)``, places in the data set.
        step: Where the run stands.

    Raises:
        RuntimeError: The loss is NaN or infinite.
    """
    if torch.isfinite(loss):
        return
    size = batch["ecg"].detach().nan_to_num(posinf=torch.inf).abs().amax(dim=(1, 2))
    largest = size.argsort(descending=True, stable=True)[:5].tolist()
    names = batch["index"].tolist() if "index" in batch else list(range(len(size)))
    listed = ", ".join(f"{names[i]} (up to {size[i].item():.3g})" for i in largest)
    raise RuntimeError(
        f"the loss is {loss.item()} at step {step}; of the {len(names)} records of the batch look "
        f"first at the largest: index {listed}. All of them: {sorted(names)}. Either a record is "
        "broken (`ecgfast validate` names it), or the learning rate is too high (--optim.lr)."
    )
