"""Records, and the distances by which the studies of neighbours compare them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from neighbours import SEED, Batches, Floats, summed
from numpy.typing import NDArray
from torch import Tensor

from ecgfast.data.store import ECGStore
from ecgfast.miners.distance import lead_dtw
from ecgfast.ops import dtw, pairwise_distance, resample_poly, soft_dtw
from ecgfast.transforms import median_beats
from ecgfast.transforms.signal import Prepare

BAND = (0.5, 40.0)  # Hz, zero phase
BATCH, BATCHES = 64, 200
ALIKE = 0.99  # correlation from which on two records are taken for one recording
SCALES = {"none": "mV", "lead": "z", "record": "rec", "robust": "rob"}
LEADS = {
    "12": range(12),
    "8": (0, 1, *range(6, 12)),  # the others are sums of I and II
    "limb": range(6),
    "I": (0,),
    "II": (1,),
    "V1-V6": range(6, 12),
}
LABELS = {
    "norm": "auroc",
    "unacceptable": "auroc",
    "sex": "auroc",
    "age": "pearson_r",
    "mpcwp": "pearson_r",
    "high": "auroc",
}
SINUS_RHYTHM = "426783006"  # SNOMED CT
BEFORE, BEAT = 0.25, 0.75  # s: of a median beat before R, and all of it
SPREAD = (0.05, 0.95)  # quantiles of a lead, what "robust" divides by


Relabel = Callable[[pd.DataFrame], pd.DataFrame]


class Records(NamedTuple):
    """A set: millivolts ``(N, L, T)``, people, labels (NaN: unknown)."""

    name: str
    fs: float
    ecg: Tensor
    patient: NDArray[np.str_]
    labels: dict[str, Floats]
    day: NDArray[np.str_] | None = None  # on which it was recorded


class Case(NamedTuple):
    """A distance: of what scale, by what metric, at what rate, with what radius in seconds."""

    scale: str
    metric: str
    fs: float = 100.0
    radius: float | None = None
    view: str = "record"  # or its median beat, or its slope
    leads: str = "12"
    band: tuple[float, float] | None = BAND

    @property
    def reach(self) -> int | None:
        """The radius in samples."""
        return None if self.radius is None else round(self.radius * self.fs)

    @property
    def warps(self) -> bool:
        return self.metric.startswith(("dtw ", "soft_dtw "))

    def __str__(self) -> str:
        plain = {"euclidean": "Euclidean", "mean_l1": "mean L1", "lead_dtw": "DTW over the leads"}
        plain |= {"spectrum": "spectrum, Euclidean", "spectrum l1": "spectrum, L1"}
        how = plain.get(self.metric, self.metric)
        if self.warps:
            where = "full" if self.radius is None else f"{self.radius:g} s"
            how = self.metric.replace("soft_dtw ", "soft-DTW, gamma ").replace("dtw ", "DTW ")
            how = f"{how}, {where}"
        words = [SCALES[self.scale], how]
        words += [{"beat": "median beat"}.get(self.view, self.view)] * (self.view != "record")
        words += [f"{self.fs:g} Hz"] * (self.fs != 100)
        words += [self.leads if self.leads.startswith("V") else f"{self.leads} leads"] * (
            self.leads not in ("12", "I", "II")
        )
        words += [f"lead {self.leads}"] * (self.leads in ("I", "II"))
        words += [pass_band(self.band)] * (self.band != BAND)
        return ", ".join(words)


class Both(NamedTuple):
    """Two distances added, each in the unit of its median; ``share`` of the first."""

    first: Case
    second: Case
    share: float = 0.5

    def __str__(self) -> str:
        return f"{self.share:g} x ({self.first}) + {1 - self.share:g} x ({self.second})"


AnyCase = Case | Both


def pass_band(band: tuple[float, float] | None) -> str:
    return "no band-pass" if band is None else f"{band[0]:g}-{band[1]:g} Hz"


def stores(words: dict[str, Sequence[str | int | Path]], out: Path) -> Iterator[ECGStore]:
    """Of each name; what is not there yet is converted with its words after the usual ones."""
    for name, how in words.items():
        store = out / name.lower().replace(", ", "-").replace(" ", "-")
        if not (store / "store.json").exists():
            usual = ["--fs", 100, "--seconds", 10]
            command = [sys.executable, "-m", "ecgfast", "convert", *usual, *how, store]
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        yield ECGStore.open(store)


def records_of(
    name: str, stored: Sequence[ECGStore], relabel: Relabel = lambda table: table
) -> tuple[Records, list[str]]:
    """What is left of stores without second copies, and a line of counts."""
    fs = stored[0].signal.fs
    table = relabel(pd.concat([store.manifest for store in stored], ignore_index=True))
    ecg = torch.from_numpy(np.stack([store.read(i) for store in stored for i in range(len(store))]))
    ids = table["patient_id"].astype(str).to_numpy()
    patient = np.where(ids == "", "record " + table["record_id"].astype(str).to_numpy(), ids)
    flat = Prepare(fs=fs, band=BAND)(ecg).flatten(1).double()
    flat = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
    twin = (flat @ flat.mT).numpy() > ALIKE
    kept = np.flatnonzero(~np.tril(twin, -1).any(axis=1))
    labels = {key: table[key].to_numpy(np.float64)[kept] for key in LABELS if key in table}
    day = table["ecg_date"].astype(str).to_numpy()[kept] if "ecg_date" in table else None
    records = Records(name, fs, ecg[torch.from_numpy(kept)], patient[kept], labels, day)
    return records, [name, str(len(ecg)), *counted(records, len(ecg))]


def sinus_rhythm(table: pd.DataFrame) -> pd.DataFrame:
    """Column norm where there are codes of SNOMED CT: sinus rhythm and nothing else."""
    return table.assign(norm=(table["dx"] == SINUS_RHYTHM) * 1.0) if "dx" in table else table


def counted(records: Records, stored: int) -> list[str]:
    """Second copies, records used, patients, signal and labels in words."""
    counts = np.unique(records.patient, return_counts=True)[1]
    values = records.labels.items()
    return [
        *map(str, (stored - len(records.ecg), len(records.ecg), len(counts))),
        f"{(counts > 1).sum()} ({counts[counts > 1].sum()} records)",
        f"{records.ecg.shape[2] / records.fs:g} s at {records.fs:g} Hz",
        ", ".join(f"{key} {np.isfinite(value).sum()}" for key, value in values) or "-",
    ]


def distances(records: Records, case: AnyCase, out: Path) -> NDArray[np.floating]:
    """The matrix ``(N, N)`` of a case, from OUT if it is there."""
    if isinstance(case, Both):
        first, second, share = case
        return summed(distances(records, first, out), distances(records, second, out), share)
    place = "full" if case.radius is None else f"{case.radius:g}s"
    words = [records.name, case.scale, case.metric, f"{case.fs:g}Hz", place]
    words += [case.view] * (case.view != "record") + [case.leads] * (case.leads != "12")
    words += [pass_band(case.band)] * (case.band != BAND)
    path = out / "distances" / ("-".join(words).lower().replace(" ", "-") + ".npy")
    if path.exists():
        return np.load(path)
    made = measured(viewed(records, case), case).numpy()
    path.parent.mkdir(exist_ok=True)
    np.save(path, made)
    return made


def viewed(records: Records, case: Case) -> Tensor:
    """The signals that a case compares; NaN for a record with too few beats."""
    ecg = Prepare(fs=records.fs, band=case.band)(records.ecg)
    if len(ecg[0]) == 12:
        ecg = ecg[:, list(LEADS[case.leads])]
    fs, poor = records.fs, torch.zeros(len(ecg), dtype=torch.bool)
    if case.view == "beat":
        size = {"samples": round(BEAT * fs), "before": round(BEFORE * fs)}
        beats = median_beats(ecg, fs=fs, **size)
        ecg, poor = beats.beats, ~beats.valid
    elif case.view == "slope":
        ecg = torch.gradient(ecg, dim=2)[0] * fs
    ecg = robust(ecg) if case.scale == "robust" else Prepare(fs=fs, normalise=case.scale)(ecg)
    if case.fs != fs:
        ecg = resample_poly(ecg, round(case.fs), round(fs), padtype="line")
    ecg[poor] = torch.nan
    return ecg


def robust(ecg: Tensor) -> Tensor:
    """Every lead without its median, over the distance of two quantiles."""
    low, middle, high = torch.quantile(ecg, torch.tensor([SPREAD[0], 0.5, SPREAD[1]]), dim=2)
    return (ecg - middle[..., None]) / (high - low)[..., None].clamp(min=1e-3)


def measured(ecg: Tensor, case: Case) -> Tensor:
    """All pairs of ``(N, L, T)``; one with NaN is farther from all others than any other pair."""
    if case.metric == "lead_dtw":
        made = lead_dtw(ecg)
    elif case.metric.startswith("dtw "):
        made = dtw(ecg, cost=case.metric.removeprefix("dtw "), radius=case.reach)
    elif case.metric.startswith("soft_dtw "):
        gamma = float(case.metric.removeprefix("soft_dtw "))
        made = soft_dtw(ecg, gamma=gamma, radius=case.reach, divergence=True)
    elif case.metric.startswith("spectrum"):
        size = torch.fft.rfft(ecg, dim=2).abs().flatten(1)
        made = pairwise_distance(size, metric="l1" if case.metric == "spectrum l1" else "euclidean")
    else:
        made = pairwise_distance(ecg.flatten(1), metric=case.metric)
    return made.nan_to_num(1.001 * float(made.nan_to_num(0).max()))


def batches_of(count: int, size: int = BATCH) -> Batches:
    """Random batches, the same for every distance."""
    draw = np.random.default_rng(SEED)
    return [draw.permutation(count)[:size] for _ in range(BATCHES)]
