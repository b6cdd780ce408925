"""Wiring of neighbour graphs: made once, of all records, and read where positives are dealt."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from ecgfast.config import Signal
from ecgfast.config.neighbours import Comparison, Config
from ecgfast.data.identity import Identity, identity
from ecgfast.data.neighbours import (
    Neighbours,
    read_about,
    read_neighbours,
    write_at_once,
    write_neighbours,
)
from ecgfast.data.purity import purity
from ecgfast.data.sampler import Partners
from ecgfast.data.source import Source, open_source
from ecgfast.miners.distance import EmbeddingDistance, InputDistance, rate_factor
from ecgfast.miners.graph import Graph, grow
from ecgfast.systems.finetune import load_run
from ecgfast.systems.parts import (
    beats,
    check_source,
    describe,
    preparation,
    prepared,
    settled_recipe,
)
from ecgfast.train.contract import ContractError, check_signal
from ecgfast.train.errors import RunError
from ecgfast.train.fit import say

UNFINISHED = ".unfinished"  # folder of what a run that was killed goes on from


def input_distance(
    how: Comparison, signal: Signal, recipe: dict[str, Any] | None, *, keep: int = 0
) -> InputDistance:
    """What records of a signal are compared by, once they are prepared; keeps MB of median beats.

    Raises:
        RunError: The mining rate is above theirs, or no ratio to it.
        ContractError: The stage expects another signal, or is no finished run.
    """
    if how.distance == "embedding":
        stage = load_run(how.stage)
        check_signal(
            stage.contract.signal,
            signal,
            what="--signal",
            who=f"stage {how.stage}",
            fields=[*Signal.__dataclass_fields__],
            way=f"give --signal as the stage has it ({describe(stage.contract)})",
        )
        if stage.contract.recipe != recipe:
            raise ContractError(
                f"error[contract] stage {how.stage} scales records by other training records than "
                f"these: recipe {signal.recipe} has another mean and spread there; take a recipe "
                "without a scale, or the records that the stage was trained on"
            )
        return EmbeddingDistance(stage.encoder)
    fs = prepared(signal, recipe)[0]
    try:
        factor = rate_factor(fs, how.mine_fs)
    except ValueError as error:
        raise RunError(f"error[mining] {error} (--mine_fs)", code=2) from error
    rate = fs * factor[0] / factor[1]
    radius = None if how.dtw_radius is None else round(how.dtw_radius * rate)
    return InputDistance(
        how.distance,
        cost=how.dtw_cost,
        radius=radius,
        gamma=how.soft_gamma,
        resample=factor,
        view=beats(fs) if how.mine_of == "beat" else None,
        zscore=how.mine_zscore,
        keep=keep,
    )


def neighbours_of(folder: str, source: Source, who: Identity, k: int) -> Partners:
    """The k nearest of each record among the records of a source, by a graph.

    Raises:
        DataError: There is no such graph, or it is of other records.
        RunError: None of the records has a neighbour.
    """
    graph = read_neighbours(folder)
    rows = graph.rows_among(source.column("record_id"), k)
    copy = (rows >= 0) & (who.record[rows] == who.record[:, None])
    rows = np.where(copy, -1, rows)
    alone = int((rows < 0).all(axis=1).sum())
    if alone == len(rows):
        raise RunError(
            f"error[neighbours] none of the {len(rows)} records has a neighbour among the others "
            f"in {folder}: make a graph of these records, or with a larger --k",
            code=2,
        )
    if alone:
        missing = int((~np.isin(source.column("record_id").astype(str), graph.record_id)).sum())
        say(
            f"{folder}: {alone} of {len(rows)} records have no neighbour among the others and are "
            f"no anchors ({missing} of them are not in the graph)"
        )
    return Partners.of_rows(rows)


def make(
    config: Config, stores: tuple[str, ...], out: Path, *, show: bool = True
) -> dict[str, Any]:
    """Makes a graph, or finishes one that was stopped; says what it found.

    Args:
        config: How records are compared.
        stores: Folders that `ecgfast convert` made; none takes the SYNTHETIC cohort.
        out: Folder for the graph.
        show: A bar.

    Returns:
        What neighbours.json says.

    Raises:
        RunError: The folder holds another graph, or there are too few records.
    """
    signal = config.signal
    source = open_source(
        stores,
        config.splits,
        signal=signal,
        patients=config.patients,
        limit=config.limit,
    )
    check_source(source, signal, chosen=True)
    if len(source) < 2:
        raise RunError(f"error[neighbours] {len(source)} record has no neighbour", code=2)
    if config.label and config.label not in source.table:
        raise RunError(
            f"error[label] there is no column {config.label!r}; there are "
            f"{', '.join(source.table.columns)} (--label)",
            code=2,
        )
    recipe = settled_recipe(signal, source)
    who = identity(source)
    settings = _settings(config, stores, source, who)
    if (out / "neighbours.json").exists():
        about = read_about(out)
        _expect_same(out, about.get("settings"), settings)
        say(f"{out} is finished: nothing to do; another --out starts anew")
        return about
    parts = out / UNFINISHED
    parts.mkdir(parents=True, exist_ok=True)
    begun = parts / "settings.json"
    if begun.exists():
        _expect_same(out, json.loads(begun.read_bytes()), settings)
    else:
        write_at_once(begun, json.dumps(settings, indent=1).encode())
    device = torch.device(_device() if config.device == "auto" else config.device)
    distance = input_distance(config, signal, recipe)
    compared, eligible = _compared(parts, config, source, recipe, distance, device, show)
    graph, seconds = _grown(parts, config, compared, eligible, who, distance, device, show)
    found = Neighbours(
        **{name: values.cpu().numpy() for name, values in graph._asdict().items()},
        record_id=source.column("record_id").astype(str),
        patient_id=source.table["patient_id"].fillna("").astype(str).to_numpy(),
        about={},
    )
    counts = {
        "records": len(source),
        "patients": len(np.unique(source.patients())),
        "incomplete": int((~eligible).sum()),
        "copies": len(source) - len(np.unique(who.record)),
    }
    values = source.column(config.label).astype(np.float64) if config.label else None
    about = {
        "synthetic": source.synthetic,
        "settings": settings,
        "recipe": recipe,
        "counts": counts,
        "seconds": round(seconds, 1),
        "purity": purity(found, who.patient, values, threshold=config.threshold, copies=who.record),
    }
    about = write_neighbours(out, Neighbours(**{**vars(found), "about": about}))
    shutil.rmtree(parts)
    return about


def _settings(
    config: Config, stores: tuple[str, ...], source: Source, who: Identity
) -> dict[str, Any]:
    """What a graph depends on, in plain values; how fast it was made is no part of it."""
    plain = json.loads(json.dumps(asdict(config)))
    for name in ("device", "save_every", "block", "label", "threshold"):
        del plain[name]
    digest = hashlib.sha256("\0".join(source.column("record_id").astype(str)).encode())
    digest.update(who.record.tobytes())
    return {**plain, "stores": list(stores), "records_sha256": digest.hexdigest()}


def _expect_same(out: Path, there: Any, here: dict[str, Any]) -> None:
    there = there if isinstance(there, dict) else {}
    differ = sorted(k for k in there.keys() | here.keys() if there.get(k) != here.get(k))
    if differ:
        lines = [f"  {key}: {there.get(key)} there, {here.get(key)} here" for key in differ]
        raise RunError(
            f"error[neighbours] {out} holds another graph; {len(differ)} settings differ:\n"
            + "\n".join(lines)
            + "\n  do: take another --out, or remove that folder",
            code=2,
        )


def _compared(
    parts: Path,
    config: Config,
    source: Source,
    recipe: dict[str, Any] | None,
    distance: InputDistance,
    device: torch.device,
    show: bool,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """All records as they are compared, prepared once, in a file that is read block by block."""
    path, whole = parts / "compared.npy", parts / "eligible.npy"
    if not whole.exists():  # written last
        prepare = preparation(config.signal, recipe).to(device)
        rows: NDArray[np.float32] | None = None
        eligible = np.zeros(len(source), dtype=bool)
        for at in _bar(range(0, len(source), config.block), "prepare", show):
            places = range(at, min(at + config.block, len(source)))
            batch = default_collate([source.dataset[row] for row in places])
            ecg = prepare(*[batch[name].to(device) for name in ("ecg", "gain") if name in batch])
            _, made, whole_ones = distance.compared(ecg)
            made = made.float()
            if rows is None:
                shape = (len(source), *made.shape[1:])
                rows = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            rows[places.start : places.stop] = made.cpu().numpy()
            eligible[places.start : places.stop] = whole_ones.cpu().numpy()
        assert rows is not None
        rows.flush()  # type: ignore[attr-defined]
        with whole.with_suffix(".partial").open("wb") as file:
            np.save(file, eligible)
        whole.with_suffix(".partial").replace(whole)
    return np.load(path, mmap_mode="r", allow_pickle=False), np.load(whole, allow_pickle=False)


def _grown(
    parts: Path,
    config: Config,
    compared: NDArray[np.float32],
    eligible: NDArray[np.bool_],
    who: Identity,
    distance: InputDistance,
    device: torch.device,
    show: bool,
) -> tuple[Graph, float]:
    """The graph, from the last state on the disk on; and the seconds that this call took."""
    path = parts / "state.safetensors"
    graph, begin = _state(path, config, len(eligible), device)
    stripes = -(-len(eligible) // config.block)

    def load(start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.array(compared[start:stop])).to(device)

    saved = begun = time.perf_counter()
    if begin:
        say(f"{parts.parent}: goes on after {begin} of {stripes} blocks")
    # a stripe is as long as what lies behind its row: the bar counts tiles
    with _tiles(stripes, begin, show) as bar:
        for done in grow(
            graph,
            load,
            distance,
            record=torch.from_numpy(who.record).to(device),
            eligible=torch.from_numpy(eligible).to(device),
            block=config.block,
            begin=begin,
            min_distance=config.min_distance,
        ):
            bar.update(stripes - done + 1)
            now = time.perf_counter()
            if now - saved >= config.save_every or done == stripes:
                state = {name: values.cpu() for name, values in graph._asdict().items()}
                place = {"done": str(done), "block": str(config.block)}
                write_at_once(path, to_bytes(state, metadata=place))
                saved = now
    return graph, time.perf_counter() - begun


def _state(path: Path, config: Config, count: int, device: torch.device) -> tuple[Graph, int]:
    """What a run that was stopped has left, if its blocks were as high."""
    graph = Graph.empty(count, config.k, config.k_far, device)
    if not path.exists():
        return graph, 0
    try:
        with safe_open(str(path), framework="pt") as file:
            place = file.metadata() or {}
            if place.get("block") != str(config.block):
                say(f"{path}: made with --block {place.get('block')}, begins anew")
                return graph, 0
            found = Graph(*(file.get_tensor(name).to(device) for name in Graph._fields))
            return found, int(place["done"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"error[neighbours] {path}: {error}; remove it to begin anew") from error


def _tiles(stripes: int, begin: int, show: bool) -> tqdm[Any]:
    def behind(rows: int) -> int:
        return rows * (rows + 1) // 2

    total = behind(stripes)
    return tqdm(
        total=total,
        initial=total - behind(stripes - begin),
        desc="compare",
        unit="tile",
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        disable=not show,
    )


def _bar(places: range, what: str, show: bool) -> Any:
    return tqdm(
        places, what, mininterval=0.5, leave=False, disable=not (show and sys.stderr.isatty())
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
