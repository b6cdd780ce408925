"""What a run says of records: scores, embeddings, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
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
from ecgfast.systems.finetune import Loaded, load_run
from ecgfast.systems.parts import check_source
from ecgfast.train.batches import seed_draws

EXTRA = ("sex", "age")  # told along where the manifest has them: subgroups are made of these


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

    Returns:
        Arrays of N: ``record_id``, ``patient_id``, ``trained_on`` and ``pretrained_on`` (whether
        the run has seen the record), ``sex`` and ``age`` where known, ``label`` if there is one,
        ``score`` if there is a head (in the label's unit, or the probability of the class), and
        ``embedding`` ``(N, D)``.

    Raises:
        ContractError: The run is damaged, or the store does not hold what its encoder expects.
        DataError: There are no such records.
    """
    loaded = load_run(run)
    contract = loaded.contract
    if label is None and contract.task is not None:
        label = contract.task["label"]
    paths = [str(store)] if isinstance(store, str | Path) else [str(path) for path in store]
    source = open_source(
        paths, splits, signal=contract.signal, patients=patients, label=label, limit=limit
    )
    check_source(source, contract.signal)
    place = torch.device(_device() if device == "auto" else device)
    method = _method(loaded).to(place)
    found: dict[str, list[Tensor]] = {}
    loader = DataLoader(source.dataset, batch_size=batch_size, num_workers=workers)
    for step, batch in enumerate(loader):
        seed_draws(0, step)  # dropout at test (B7) is drawn, and must be drawn again alike
        signals = [batch[name].to(place) for name in ("ecg", "gain") if name in batch]
        ecg = loaded.prepare.to(place)(*signals)
        for name, values in _predict(method, ecg).items():
            found.setdefault(name, []).append(values.cpu())

    names = source.column("record_id").astype(str)
    nobody = np.zeros(len(names), dtype=bool)
    before = contract.pretrained_on
    known = {
        "record_id": names,
        "patient_id": source.column("patient_id").astype(str),
        "trained_on": contract.trained_on.hold(names),
        "pretrained_on": nobody if before is None else before.hold(names),
        **{name: source.column(name) for name in EXTRA if name in source.table},
    }
    if label is not None:
        known["label"] = source.column(label).astype(np.float64)
    return known | {name: torch.cat(values).numpy() for name, values in found.items()}


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
        optim=Optim(),
    )
    return method.eval()


def _predict(method: torch.nn.Module, ecg: Tensor) -> dict[str, Tensor]:
    if isinstance(method, Finetune):
        return method.predict_step({"ecg": ecg}, 0)
    return {"embedding": method(ecg.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)).float()}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
