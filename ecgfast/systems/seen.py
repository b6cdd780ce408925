"""What a run that sees pages or clips looks at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ecgfast.data.source import Source
from ecgfast.eval.studies import by_study
from ecgfast.models.clip_encoder import ClipEncoder
from ecgfast.models.grad_cam import grad_cam
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.ops import rasterize_ecg
from ecgfast.systems.finetune import load_run
from ecgfast.systems.windows import windowed

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


class SeenClip(NamedTuple):
    """A clip of a video, and where the score comes from.

    Attributes:
        video: Its name.
        frames: ``(F, S, S)`` uint8, grey.
        heat: ``(f, h, w)`` from 0 to 1.
        fps: Frames of the clip a second; 0 is not known.
    """

    video: str
    frames: NDArray[np.uint8]
    heat: NDArray[np.float32]
    fps: float


def watched(
    run: str | Path, source: Source, wanted: Sequence[str], *, by: str = "study"
) -> dict[str, SeenClip]:
    """Class activation maps of the first clip of videos; empty of a run that sees no clips.

    Args:
        run: Folder, with a head.
        source: Videos, those that were scored among them.
        wanted: Ids of studies, as ``by_study`` gives them, of which the first video is shown; or
            of videos.
        by: study or record: which.

    Raises:
        ContractError: The run is damaged.
    """
    encoder, head, _, contract = load_run(run)
    if not isinstance(encoder, ClipEncoder) or head is None or not source.clips:
        return {}
    names = source.column("record_id").astype(str)
    rows = dict(zip(names, range(len(names)), strict=True))
    if by == "study":
        ids = {name: source.column(name) for name in ("record_id", "patient_id", "study_id")}
        found = by_study({**ids, "row": np.arange(len(names))})
        rows = dict(zip(found["record_id"].tolist(), found["row"].tolist(), strict=True))
    clips = windowed(source, contract, 1).dataset
    step = int(contract.model["arguments"]["step"])
    seen = {}
    for name in wanted:
        if name not in rows:
            continue
        row = rows[name]
        clip = clips.batch([row])["ecg"]
        heat = grad_cam(encoder, head, clip)[0].numpy()
        frames = clip[0].float().mean(dim=0).round().byte().numpy()
        fps = float(source.table["fps"].iloc[row]) / step
        seen[name] = SeenClip(str(names[row]), frames, heat, fps if np.isfinite(fps) else 0.0)
    return seen
