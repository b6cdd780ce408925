"""An encoder on a batch whose activations memory could not hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def encode_in_parts(
    encode: Callable[[Tensor], Tensor], ecg: Tensor, size: int, *, encoder: nn.Module
) -> Tensor:
    """Embeddings of a whole batch, with the activations of one part of it in memory.

    Each part is encoded without keeping its activations, and encoded again when its gradient is
    due. What compares the records of the batch (mining, loss) sees all embeddings at once and is
    computed once, so the gradient is that of the whole batch; the price is a second forward pass.
    This is what Gao et al. 2021 (GradCache, arXiv:2101.06983) do in two passes over the encoder.

    The second forward draws the same dropout, and what it writes into the encoder's buffers is
    dropped: running statistics move once a part, as if each part were a batch. Statistics of batch
    norms are those of a part.

    Args:
        encode: From ``(n, L, T)`` to ``(n, D)``, by the encoder.
        ecg: ``(N, L, T)``.
        size: Most records of a part; parts differ by one record at most.
        encoder: Whose buffers are guarded.

    Returns:
        ``(N, D)``.
    """
    parts = ecg.tensor_split(-(-len(ecg) // size))
    if not torch.is_grad_enabled():
        return torch.cat([encode(part) for part in parts])

    def twice() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _buffers_put_back(encoder)

    run = partial(checkpoint, encode, use_reentrant=False, context_fn=twice)
    return torch.cat([run(part) for part in parts])


@contextlib.contextmanager
def _buffers_put_back(module: nn.Module) -> Iterator[None]:
    """Inside, the buffers are copies: whatever moves them moves the copies."""
    kept = [(inside, dict(inside._buffers)) for inside in module.modules()]
    for inside, buffers in kept:
        for name, buffer in buffers.items():
            inside._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for inside, buffers in kept:
            inside._buffers.update(buffers)
