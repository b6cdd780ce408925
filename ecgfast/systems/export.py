"""A run to be used elsewhere: a folder of its own, or one ONNX file that is held to torch."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import ecgfast
from ecgfast.data.source import Source, open_source
from ecgfast.models.clip_encoder import ClipEncoder
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.systems.model import Model, Network, configured, load
from ecgfast.systems.parts import check_source, describe, prepared
from ecgfast.train.card import CARD, write_card
from ecgfast.train.checkpoint import CONTRACT, write_at_once
from ecgfast.train.contract import PROJECTORS, to_json
from ecgfast.train.errors import RunError

OPSET = 20
ONNX, PARITY = "model.onnx", "parity.json"
FOLDER = (
    "encoder.safetensors",
    "head.safetensors",
    *(f"{name}.safetensors" for name in PROJECTORS),
    CONTRACT,
    "config.yaml",
    "intervals.json",
)
OUTPUTS = ("embedding", "score", "survival")  # as far as the run gives them
SLACK = 8.0  # times the error of torch's own float32, for sums in another order
RECORDS = 32  # that parity is measured on
Session = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


def export_folder(model: Model, out: str | Path) -> list[str]:
    """Copies what is needed to use a run, with a new card, and loads it once to be sure.

    Returns:
        The names of the files.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in FOLDER if (model.folder / name).is_file()]
    for name in names:
        shutil.copyfile(model.folder / name, out / name)
    write_card(model.folder, out=out, patients=training_patients(model))
    if load(out).weights != model.weights:
        raise RuntimeError(f"{out} holds other weights than {model.folder}")
    return [*names, CARD]


def export_onnx(model: Model, out: str | Path) -> Path:
    """Writes ``model.onnx``: prepared signals in, embeddings and scores out.

    The input ``ecg`` is ``(N, L, T)`` float32 after the preparation of the contract, with 0 where
    nothing was recorded; N is free, T that of the contract. The file's metadata hold the contract
    without the hashes of the training records.
    """
    import onnx

    refuse_pictures(model)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    network = _network(model.folder)
    example = torch.zeros(2, len(model.signal.leads), prepared_samples(model))
    several = network.kind == "survival" and bool(model.task.get("edges"))
    names = list(OUTPUTS[: 1 if network.head is None else 3 if several else 2])
    shape = {0: torch.export.Dim("N", min=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, to its own makers
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["ecg"],
            output_names=names,
            dynamic_shapes=(shape,),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    contract = to_json(dataclasses.replace(model.contract))
    for seen in ("trained_on", "pretrained_on"):
        contract.pop(seen)
    about = {
        "contract": json.dumps(contract),
        "ecgfast": ecgfast.__version__,
        "input": f"prepared ECG, {describe(model.contract)}; leads {' '.join(model.signal.leads)}",
        "weights": model.weights,
        "use": "research only; not a medical device",
    }
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    path = out / ONNX
    write_at_once(path, proto.SerializeToString())
    return path


def refuse_pictures(model: Model) -> None:
    """An ONNX file cannot draw pages, nor scale clips.

    Raises:
        RunError: The model does.
    """
    if isinstance(model.network.encoder, ClipEncoder):
        raise RunError(
            f"error[export] {model.folder} scales clips of videos, for which ONNX has no operator: "
            "take --to safetensors, which ecgfast.load opens",
            code=2,
        )
    if isinstance(model.network.encoder, PageEncoder):
        raise RunError(
            f"error[export] {model.folder} draws its records as pages, for which ONNX has no "
            "operator: take --to safetensors, which ecgfast.load opens",
            code=2,
        )


def parity(model: Model, session: Session, ecg: Tensor) -> dict[str, Any]:
    """Compares what an exported file says with torch, in float32 and in float64.

    The bound is what torch's own float32 is off from float64 on the same records, times ``SLACK``
    (other sums, other order), and at least 4 units in the last place of the largest value. The
    truth for both is float64.

    Args:
        model: The run.
        session: From prepared signals ``(N, L, T)`` to outputs of the file, in its order.
        ecg: Prepared signals without gaps.

    Returns:
        For each output the largest difference from torch and from float64, the bound, and ``ok``.
    """
    network = _network(model.folder)
    with torch.inference_mode():
        plain = [one.numpy() for one in network(ecg)]
        truth = [one.numpy() for one in _network(model.folder).double()(ecg.double())]
    said = session(ecg.numpy())
    singly = [
        np.concatenate(each) for each in zip(*map(session, ecg.numpy()[:, None]), strict=True)
    ]
    rows = []
    for name, p, t, s, one in zip(OUTPUTS, plain, truth, said, singly, strict=False):
        floor = 4 * float(np.finfo(np.float32).eps) * float(np.abs(t).max())
        bound = SLACK * float(np.abs(p - t).max()) + floor
        error = max(float(np.abs(x.astype(np.float64) - t).max()) for x in (s, one))
        rows.append(
            {
                "output": name,
                "largest_value": float(np.abs(t).max()),
                "from_torch": float(np.abs(s.astype(np.float64) - p).max()),
                "from_float64": error,
                "torch_from_float64": float(np.abs(p - t).max()),
                "bound": bound,
                "ok": bool(error <= bound),  # a NaN is not
            }
        )
    same_shapes = [s.shape for s in said] == [p.shape for p in plain]
    return {
        "records": len(ecg),
        "shape": list(ecg.shape),
        "slack": SLACK,
        "outputs": rows,
        "ok": bool(same_shapes and len(said) == len(plain) and all(row["ok"] for row in rows)),
    }


def runtime(path: Path) -> Session:
    """The file in onnxruntime, on the CPU."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    held = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda ecg: held.run(None, {"ecg": ecg})


def examples(model: Model, stores: list[str]) -> tuple[Tensor, bool]:
    """Prepared records to compare on, of stores or SYNTHETIC, and whether they are the latter."""
    source: Source = open_source(
        stores, ("all", "test"), signal=model.signal, patients=RECORDS, limit=RECORDS
    )
    check_source(source, model.signal)
    ecg = torch.from_numpy(np.stack([source.millivolts(row) for row in range(len(source))]))
    ready: Tensor = model.prepare(ecg.float())
    return ready.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), source.synthetic


def prepared_samples(model: Model) -> int:
    """T of what the network sees: some recipes change it."""
    return prepared(model.signal, model.contract.recipe)[1]


def training_patients(model: Model) -> int | None:
    """Patients of the training records, where their stores are still there."""
    data = configured(model.folder).get("data") or {}
    try:
        source = open_source(
            [str(path) for path in data.get("paths") or ()],
            ("all", "test"),
            signal=model.signal,
            patients=int(data.get("patients") or 400),
        )
    except (ValueError, OSError):
        return None
    seen = model.contract.trained_on.hold(source.column("record_id").astype(str))
    known = len(np.unique(source.column("record_id")[seen].astype(str)))
    if known < len(model.contract.trained_on.hashes):
        return None
    return len(np.unique(source.patients()[seen]))


def _network(folder: Path) -> Network:
    """In eval mode, dropout off: what is exported draws nothing."""
    model = Model(folder)
    return model.network.eval()
