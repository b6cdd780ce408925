"""Reading one record of 12 leads x 10 s at 250 Hz: the store against what one would do without it.

``ecgfast`` reads from the store; ``numpy`` loads a float32 file of that record; ``wfdb`` parses the
record's header and samples. Files are warm in all of them. The store's row is the claim: at most
0.1 ms. SYNTHETIC noise: what is in a record does not change how long it takes to read.
"""

from __future__ import annotations

import numpy as np
import pytest

from ecgfast.config import LEADS

N, FS, SECONDS = 256, 250, 10


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The same records as a store, as float32 files, and as WFDB."""
    pytest.importorskip("pandas")
    wfdb = pytest.importorskip("wfdb")
    from ecgfast.config import Signal
    from ecgfast.data.store import ECGStore, StoreWriter

    folder = tmp_path_factory.mktemp("records")
    draw = np.random.default_rng(0)
    writer = StoreWriter(folder / "store", Signal(fs=FS, seconds=SECONDS), synthetic=True)
    for n in range(N):
        ecg = draw.normal(size=(12, FS * SECONDS)).astype(np.float32)
        writer.add(ecg, record_id=f"r{n}")
        np.save(folder / f"r{n}.npy", ecg)
        wfdb.wrsamp(
            f"r{n}",
            fs=FS,
            units=["mV"] * 12,
            sig_name=list(LEADS),
            p_signal=ecg.T.astype(np.float64),
            fmt=["16"] * 12,
            write_dir=str(folder),
        )
    writer.close()
    return folder, ECGStore.open(folder / "store"), wfdb


@pytest.mark.parametrize("provider", ["ecgfast", "numpy", "wfdb"])
def bench_read_one_record(benchmark, records, provider):
    folder, store, wfdb = records
    read = {
        "ecgfast": store.read,
        "numpy": lambda n: np.load(folder / f"r{n}.npy"),
        "wfdb": lambda n: wfdb.rdsamp(str(folder / f"r{n}")),
    }[provider]
    order = np.random.default_rng(1).permutation(N).tolist()
    for n in order:  # warm
        read(n)

    def all_of_them():
        for n in order:
            read(n)

    benchmark(all_of_them)
    if benchmark.stats is not None:  # none under --benchmark-disable
        benchmark.extra_info["ms a record"] = round(benchmark.stats["median"] * 1e3 / N, 4)
        benchmark.extra_info["records/s"] = round(N / benchmark.stats["median"])
