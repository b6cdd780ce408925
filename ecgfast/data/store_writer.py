"""Writing a store of signals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.config import Signal
from ecgfast.data.records import Issue
from ecgfast.data.shard_writer import ShardWriter
from ecgfast.data.store_format import NAN, fingerprint, quantise


class StoreWriter(ShardWriter):
    """Writes a store of signals; see :class:`ecgfast.data.shard_writer.ShardWriter`.

    Args:
        path: Folder, made if need be.
        signal: Leads, rate, and length of all records.
        recipe: All words of the preprocessing that they have been through, which the signal names.
        units: mV, or none after a recipe that normalises.
        made_by: Anything of plain values that says where they come from.
        synthetic: The records are made up.
        plan: A word for what is being done; a folder of another plan is refused.
        overwrite: Remove a store that is there.
        shard_records: Records a shard.
    """

    def __init__(
        self,
        path: str | Path,
        signal: Signal,
        *,
        recipe: Mapping[str, Any] | None = None,
        units: str = "mV",
        made_by: Mapping[str, Any] | None = None,
        synthetic: bool = False,
        plan: str = "",
        overwrite: bool = False,
        shard_records: int = 2048,
    ) -> None:
        self.signal = signal
        about = {
            "synthetic": synthetic,
            "contract": {
                "leads": list(signal.leads),
                "fs": signal.fs,
                "seconds": signal.seconds,
                "units": units,
                "recipe": dict(recipe) if recipe else None,
            },
            "made_by": dict(made_by or {}),
        }
        super().__init__(
            path, about=about, plan=plan, overwrite=overwrite, shard_records=shard_records
        )

    def add(
        self,
        ecg: NDArray[Any],
        *,
        record_id: str,
        patient_id: str = "",
        split: str = "",
        labels: Mapping[str, Any] | None = None,
        issues: Iterable[Issue] = (),
        **row: Any,
    ) -> bool:
        """Adds a record (L, T) in mV; see `add_steps`."""
        steps, gain = quantise(ecg)
        return self.add_steps(
            steps,
            gain,
            record_id=record_id,
            patient_id=patient_id,
            split=split,
            labels=labels,
            issues=issues,
            **row,
        )

    def add_steps(
        self,
        steps: NDArray[np.int16],
        gain: float,
        *,
        record_id: str,
        patient_id: str = "",
        split: str = "",
        labels: Mapping[str, Any] | None = None,
        issues: Iterable[Issue] = (),
        keep_duplicates: bool = False,
        **row: Any,
    ) -> bool:
        """Adds a quantised record, or rejects it as the duplicate of an earlier one.

        Args:
            steps: (L, T) int16.
            gain: mV a step.
            record_id: Its name, unique in the store.
            patient_id: Whose it is; empty if nobody knows.
            split: train, val, test, or empty.
            labels: Columns of its own.
            issues: What becomes its flags.
            keep_duplicates: Flag a duplicate instead.
            row: n_valid, fs_source, source, source_sha256.

        Returns:
            Whether it is in.
        """
        shape = (len(self.signal.leads), self.signal.samples)
        if steps.shape != shape:
            raise ValueError(f"a record of this store is {shape}, got {steps.shape}")
        return self._put(
            steps,
            sha=fingerprint(steps, gain),
            record_id=record_id,
            patient_id=patient_id,
            split=split,
            labels=labels,
            issues=issues,
            duplicate="duplicate_signal",
            keep_duplicates=keep_duplicates,
            row={
                "gain": gain,
                "n_valid": int(row.get("n_valid", shape[1])),
                "n_nan": int((steps == NAN).sum()),
                "fs_source": float(row.get("fs_source", self.signal.fs)),
                "source": str(row.get("source", "")),
                "source_sha256": row.get("source_sha256", ""),
            },
        )
