"""What a dual-attention run attends to: on the mean of risk groups, and in single records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.data.records import DataError
from ecgfast.data.source import Source
from ecgfast.eval.attention import GroupMaps, group_maps
from ecgfast.models.attention_maps import lead_attention_of, painted, token_attention_of
from ecgfast.models.dual_attention import HEADS, LEADS, DualAttention, Maps, tokens_of
from ecgfast.systems.finetune import Loaded, load_run
from ecgfast.systems.parts import prepared
from ecgfast.transforms.recipes import recipe_named
from ecgfast.transforms.signal import OneRecord

MOST_RECORDS = 2048  # whose maps are averaged
MOST_BYTES = 2**26  # of temporal maps at a time
MOST_BATCH = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Attended:
    """One record as the network sees it, without padding, and its attention.

    Attributes:
        ecg: ``(12, T)``.
        painted: ``(12, T)``, temporal attention in units of an even share; None without it.
        leads: ``(12, 12)``, query by key; None without attention over leads.
    """

    ecg: Floats
    painted: Floats | None
    leads: Floats | None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Of a run on the records that it was scored on.

    Attributes:
        mixed: Whether the network mixes leads before it attends to them, as the published one does.
        groups: Maps over leads of all records, low and high risk; None without such attention.
        heads: ``(heads, 12, 12)``, each head's mean; None likewise.
        shown: Of the records that were asked for, those that the network can see.
        scored: How many records were scored; of more than 2048 only so many are averaged, evenly
            spaced along the score.
        empty: How many of those taken the network sees nothing of: too few beats, say.
        fs: Hz, of what the network sees.
        units: mV, or none.
    """

    mixed: bool
    groups: GroupMaps | None
    heads: Floats | None
    shown: dict[str, Attended]
    scored: int
    empty: int
    fs: float
    units: str


def attention_of(
    run: str | Path,
    source: Source,
    predictions: Mapping[str, NDArray[Any]],
    shown: Sequence[str] = (),
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Attention | None:
    """Collects the attention maps of a run; None of a network without attention.

    Args:
        run: Folder.
        source: The records that were scored.
        predictions: ``record_id`` and ``patient_id``, and ``score`` ``(N,)`` where there is one.
        shown: Ids of records to see one by one.
        draws: Of patients, for intervals.
        seed: Of the draws.

    Raises:
        ContractError: The run is damaged.
        DataError: None of the scored records is in the source, or the network sees none of them.
    """
    loaded = load_run(run)
    encoder = loaded.encoder
    if not isinstance(encoder, DualAttention) or encoder.attention == "none":
        return None
    place = {str(name): row for row, name in enumerate(source.column("record_id"))}
    ids = np.asarray(predictions["record_id"]).astype(str)
    known = np.array([i for i, name in enumerate(ids) if name in place], dtype=np.int64)
    score = predictions.get("score")
    score = None if score is None or not len(score) else np.asarray(score, np.float64)
    if score is not None:
        known = known[np.isfinite(score[known])]
    if not len(known):
        raise DataError("none of the scored records is in the store any more")
    chosen = _spread(known, score)
    groups = heads = None
    empty = 0
    if encoder.over_leads is not None:
        found = list(_maps(loaded, source, [place[ids[i]] for i in chosen]))
        seen = np.concatenate([one.seen for one in found])
        chosen, empty = chosen[seen], int((~seen).sum())
        if not len(chosen):
            raise DataError(f"the network sees nothing of any of {empty} records")
        groups = group_maps(
            np.concatenate([one.leads for one in found if one.leads is not None]),
            np.asarray(predictions["patient_id"]).astype(str)[chosen],
            None if score is None else score[chosen],
            draws=draws,
            seed=seed,
        )
        sums = np.stack([one.heads for one in found if one.heads is not None])
        heads = (sums.sum(axis=0) / len(chosen)).astype(np.float32)
    here = [name for name in dict.fromkeys(shown) if name in place]
    signal, recipe = loaded.contract.signal, loaded.contract.recipe
    units = OneRecord(loaded.prepare.recipe).units
    if signal.stored_recipe and OneRecord(recipe_named(signal.stored_recipe)).units != "mV":
        units = "none"
    return Attention(
        mixed=encoder.mode == "faithful",
        groups=groups,
        heads=heads,
        shown=_attended(loaded, source, {name: place[name] for name in here}),
        scored=len(ids),
        empty=empty,
        fs=prepared(signal, recipe)[0],
        units=units,
    )


def extremes(predictions: Mapping[str, NDArray[Any]], count: int = 2) -> dict[str, str]:
    """Ids of the records with the highest and the lowest scores, and which they are."""
    score = predictions.get("score")
    if score is None or not len(score):
        return {}
    values = np.asarray(score, np.float64)
    order = np.argsort(values, kind="stable")
    order = order[np.isfinite(values[order])]  # what is not a number is not the highest
    count = min(count, len(order) // 2)
    ids = np.asarray(predictions["record_id"]).astype(str)
    high, low = order[::-1][:count], order[:count]
    return {str(name): "highest score" for name in ids[high]} | {
        str(name): "lowest score" for name in ids[low]
    }


def _spread(known: NDArray[np.int64], score: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """At most MOST_RECORDS of them, evenly along the score, else along their order."""
    if len(known) <= MOST_RECORDS:
        return known
    order = known if score is None else known[np.argsort(score[known], kind="stable")]
    steps = np.linspace(0, len(known) - 1, MOST_RECORDS).round().astype(np.int64)
    return np.sort(order[steps])


@dataclass(frozen=True)
class _Batch:
    """Of the records of a batch that the network sees: ``seen`` is of all of them."""

    seen: NDArray[np.bool_]
    ecg: Floats
    leads: Floats | None
    heads: NDArray[np.float64] | None  # their sum
    painted: Floats | None


def _maps(
    loaded: Loaded, source: Source, rows: Sequence[int], *, paint: bool = False
) -> Iterator[_Batch]:
    """Maps in batches, since those over time grow with the square of the tokens."""
    encoder = loaded.encoder
    assert isinstance(encoder, DualAttention)
    samples = prepared(loaded.contract.signal, loaded.contract.recipe)[1]
    each = 4 * LEADS * HEADS * tokens_of(samples) ** 2
    size = int(np.clip(MOST_BYTES // each, 1, MOST_BATCH))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder, prepare = encoder.to(device), loaded.prepare.to(device)
    for start in range(0, len(rows), size):
        batch = source.dataset.batch(rows[start : start + size])
        ready = prepare(*(batch[name].to(device) for name in ("ecg", "gain") if name in batch))
        ecg = ready.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        with torch.inference_mode():  # of records that it sees nothing of too: none may be left
            _, found = encoder(ecg, maps=True)
        seen = ready.isfinite().flatten(1).any(dim=1)
        leads, times = (None if x is None else x[seen] for x in found)
        maps = Maps(leads, times)
        tokens = token_attention_of(maps) if paint else None
        yield _Batch(
            seen.cpu().numpy(),
            ecg[seen].float().cpu().numpy(),
            _numpy(lead_attention_of(maps)),
            None if leads is None else leads.double().sum(dim=0).cpu().numpy(),
            None if tokens is None else _numpy(painted(tokens, samples)),
        )


def _attended(loaded: Loaded, source: Source, rows: Mapping[str, int]) -> dict[str, Attended]:
    found = {}
    names = iter(rows)
    for batch in _maps(loaded, source, list(rows.values()), paint=True):
        seen = [name for name, one in zip(names, batch.seen, strict=False) if one]
        for i, name in enumerate(seen):
            real = _recorded(batch.ecg[i])
            found[name] = Attended(
                ecg=batch.ecg[i][:, real],
                painted=None if batch.painted is None else batch.painted[i][:, real],
                leads=None if batch.leads is None else batch.leads[i],
            )
    return found


def _recorded(ecg: Floats) -> slice:
    """Without the zeros at both ends that all leads have: padding."""
    live = np.flatnonzero((ecg != 0).any(axis=0))
    return slice(int(live[0]), int(live[-1]) + 1) if len(live) else slice(None)


def _numpy(x: Tensor | None) -> Floats | None:
    return None if x is None else x.float().cpu().numpy()
