"""Classes from prompts alone, and reports from ECGs: what an encoder that was aligned can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ecgfast.data.records import DataError
from ecgfast.data.source import Source, open_source
from ecgfast.eval import first_ranks, multilabel_rows, retrieval_rows
from ecgfast.methods.views import blank
from ecgfast.models.heads import Projector
from ecgfast.models.text import TextEncoder
from ecgfast.systems.finetune import Loaded, load_run
from ecgfast.systems.model import configured
from ecgfast.systems.parts import check_source, from_description
from ecgfast.systems.prompts import groups_of
from ecgfast.systems.scored import refuse_seen, stores_of
from ecgfast.systems.texts import CODES, embedded, of_records, text_encoder, texts_of
from ecgfast.train.checkpoint import load_weights
from ecgfast.train.contract import PROJECTORS, ContractError
from ecgfast.train.errors import RunError

LEVEL = 0.95
SCHEMA = "ecgfast.zero_shot/1"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to score and how.

    Attributes:
        run: Folder of an aligned encoder.
        stores: Folders of records; none takes what the run was trained from.
        split: Part of the records.
        prompts: File of classes and their texts; empty takes the statements of the column.
        column: Of SCP codes.
        statements: The table that explains codes; SYNTHETIC records bring their own.
        text: Text model; empty takes the run's.
        least: Patients with and without a class, below which it is left out.
        draws: Of patients.
        seed: Of the draws.
        batch_size: Records at a time.
        workers: Processes that load.
        device: As torch names it.
    """

    run: str
    stores: tuple[str, ...] = ()
    split: str = "test"
    prompts: str = ""
    column: str = CODES
    statements: str = ""
    text: str = ""
    least: int = 10
    draws: int = 1000
    seed: int = 0
    batch_size: int = 64
    workers: int = 0
    device: str = "cpu"

    @property
    def how(self) -> dict[str, Any]:
        """Words of the bootstrap."""
        return {"draws": self.draws, "seed": self.seed, "level": LEVEL}


class Aligned(NamedTuple):
    """An encoder that was aligned, its projectors, and what makes vectors of texts."""

    loaded: Loaded
    ecg: nn.Module
    text: nn.Module
    encoder: TextEncoder


def load_aligned(folder: str, *, text: str = "", device: str = "cpu") -> Aligned:
    """Rebuilds what a pretraining with texts has left.

    Args:
        folder: Of the run.
        text: Text model; empty takes that of the run.
        device: Of all.

    Raises:
        ContractError: The run was not aligned with texts, or is damaged.
        RunError: The text model is another than the run's, or cannot be used.
    """
    loaded = load_run(folder)
    about = loaded.contract.alignment
    if about is None:
        raise ContractError(
            f"error[contract] {folder} was not aligned with texts: ecgfast pretrain ecg-report "
            "makes a run that was"
        )
    known = about["text"]
    model = text or configured(folder).get("text", {}).get("model", "")
    encoder = text_encoder(
        str(model), pooling=known["pooling"], max_tokens=known["max_tokens"], device=device
    )
    if encoder.name != known["name"] or encoder.dim != known["dim"]:
        raise RunError(
            f"error[text] {folder} was aligned with texts by {known['name']} ({known['dim']} "
            f"numbers), and this is {encoder.name or 'nobody knows what'} ({encoder.dim}): name "
            "the model that it was trained with, --text",
            code=3,
        )
    parts = []
    for name in PROJECTORS:
        projector = from_description(about[name], {"Projector": Projector})
        path = Path(folder) / f"{name}.safetensors"
        load_weights(path, projector, loaded.contract, say=lambda line: None)
        parts.append(projector.eval().to(device))
    if about[PROJECTORS[0]]["arguments"].get("embedding_dim") != loaded.contract.embedding_dim:
        raise ContractError(f"error[contract] {folder}: projector and encoder do not fit")
    return Aligned(loaded, parts[0], parts[1], encoder)


@torch.inference_mode()
def project_ecgs(
    aligned: Aligned, source: Source, *, batch_size: int = 64, workers: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Unit projections ``(N, P)`` of records, and which have a sample at all once prepared."""
    device = next(aligned.ecg.parameters()).device
    encoder, prepare = aligned.loaded.encoder.to(device), aligned.loaded.prepare.to(device)
    rows, seen = [], []
    for batch in DataLoader(source.dataset, batch_size=batch_size, num_workers=workers):
        signals = [batch[name].to(device) for name in ("ecg", "gain") if name in batch]
        ecg = prepare(*signals)
        seen.append(~blank(ecg))
        rows.append(_unit(aligned.ecg(encoder(ecg.nan_to_num(0.0, 0.0, 0.0)))))
    return torch.cat(rows).cpu().numpy(), torch.cat(seen).cpu().numpy()


@torch.inference_mode()
def project_texts(aligned: Aligned, vectors: Tensor) -> NDArray[np.float64]:
    """Unit projections ``(M, P)`` of texts' vectors ``(M, E)``."""
    device = next(aligned.text.parameters()).device
    return _unit(aligned.text(vectors.to(device))).cpu().numpy()


def _unit(rows: Tensor) -> Tensor:
    return nn.functional.normalize(rows.double(), dim=1)


def zero_shot(asked: Asked) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Scores records by prompts, and reports by records.

    The score of a class is the mean cosine of an ECG's projection with those of the class's texts,
    which puts records in the same order as the cosine with the mean of these unit projections.
    Candidates of retrieval are the different texts of the part, each once.

    Returns:
        What ``metrics.json`` holds, and columns of a record each: ids, ``score_X`` of each class
        and ``rank``, that of its own text.

    Raises:
        ContractError: The run is damaged, was not aligned, or expects other records.
        DataError: There are no such records or classes, or test records were trained on.
        RunError: The text model is another than the run's, or statements are missing.
    """
    aligned = load_aligned(asked.run, text=asked.text, device=asked.device)
    contract = aligned.loaded.contract
    stores = stores_of(asked.run, asked.stores)
    patients = int(configured(asked.run).get("data", {}).get("patients") or 400)
    source = open_source(stores, (asked.split,), signal=contract.signal, patients=patients)
    check_source(
        source, contract.signal, model=contract.model, pages=contract.pages, clips=contract.clips
    )
    names = source.column("record_id").astype(str)
    before = contract.pretrained_on
    seen = {
        "record_id": names,
        "trained_on": contract.trained_on.hold(names),
        "pretrained_on": np.zeros(len(names), bool) if before is None else before.hold(names),
    }
    refuse_seen(seen, asked.split)
    groups = groups_of(
        source, prompts=asked.prompts, column=asked.column, statements=asked.statements
    )
    ecg, there = project_ecgs(aligned, source, batch_size=asked.batch_size, workers=asked.workers)
    if not there.any():
        raise DataError(f"error[empty] none of {len(source)} records has a sample left")
    patient = source.patients()[there]
    columns: dict[str, NDArray[Any]] = {"record_id": names}
    columns["patient_id"] = source.column("patient_id").astype(str)
    columns = {name: column[there] for name, column in columns.items()}
    told = []
    for group in groups:
        scores = _scores(aligned, ecg[there], group.prompts)
        rows, without = multilabel_rows(
            np.stack([group.truth[name][there] for name in group.prompts], axis=1),
            scores,
            patient,
            classes=list(group.prompts),
            least=asked.least,
            **asked.how,
        )
        told.append(
            {"group": group.name, "prompts": group.prompts, "metrics": rows, "left_out": without}
        )
        for name, score in zip(group.prompts, scores.T, strict=True):
            columns[f"score_{name}" if group.name != "superclasses" else f"class_{name}"] = score
    retrieval, rank = _retrieve(asked, aligned, source, ecg, there)
    if rank is not None:
        columns["rank"] = rank[there]
    return {
        "schema": SCHEMA,
        "run": asked.run,
        "stores": stores,
        "split": asked.split,
        "synthetic": bool(source.synthetic or contract.synthetic),
        "records": int(there.sum()),
        "patients": len(np.unique(patient)),
        "blank": int((~there).sum()),
        "seen": int((seen["trained_on"] | seen["pretrained_on"]).sum()),
        "text": contract.alignment["text"] if contract.alignment else None,
        "bootstrap": asked.how,
        "least_patients": asked.least,
        "classes": told,
        "retrieval": retrieval,
    }, columns


def _scores(
    aligned: Aligned, ecg: NDArray[np.float64], prompts: Mapping[str, Sequence[str]]
) -> NDArray[np.float64]:
    """Mean cosines ``(N, C)`` of ECGs and the texts of each class."""
    texts = sorted({text for several in prompts.values() for text in several})
    cosines = ecg @ project_texts(aligned, embedded(aligned.encoder, texts)).T
    place = {text: i for i, text in enumerate(texts)}
    means = [cosines[:, [place[text] for text in several]].mean(1) for several in prompts.values()]
    return np.stack(means, axis=1)


def _retrieve(
    asked: Asked,
    aligned: Aligned,
    source: Source,
    ecg: NDArray[np.float64],
    there: NDArray[np.bool_],
) -> tuple[dict[str, Any], NDArray[np.float64] | None]:
    """Metrics of finding an ECG's own text, or why there are none; ranks ``(N,)``."""
    assert aligned.loaded.contract.alignment is not None
    about = aligned.loaded.contract.alignment["text"]
    told: dict[str, Any] = {"column": about["column"], "missing": None, "metrics": []}
    try:
        written = texts_of(
            source, about["column"], asked.statements, unlikely=about["unlikely"], whose=""
        )
        found = of_records(aligned.encoder, written)
    except (DataError, RunError) as error:  # scores of classes do not need them
        return told | {"missing": str(error).splitlines()[0]}, None
    asks = there & (found.row >= 0)
    if not asks.any():
        return told | {"missing": "no record has both a sample and a text"}, None
    held = np.unique(found.row[asks])
    cosines = ecg[asks] @ project_texts(aligned, found.vectors[held]).T
    match = found.ids[found.row[asks], None] == found.ids[held]
    patient = source.patients()[asks]
    rows = retrieval_rows(cosines, match, patient, **asked.how)
    rank = np.full(len(source), np.nan)
    rank[asks] = first_ranks(cosines, match)
    told |= {"records": int(asks.sum()), "candidates": len(held), "metrics": rows}
    return told, rank
