"""Time to heart failure on SYNTHETIC median beats: ``python bench/survival.py OUT STAGE``.

For each of SEEDS a cohort of PATIENTS of its own, one record each, is cut into two halves with as
many events; either half trains (of these one in five chooses the weights), the other is the test
part. So a seed has two splits, and the seeds share nobody. Pretraining is on other patients.

    stores   the cohorts and their halves, and the records to pretrain on
    runs     of each of ARMS a pretraining a seed, where it has one, and a fit a half
    probes   of each of ARMS that has a pretraining, Cox's model on its frozen embeddings
    table    C-index by arm, the mean over seeds [95 % interval by Student], and paired differences

Stages skip what is there, so `runs` may run twice side by side with other SEEDS or ARMS. Settings
are environment variables: see the top of the file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgfast.cli import main as ecgfast
from ecgfast.config import LEADS, Signal
from ecgfast.data.store import StoreWriter
from ecgfast.data.synthetic import KNOWN, make_cohort
from ecgfast.eval.label_efficiency import over_seeds
from ecgfast.eval.survival import c_index
from ecgfast.systems.cox_biomarkers import fit_cox
from ecgfast.systems.predict import predict
from ecgfast.transforms.biomarkers import BIOMARKERS, biomarkers
from ecgfast.transforms.recipes import recipe_named
from ecgfast.transforms.signal import Prepare

SEEDS = os.environ.get("SEEDS", "0 1 2 3 4").split()
ARMS = os.environ.get("ARMS", "none fast draw report").split()
PATIENTS = int(os.environ.get("PATIENTS", "4000"))
STEPS = os.environ.get("STEPS", "250")  # of a pretraining
FIT_STEPS = os.environ.get("FIT_STEPS", "60")
RECIPE = "dual_attention"
BLOCK = 256  # records prepared at a time
COMPONENTS = 32  # of embeddings
TIMED = {"label": "hf_days", "event": "hf_event"}

NETS = {"xresnet101": ["--encoder.net", "xresnet101", "--encoder.width", "16"]}
DUAL = ["--encoder.net", "dual_attention"]
FITS = {"fast": ["--optim.lr", "1e-3"]}  # no pretraining, and a rate of the encoder as the head's
PRETRAININGS = {
    "report": ["ecg-report", "--fit.batch_size", "64"],
    "draw": ["ecg-report", "--align", "none", "--fit.batch_size", "64"],
    "published": ["ecg-report", "--config", "published", "--fit.batch_size", "64"],
    "vae": ["vae", "--fit.batch_size", "64"],
    "random": ["ecg-report", "--align", "none", "--fit.batch_size", "64", "--optim.lr", "1e-12"],
}


def main() -> None:
    out, stage = Path(sys.argv[1]), sys.argv[2]
    {"stores": stores, "runs": runs, "probes": probes, "table": table}[stage](out)


def signal_words() -> list[str]:
    stored = Signal(fs=500.0, seconds=1.216, stored_recipe=RECIPE)
    words = ["--signal.fs", "500", "--signal.seconds", f"{stored.seconds}", "--signal.band", "null"]
    return [*words, "--signal.recipe", "", "--signal.stored_recipe", RECIPE]


def stores(out: Path) -> None:
    beats(out / "pretrain", PATIENTS, seed=1000)
    for seed in SEEDS:
        whole = out / f"cohort-{seed}"
        beats(whole, PATIENTS, seed=int(seed))
        halves(whole, int(seed))


def beats(path: Path, patients: int, *, seed: int) -> None:
    """A SYNTHETIC cohort as its median beats, one record a patient."""
    recipe = recipe_named(RECIPE)
    prepare = Prepare(fs=250.0, recipe=recipe)
    signal = Signal(fs=500.0, seconds=608 / 500, stored_recipe=RECIPE)
    writer = StoreWriter(
        path,
        signal,
        recipe=recipe.to_dict(),
        units="none",
        made_by={"SYNTHETIC": {"patients": patients, "visits": [1, 1], "seed": seed}},
        synthetic=True,
        plan=f"beats {patients} {seed}",
    )
    if writer.finished:
        return
    ecg, known = make_cohort(patients, signal=Signal(), visits=(1, 1), seed=seed)
    for begin in range(writer.done, patients, BLOCK):
        rows = range(begin, min(begin + BLOCK, patients))
        for row, beat in zip(rows, prepare(torch.from_numpy(ecg[begin : rows.stop])), strict=True):
            writer.add(
                beat.numpy(),
                record_id=str(known["record_id"][row]),
                patient_id=str(known["patient_id"][row]),
                split="train",
                labels={name: known[name][row].item() for name in KNOWN},
                source=f"SYNTHETIC seed {seed}",
            )
    writer.close()


def halves(whole: Path, seed: int) -> None:
    """The store twice, with the same records and other parts."""
    table = pd.read_parquet(whole / "manifest.parquet")
    draw, event = np.random.default_rng(seed), table["hf_event"].to_numpy() == 1
    place = np.empty(len(table), np.int64)  # in an order that is drawn, among those of the like
    for kind in (event, ~event):
        place[kind] = draw.permutation(int(kind.sum()))
    for half in (0, 1):
        split = np.where(place % 2 == half, np.where(place % 10 < 2, "val", "train"), "test")
        path = whole.with_name(f"{whole.name}-{half}")
        if path.exists():
            continue
        shutil.copytree(whole, path, copy_function=os.link)
        (path / "manifest.parquet").unlink()
        table.assign(split=split).to_parquet(path / "manifest.parquet")


def runs(out: Path) -> None:
    for seed in SEEDS:
        for arm in ARMS:
            start = pretrained(out, arm, seed)
            for half in (0, 1):
                fit(out, arm, seed, half, start)


def pretrained(out: Path, arm: str, seed: str) -> Path | None:
    if arm not in PRETRAININGS:
        return None
    path = out / f"pre-{arm}-{seed}"
    if not (path / "contract.json").exists():
        steps = "1" if arm == "random" else STEPS
        how = ["--data.splits", "[train]", "--fit.steps", steps, "--fit.seed", seed]
        how += ["--data.paths", f"[{out / 'pretrain'}]", "--fit.progress", "false"]
        ecgfast(["pretrain", *PRETRAININGS[arm], *signal_words(), *how, "--fit.out", str(path)])
    return path


def fit(out: Path, arm: str, seed: str, half: int, start: Path | None) -> None:
    path, store = out / f"fit-{arm}-{seed}-{half}", out / f"cohort-{seed}-{half}"
    if (path / "test.json").exists():
        return
    if arm in ("biomarkers", "known"):
        hazards = biomarker_hazards if arm == "biomarkers" else known_hazards
        write(path, *hazards(out, seed, half))
        return
    words = ["finetune", "--config", "survival", "--data.paths", f"[{store}]"]
    words += ["--label", TIMED["label"], "--event", TIMED["event"], "--fit.steps", FIT_STEPS]
    words += ["--fit.seed", seed, "--fit.progress", "false", "--fit.out", str(path)]
    if start is None:
        words += [*signal_words(), *NETS.get(arm, DUAL)]
    else:
        words += ["--init", str(start)]
    ecgfast([*words, *FITS.get(arm, [])])
    found = predict(path, store)
    write(path, found["score"], np.abs(found["label"]), found["label"] > 0)


def probes(out: Path) -> None:
    """Cox's model on the leading components of embeddings; the encoder saw none of these people."""
    for seed in SEEDS:
        for arm in ARMS:
            start = pretrained(out, arm, seed)
            if start is None or (out / f"probe-{arm}-{seed}-1" / "test.json").exists():
                continue
            found = predict(
                start, out / f"cohort-{seed}", splits=("train",), extra=tuple(TIMED.values())
            )
            for half in (0, 1):
                table = pd.read_parquet(out / f"cohort-{seed}-{half}" / "manifest.parquet")
                table = table.set_index("record_id").loc[found["record_id"]]
                train = (table["split"] != "test").to_numpy()
                time, event = (table[name].to_numpy() for name in TIMED.values())
                x = found["embedding"].astype(np.float64)
                x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-9)
                axes = np.linalg.svd(x[train], full_matrices=False)[2][:COMPONENTS]
                columns = {f"pc{i}": column for i, column in enumerate(axes @ x.T)}
                learned = {name: column[train] for name, column in columns.items()}
                model = fit_cox(learned, time[train], event[train], seed=int(seed))
                hazard = model.log_hazard({n: column[~train] for n, column in columns.items()})
                path = out / f"probe-{arm}-{seed}-{half}"
                write(path, hazard, time[~train], event[~train] == 1)


def write(path: Path, hazard: Any, time: Any, event: Any) -> None:
    facts = {"c_index": c_index(hazard, time, event), "events": int(event.sum())}
    path.mkdir(exist_ok=True)
    (path / "test.json").write_text(json.dumps(facts | {"records": len(time)}))


def known_hazards(out: Path, seed: str, half: int) -> tuple[Any, Any, Any]:
    """Of the numbers that the cohort's hazard is made of (docs/synthetic.md)."""
    table = pd.read_parquet(out / f"cohort-{seed}-{half}" / "manifest.parquet")
    table = table[table["split"] == "test"]
    weak = ((63 - table["lvef"]) / 12).clip(0, 3)
    hazard = 0.9 * np.log(table["mpcwp"]) / 0.4724 + 0.6 * weak + 0.4 * table["af"]
    hazard += 0.2 * table["hypertension"] + 0.3 * table["infarct"]
    hazard += 0.35 * (table["age"] - 63) / 14
    return hazard.to_numpy(), table["hf_days"].to_numpy(), table["hf_event"].to_numpy() == 1


def biomarker_hazards(out: Path, seed: str, half: int) -> tuple[Any, Any, Any]:
    """Of Cox's model on what is measured in whole records, with all of a half to learn from."""
    table = pd.read_parquet(out / f"cohort-{seed}-{half}" / "manifest.parquet")
    kept = out / f"biomarkers-{seed}.npy"
    if not kept.exists():
        ecg, known = make_cohort(PATIENTS, signal=Signal(), visits=(1, 1), seed=int(seed))
        assert (known["record_id"] == table["record_id"]).all()
        pieces = torch.from_numpy(ecg).split(BLOCK)
        found = [biomarkers(piece, fs=250.0, leads=LEADS).values for piece in pieces]
        np.save(kept, np.concatenate(found))
    columns = dict(zip(BIOMARKERS, np.load(kept).T, strict=True))
    train = (table["split"] != "test").to_numpy()
    time, event = table["hf_days"].to_numpy(), table["hf_event"].to_numpy()
    learned = {name: column[train] for name, column in columns.items()}
    model = fit_cox(learned, time[train], event[train], seed=int(seed))
    hazard = model.log_hazard({name: column[~train] for name, column in columns.items()})
    return hazard, time[~train], event[~train] == 1


def table(out: Path) -> None:
    for how, title in (("fit", "All of the network trained"), ("probe", "Frozen embeddings")):
        found: dict[str, dict[str, float]] = {}
        for path in sorted(out.glob(f"{how}-*-0/test.json")):
            arm, seed, _ = path.parent.name.removeprefix(f"{how}-").rsplit("-", 2)
            other = path.parent.with_name(f"{how}-{arm}-{seed}-1") / "test.json"
            if other.exists():
                both = [json.loads(p.read_text())["c_index"] for p in (path, other)]
                found.setdefault(arm, {})[seed] = float(np.mean(both))
        base = found.get("none" if how == "fit" else "random", {})
        print(f"| {title} | seeds | C-index | above the first |\n|---|---|---|---|")
        for arm in sorted(found, key=lambda name: found[name] is not base):
            by_seed = found[arm]
            gain = [by_seed[s] - base[s] for s in by_seed if s in base and by_seed is not base]
            cells = len(by_seed), interval(by_seed.values()), interval(gain, sign="+")
            print(f"| {arm} | " + " | ".join(map(str, cells)) + " |")
        print()


def interval(values: Any, sign: str = "") -> str:
    numbers = list(values)
    if len(numbers) < 2:
        return "".join(f"{value:{sign}.3f}" for value in numbers)
    found = over_seeds(numbers)
    low, high = (f"{found[end]:{sign}.3f}" for end in ("lo", "hi"))
    return f"{found['estimate']:{sign}.3f} [{low}, {high}]"


if __name__ == "__main__":
    main()
