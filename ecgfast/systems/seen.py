"""What a run that sees pages looks at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ecgfast.models.grad_cam import grad_cam
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.ops import rasterize_ecg
from ecgfast.systems.finetune import load_run

LEAST_SHOWN = 900  # pixels: what a person can read


class Seen(NamedTuple):
    """Pages for people, and where the score comes from.

    Attributes:
        pages: ``(N, S, S, 3)`` uint8, drawn as the network has them, but larger.
        maps: ``(N, h, w)`` from 0 to 1.
    """

    pages: NDArray[np.uint8]
    maps: NDArray[np.float32]


def looked_at(run: str | Path, records: Sequence[NDArray[np.floating[Any]]]) -> Seen | None:
    """Class activation maps of records ``(L, T)`` in mV; None of a run that sees no pages.

    Raises:
        ContractError: The run is damaged.
    """
    encoder, head, prepare, _ = load_run(run)
    if not isinstance(encoder, PageEncoder) or head is None or not records:
        return None
    ecg = prepare(torch.from_numpy(np.stack(records).astype(np.float32))).nan_to_num(0)
    maps = grad_cam(encoder, head, encoder.draw(ecg))
    side = encoder.size * -(-LEAST_SHOWN // encoder.size)
    shown = rasterize_ecg(
        ecg, fs=encoder.fs, layout=encoder.layout, size=(side, side), leads=encoder.leads
    ).images
    return Seen(shown.permute(0, 2, 3, 1).numpy(), maps.numpy())
