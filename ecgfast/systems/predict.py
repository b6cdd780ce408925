"""What a run says of records: scores, embeddings, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ecgfast.config import Optim
from ecgfast.data.source import open_source
from ecgfast.methods.finetune import Finetune
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.ops import layout_named
from ecgfast.systems.clips import clip_of
from ecgfast.systems.finetune import Loaded, load_run
from ecgfast.systems.pages import page_of
from ecgfast.systems.parts import check_source, describe
from ecgfast.systems.windows import COUNT, of_windows, windowed, windows_of
from ecgfast.train.batches import seed_draws
from ecgfast.train.checkpoint import load_contract
from ecgfast.train.contract import Contract, ContractError

EXTRA = ("sex", "age")  # told along where the manifest has them
MOST_VIDEOS = 16  # at a time: each is several clips


@torch.inference_mode()
def predict(
    run: str | Path,
    store: str | Path | Sequence[str | Path] = (),
    *,
    splits: Sequence[str] = ("test",),
    label: str | None = None,
    patients: int = 400,
    limit: int = 0,
    batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    extra: Sequence[str] = EXTRA,
    layout: str = "",
    windows: int = COUNT,
) -> dict[str, NDArray[Any]]:
    """Scores the records of a store, or of the SYNTHETIC cohort if none is named.

    Args:
        run: Folder of a finished run; one without a head gives embeddings alone.
        store: Folder or folders that `ecgfast convert` made.
        splits: Parts of it; ``all`` is every record that is not in a test part.
        label: Column of the manifest; none takes the one the run has learned. Records without a
            value are left out.
        patients: Of the SYNTHETIC cohort.
        limit: The first so many records; 0 is all.
        batch_size: Records at a time; it does not show in the result.
        workers: Processes that load.
        device: As torch names it; auto takes a GPU if there is one.
        extra: Columns of the manifest that are told along where there are such.
        layout: In which a network for pages draws the records; empty is its own.
        windows: Of videos: evenly spaced clips of each, whose scores are averaged.

    Returns:
        Arrays of N: ``record_id``, ``patient_id``, ``trained_on`` and ``pretrained_on`` (whether
        the run has seen the record), the ``extra`` columns, ``label`` if there is one (of several
        classes the number of the class; of survival the time of the event, or minus the time of
        censoring), ``score`` if there is a head (in the label's unit, the probability of the class,
        of several classes ``(N, C)``, or the log hazard), ``survival`` ``(N, K)`` where the head
        gives hazards of intervals, and ``embedding`` ``(N, D)``.

    Raises:
        ContractError: The run is damaged, or the store does not hold what its encoder expects.
        DataError: There are no such records.
        ValueError: There is no such layout.
    """
    loaded = load_run(run)
    contract = loaded.contract
    if layout:
        _draw_in(layout, loaded, run)
    if label is None and contract.task is not None:
        label = contract.task["label"]
    paths = [str(store)] if isinstance(store, str | Path) else [str(path) for path in store]
    task = contract.task
    ours = task is not None and label == task["label"]
    source = open_source(
        paths,
        splits,
        signal=contract.signal,
        patients=patients,
        label=label,
        limit=limit,
        classes=task.get("classes") if ours and task is not None else None,
        event=task.get("event") if ours and task is not None else None,
        clips=contract.clips,
    )
    check_source(
        source, contract.signal, model=contract.model, pages=contract.pages, clips=contract.clips
    )
    source = windowed(source, contract, windows)
    if layout and source.pages:
        raise ContractError(
            "error[layout] the records are pages, drawn already: leave --layouts out, or name a "
            "store of signals"
        )
    place = torch.device(_device() if device == "auto" else device)
    method = _method(loaded).to(place)
    found: dict[str, list[Tensor]] = {}
    size = min(batch_size, MOST_VIDEOS) if source.clips else batch_size
    loader = DataLoader(source.dataset, batch_size=size, num_workers=workers)
    for step, batch in enumerate(loader):
        seed_draws(0, step)  # dropout at test (B7) is drawn, and must be drawn again alike
        signals = [batch[name].to(place) for name in ("ecg", "gain") if name in batch]
        if source.clips:
            frames = int(contract.model["arguments"]["frames"])
            said = of_windows(partial(_predict, method), signals[0], frames)
        else:
            ecg = signals[0] if source.pages else loaded.prepare.to(place)(*signals)
            said = _predict(method, ecg)
        for name, values in said.items():
            found.setdefault(name, []).append(values.cpu())

    names = source.column("record_id").astype(str)
    nobody = np.zeros(len(names), dtype=bool)
    before = contract.pretrained_on
    known = {
        "record_id": names,
        "patient_id": source.column("patient_id").astype(str),
        "trained_on": contract.trained_on.hold(names),
        "pretrained_on": nobody if before is None else before.hold(names),
        **{name: source.column(name) for name in extra if name in source.table},
    }
    if label is not None:
        known["label"] = source.labels()
    return known | {name: torch.cat(values).numpy() for name, values in found.items()}


def predict_ensemble(
    runs: Sequence[str | Path],
    store: str | Path | Sequence[str | Path] = (),
    **how: Any,
) -> dict[str, NDArray[Any]]:
    """Scores records by the mean of several runs' scores, seeds of one training say.

    Args:
        runs: Folders of finished runs with a head, one task and one signal.
        store: As for `predict`.
        **how: What else `predict` takes.

    Returns:
        As `predict`, with ``score`` the mean, ``scores`` those of each run ``(S, N)`` or
        ``(S, N, C)``, ``embedding`` all embeddings side by side ``(N, S D)`` (so that squared
        distances add up), and a record seen if one of the runs has seen it.

    Raises:
        ContractError: A run has no head, or differs from the first in task or signal.
        DataError: There are no such records.
    """
    if len(runs) > 1:
        check_together(runs)
    every = [predict(run, store, **how) for run in runs]
    first = every[0]
    if len(every) == 1:
        return first if "score" not in first else {**first, "scores": first["score"][None]}
    scores = np.stack([found["score"] for found in every])
    seen = {
        name: np.any([found[name] for found in every], axis=0)
        for name in ("trained_on", "pretrained_on")
    }
    return {
        **first,
        **seen,
        "score": scores.mean(axis=0, dtype=np.float64),
        "scores": scores,
        **(
            {"survival": np.mean([found["survival"] for found in every], axis=0)}
            if "survival" in first
            else {}
        ),
        "embedding": np.concatenate([found["embedding"] for found in every], axis=1),
    }


def check_together(runs: Sequence[str | Path]) -> None:
    """Refuses runs that do not answer the same question about the same signal.

    Raises:
        ContractError: Names the run and what differs.
    """
    contracts = [load_contract(run) for run in runs]
    first = contracts[0]
    twice = {str(run) for run in runs if [str(other) for other in runs].count(str(run)) > 1}
    if twice:
        raise ContractError(f"error[ensemble] {', '.join(sorted(twice))} is named more than once")
    for run, contract in zip(runs, contracts, strict=True):
        if contract.task is None or first.task is None:
            raise ContractError(f"error[ensemble] {run} has no head, so no scores to average")
        for name in ("kind", "label", "threshold", "classes", "event", "edges"):
            mine, its = first.task.get(name), contract.task.get(name)
            if mine != its:
                raise ContractError(
                    f"error[ensemble] {run} differs from {runs[0]} in task.{name}: {its} and "
                    f"{mine}; scores of one task only can be averaged"
                )
        if page_of(contract.model) != page_of(first.model) or contract.pages != first.pages:
            raise ContractError(
                f"error[ensemble] {run} and {runs[0]} see other pages, or one of them none: "
                f"{describe(contract)}; {describe(first)}"
            )
        if _clips(contract) != _clips(first):  # videos are cut once for all of them
            raise ContractError(
                f"error[ensemble] {run} and {runs[0]} see other clips, or one of them none: "
                f"{_clips(contract)}; {_clips(first)}"
            )
        if contract.signal != first.signal:
            raise ContractError(
                f"error[ensemble] {run} differs from {runs[0]} in its signal: "
                f"{describe(contract)} and {describe(first)}"
            )


def _clips(contract: Contract) -> str:
    if clip_of(contract.model) is None:
        return "no clips"
    windows = windows_of(contract)
    return f"{windows.frames} frames, {windows.step} apart, {describe(contract)}"


def _draw_in(layout: str, loaded: Loaded, run: str | Path) -> None:
    if not isinstance(loaded.encoder, PageEncoder):
        raise ContractError(
            f"error[layout] {run} sees signals ({type(loaded.encoder).__name__}): it has no layout "
            "to draw them in; leave --layouts out"
        )
    layout_named(layout)
    loaded.encoder.layout = layout


def _method(loaded: Loaded) -> torch.nn.Module:
    task = loaded.contract.task
    if loaded.head is None or task is None:
        return loaded.encoder
    method = Finetune(
        loaded.encoder,
        loaded.head,
        task=task["kind"],
        threshold=task["threshold"],
        dropout_at_test=task["dropout_at_test"],
        edges=None if not task.get("edges") else torch.tensor(task["edges"]),
        optim=Optim(),
    )
    return method.eval()


def _predict(method: torch.nn.Module, ecg: Tensor) -> dict[str, Tensor]:
    if isinstance(method, Finetune):
        return method.predict_step({"ecg": ecg}, 0)
    return {"embedding": method(ecg.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)).float()}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
