"""The SYNTHETIC cohort: relations, replay, patients, rates; no one measurement tells a label."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from scipy import signal as scipy_signal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgfast.config import LEADS, Signal
from ecgfast.data import synthetic
from ecgfast.data.records import DataError
from ecgfast.data.store import ECGStore
from ecgfast.data.synthetic import BAD, BLOCK, LABELS, make_cohort, write_cohort
from ecgfast.data.synthetic_patients import draw_records, normals, uniforms, visits_of
from ecgfast.data.validate import validate

SHORT = Signal(seconds=2.0)
FROZEN_BITS = [[6443960550684884, 4663385339757818], [8962079353720998, 5779845376270112]]
LEAD = {name: i for i, name in enumerate(LEADS)}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own operations down."""


@pytest.fixture(scope="module")
def cohort():
    """Some 600 records, as the demo has them."""
    return make_cohort(240)


def same(a, b):
    return np.array_equal(a[0], b[0]) and all(np.array_equal(a[1][k], b[1][k]) for k in a[1])


# relations and replay


def test_limb_leads_obey_einthoven_and_goldberger(cohort):
    one, two, three, avr, avl, avf = cohort[0][:, :6].transpose(1, 0, 2).astype(np.float64)
    for lead, expected in (
        (three, two - one),
        (avr, -(one + two) / 2),
        (avl, one - two / 2),
        (avf, two - one / 2),
    ):
        assert np.abs(lead - expected).max() < 1e-5  # mV


def test_a_seed_replays_and_another_differs():
    first = make_cohort(3, signal=SHORT, seed=5)
    assert same(first, make_cohort(3, signal=SHORT, seed=5))
    other = make_cohort(3, signal=SHORT, seed=6)
    assert not np.array_equal(first[1]["mpcwp"][:3], other[1]["mpcwp"][:3])


@pytest.mark.parametrize("patients", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_fewer_patients_are_the_beginning_of_more(patients):
    more, fewer = make_cohort(2 * BLOCK, signal=SHORT), make_cohort(patients, signal=SHORT)
    n = len(fewer[0])
    assert same(fewer, (more[0][:n], {k: v[:n] for k, v in more[1].items()}))
    assert len(set(fewer[1]["patient_id"])) == patients


def test_thread_count_does_not_show():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(make_cohort(BLOCK + 5, signal=SHORT))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(*results)


def test_draws_are_even_and_frozen():
    u = uniforms(3, np.arange(500), 1, 200)
    counts = np.histogram(u, bins=100, range=(0, 1))[0]  # of 1e5 draws
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert abs(chi_square - 99) < 4 * (2 * 99) ** 0.5
    z = normals(3, np.arange(500), 1, 200)
    assert abs(z.mean()) < 4 / 1e5**0.5
    assert abs(z.std() - 1) < 4 / 2e5**0.5
    close = np.corrcoef(u[:, 0], uniforms(3, np.arange(500), 2, 1)[:, 0])[0, 1]
    assert abs(close) < 4 / 500**0.5
    # splitmix64 in whole numbers: the same on every machine
    bits = (uniforms(7, np.array([0, 12]), 3, 2) * 2**53).astype(np.int64)
    assert bits.tolist() == FROZEN_BITS


# patients


def test_parts_are_by_patient_in_the_stated_shares(cohort):
    table = cohort[1]
    parts = dict(zip(table["patient_id"], table["split"], strict=True))
    assert all(parts[p] == s for p, s in zip(table["patient_id"], table["split"], strict=True))
    assert [list(parts.values()).count(s) for s in ("train", "val", "test")] == [144, 48, 48]


def test_patients_come_again_and_change(cohort):
    table = cohort[1]
    patients, counts = np.unique(table["patient_id"], return_counts=True)
    assert (counts.min(), counts.max()) == (1, 4)
    assert len(set(table["record_id"])) == len(table["record_id"])
    of = {p: table["patient_id"] == p for p in patients[counts > 1]}
    assert all(len(set(table["sex"][rows])) == 1 for rows in of.values())
    assert all((np.diff(table["age"][rows]) > 0).all() for rows in of.values())
    within = np.mean([np.log(table["mpcwp"][rows]).var(ddof=1) for rows in of.values()])
    share = within / np.log(table["mpcwp"]).var()
    assert 0.15 < share < 0.6  # visits differ, patients differ more


def test_labels_have_the_stated_distributions():
    patient = np.arange(4000)
    labels = draw_records(0, patient, np.zeros_like(patient)).labels
    pressure = labels["mpcwp"]
    assert abs(pressure.mean() - 16) < 0.7
    assert abs(pressure.std() - 8) < 0.7
    assert ((pressure - pressure.mean()) ** 3).mean() / pressure.std() ** 3 > 0.8  # skewed right
    assert (pressure > 0).all()
    assert 0.25 < (pressure > 18).mean() < 0.37
    assert 0.52 < labels["sex"].mean() < 0.60
    assert 0.08 < labels["af"].mean() < 0.18
    assert 40 < labels["lvef"].mean() < 58
    assert 18 <= labels["age"].min() < labels["age"].max() < 105
    assert np.corrcoef(pressure, labels["lvef"])[0, 1] < -0.15
    assert set(labels) == set(LABELS)


# what a cardiologist would measure


def measurements(ecg, fs=250.0):
    """Single measurements of each record from its median beat, (N, F), and their names."""
    sos = scipy_signal.butter(2, (0.5, 40), "bandpass", fs=fs, output="sos")
    filtered = scipy_signal.sosfiltfilt(sos, ecg, axis=-1)
    independent = [LEAD[name] for name in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]
    speed = np.sqrt((np.gradient(filtered[:, independent], axis=-1) ** 2).sum(axis=1))
    speed = scipy_signal.fftconvolve(speed, np.ones((1, int(0.08 * fs))), "same", axes=-1)
    rows = [_measure(x, v, fs) for x, v in zip(filtered, speed, strict=True)]
    names = list(rows[0])
    table = np.array([[row[name] for name in names] for row in rows])
    table = np.concatenate([table, filtered.std(axis=-1)], axis=1)
    return table, names + [f"RMS {name}" for name in LEADS]


def _measure(x, speed, fs):
    before, after = int(0.30 * fs), int(0.45 * fs)
    peaks, _ = scipy_signal.find_peaks(
        speed, height=0.35 * np.percentile(speed, 99), distance=int(0.33 * fs)
    )
    peaks = peaks[(peaks > before) & (peaks < x.shape[1] - after)]
    rr = np.diff(peaks) / fs
    beat = np.median([x[:, p - before : p + after] for p in peaks], axis=0)
    beat = beat - beat[:, before - int(0.09 * fs) : before - int(0.06 * fs)].mean(1, keepdims=True)
    qrs = slice(before - int(0.06 * fs), before + int(0.08 * fs))
    p = slice(before - int(0.26 * fs), before - int(0.08 * fs))
    t = slice(before + int(0.13 * fs), None)
    steep = np.sqrt((np.gradient(beat, axis=1) ** 2).sum(axis=0))
    steep = steep[before - int(0.12 * fs) : before + int(0.14 * fs)]
    p_size = np.abs(beat[:, p]).sum(axis=0)
    row = {
        "rate": 60 / rr.mean(),
        "RR spread": rr.std() / rr.mean(),
        "QRS width": np.ptp(np.flatnonzero(steep > 0.12 * steep.max())) / fs,
        "axis": np.arctan2(1.155 * beat[LEAD["aVF"], qrs].sum(), beat[LEAD["I"], qrs].sum()),
        "P width": (p_size > 0.5 * p_size.max()).sum() / fs,
        "T peak": np.abs(beat[LEAD["II"], t]).argmax() / fs,
        "ST V2": beat[LEAD["V2"], before + int(0.09 * fs)],
        "limbs over chest": np.ptp(beat[:6, qrs], 1).mean() / np.ptp(beat[6:, qrs], 1).mean(),
    }
    for name in ("I", "II", "V1", "V2", "V5"):
        row[f"QRS {name}"] = np.ptp(beat[LEAD[name], qrs])
        row[f"P high {name}"] = beat[LEAD[name], p].max()
        row[f"P low {name}"] = beat[LEAD[name], p].min()
        row[f"T {name}"] = beat[LEAD[name], t][np.abs(beat[LEAD[name], t]).argmax()]
    return row


@pytest.fixture(scope="module")
def measured(cohort):
    return measurements(cohort[0])


def what_made_it(patients):
    """The parameters from which records are drawn: all that an ECG could tell, without noise."""
    number = np.arange(patients)
    each = visits_of(0, number, (1, 4))
    patient = np.repeat(number, each)
    records = draw_records(0, patient, np.concatenate([np.arange(count) for count in each]))
    sizes = [np.linalg.norm(x, axis=-1) for x in (records.vector, records.field)]
    parts = [records.centre, records.width, records.vector, records.field, records.rhythm, *sizes]
    columns = [records.rr[:, None], *(part.reshape(len(patient), -1) for part in parts)]
    return np.concatenate(columns, axis=1), patient, records.labels


TARGETS = {
    "mpcwp": lambda v: v > 18,
    "sex": lambda v: v > 0,
    "af": lambda v: v > 0,
    "lvef": lambda v: v < 40,
    "age": lambda v: v > 65,
}
# measured on 800 patients: 0.70 of 0.95, 0.74 of 0.89, 0.96 of 1.00, 0.79 of 0.84, 0.70 of 0.92
MOST_BY_ONE = {"mpcwp": 0.75, "sex": 0.80, "af": 0.98, "lvef": 0.83, "age": 0.76}
LEAST_BY_ALL = {"mpcwp": 0.92, "sex": 0.86, "af": 0.999, "lvef": 0.81, "age": 0.86}


@pytest.mark.parametrize("label", TARGETS)
def test_no_single_measurement_tells_a_label(cohort, measured, label):
    table, names = measured
    assert len(names) >= 10
    target = TARGETS[label](cohort[1][label])
    area = np.array([roc_auc_score(target, column) for column in table.T])
    area = np.maximum(area, 1 - area)
    best = f"{names[area.argmax()]} alone {area.max():.3f}"

    known, patient, labels = what_made_it(1500)
    target, train = TARGETS[label](labels[label]), patient < 1000
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000))
    model.fit(known[train], target[train])
    together = roc_auc_score(target[~train], model.decision_function(known[~train]))
    assert area.max() < MOST_BY_ONE[label], best
    assert together > LEAST_BY_ALL[label], f"all together {together:.3f}"
    assert area.max() + 0.02 < together, f"{best}, all together {together:.3f}"


def test_no_single_measurement_gives_the_pressure(cohort, measured):
    table, names = measured
    r = [abs(np.corrcoef(column, cohort[1]["mpcwp"])[0, 1]) for column in table.T]
    assert max(r) < 0.45, f"{names[int(np.argmax(r))]} {max(r):.2f}"


def test_a_patient_is_most_like_himself(cohort, measured):
    table = StandardScaler().fit_transform(measured[0])
    patient = cohort[1]["patient_id"]
    distance = np.abs(table[:, None] - table[None]).sum(axis=-1)
    np.fill_diagonal(distance, np.inf)
    again = np.array([(patient == p).sum() > 1 for p in patient])
    found = (patient[distance.argmin(axis=1)] == patient)[again].mean()
    assert found > 0.7  # one in 200 by chance


def test_fibrillation_is_irregular_and_most_else_is_not(cohort, measured):
    spread = measured[0][:, measured[1].index("RR spread")]
    ill = cohort[1]["af"] > 0
    assert np.median(spread[ill]) > 3 * np.median(spread[~ill])


def test_amplitudes_and_rates_are_a_hearts(cohort, measured):
    table, names = measured
    rate, width = table[:, names.index("rate")], table[:, names.index("QRS width")]
    assert 40 < np.percentile(rate, 1) < np.percentile(rate, 99) < 145
    assert 0.06 < np.median(width) < 0.13
    size = np.abs(cohort[0]).max(axis=(1, 2))
    assert size.min() > 0.3
    assert np.percentile(size, 99) < 5
    assert np.isfinite(cohort[0]).all()


# contracts


@pytest.mark.parametrize(
    ("fs", "seconds"),
    [(100.0, 10.0), (257.0, 10.0), (400.0, 7.5), (500.0, 2.5), (1000.0, 30.0), (100.0, 0.01)],
)
def test_takes_any_rate_and_length(fs, seconds):
    signal = Signal(fs=fs, seconds=seconds)
    ecg, table = make_cohort(1, signal=signal)
    assert ecg.shape == (len(table["visit"]), 12, signal.samples)
    assert ecg.dtype == np.float32
    assert np.isfinite(ecg).all()


def test_the_rate_does_not_change_the_heart():
    slow, fast = (make_cohort(12, signal=Signal(fs=fs))[0] for fs in (250.0, 500.0))
    alike = [
        np.corrcoef(a.ravel(), b[:, ::2].ravel())[0, 1] for a, b in zip(slow, fast, strict=True)
    ]
    assert np.median(alike) > 0.98  # all but the muscle noise


def test_leads_go_by_name():
    few = Signal(leads=("V5", "aVF", "I"), seconds=2.0)
    whole, part = make_cohort(4, signal=SHORT)[0], make_cohort(4, signal=few)[0]
    assert np.array_equal(part, whole[:, [LEAD[name] for name in few.leads]])


def test_store_holds_the_cohort_and_says_what_it_is(tmp_path):
    ecg, table = make_cohort(6, signal=SHORT, seed=3)
    write_cohort(tmp_path / "s", 6, signal=SHORT, seed=3)
    store = ECGStore.open(tmp_path / "s")
    assert store.synthetic
    assert store.signal == SHORT
    for name in ("record_id", "patient_id", "split", *LABELS):
        assert store.manifest[name].tolist() == table[name].tolist()
    step = store.manifest["gain"].to_numpy()
    for i in range(len(store)):
        assert np.abs(store.read(i) - ecg[i]).max() <= 0.51 * step[i]
    again = write_cohort(tmp_path / "s", 6, signal=SHORT, seed=3)  # finished: nothing to do
    assert again["sha256"].tolist() == store.manifest["sha256"].tolist()
    with pytest.raises(DataError, match="store_exists"):
        write_cohort(tmp_path / "s", 7, signal=SHORT, seed=3)


def test_planted_faults_are_found_and_hurt_nobody(tmp_path):
    manifest = write_cohort(tmp_path / "s", 60, signal=SHORT, planted_bad=True)
    planted = manifest[manifest["planted"] != ""]
    assert sorted(planted["planted"]) == sorted(BAD)
    assert set(planted["split"]) == {"test"}
    assert planted[list(LABELS)].isna().all(axis=None)
    found = validate(ECGStore.open(tmp_path / "s"))
    assert not found.faults
    named = {(record, issue.name) for record, issue in found.issues}
    assert named >= set(zip(planted["record_id"], planted["planted"], strict=True))
    assert {record for record, _ in named} == set(planted["record_id"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"patients": 0}, "at least 1"),
        ({"patients": 5, "visits": (0, 2)}, "1 <= fewest"),
        ({"patients": 5, "visits": (3, 2)}, "1 <= fewest"),
        ({"patients": 5, "signal": Signal(leads=("I", "X"))}, "leads must be of I, II, .*, got X"),
        ({"patients": 10**6}, "write_cohort writes them"),
    ],
)
def test_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        make_cohort(**words)


def test_refuses_to_plant_in_a_small_cohort(tmp_path):
    with pytest.raises(ValueError, match="40 patients or more, got 20"):
        write_cohort(tmp_path / "s", 20, planted_bad=True)


def test_example_runs():
    assert doctest.testmod(synthetic).failed == 0
