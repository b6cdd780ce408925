"""SYNTHETIC patients: what is drawn for each, and what it does to the heart's electric field.

Every number is drawn by counting: it depends on the seed, the patient, the visit and its own place,
never on how many patients there are or which are asked for. docs/synthetic.md has the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Rows of the lead field for the eight independent leads, mV per mV of the heart vector; its axes
# point to the patient's left, to the feet and to the back. The vector-to-scalar numbers of Dower.
LEAD_FIELD = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],  # V6
    ]
)
WAVES = ("P right", "P left", "Q", "R", "wall", "S", "delay", "ST", "T")
MOST_VISITS = 64  # a record's number is patient * 64 + visit


@dataclass(frozen=True)
class Records:
    """All that is known of N records before a sample is drawn.

    Attributes:
        patient: Number of the patient, (N,).
        visit: From 0, (N,).
        labels: age (years), sex (1 male), af, lvef (%), mpcwp (mmHg), each (N,).
        rr: Mean time between two beats, s.
        centre: Of each wave after the R peak, s, (N, W); T and ST for a beat of 1 s.
        width: Standard deviation of each wave, s, (N, W); of T on its rising side.
        vector: Of each wave, mV, (N, W, 3).
        field: Lead field, (N, 8, 3).
        sway: What breathing adds to the R wave, mV, (N, 3).
        rhythm: Standard deviation of RR over its mean by breathing and at random, and the share of
            beats that come too early, (N, 3).
        flutter: Of the atria in fibrillation: mV (N, 3) and Hz (N,), zero in sinus rhythm.
        flutter_hz: See flutter.
        breath_hz: Breaths a second.
    """

    patient: Integers
    visit: Integers
    labels: dict[str, Floats]
    rr: Floats
    centre: Floats
    width: Floats
    vector: Floats
    field: Floats
    sway: Floats
    rhythm: Floats
    flutter: Floats
    flutter_hz: Floats
    breath_hz: Floats

    def part(self, rows: slice) -> Records:
        """Some of the records."""
        names = (field.name for field in fields(self) if field.name != "labels")
        labels = {name: values[rows] for name, values in self.labels.items()}
        return Records(labels=labels, **{name: getattr(self, name)[rows] for name in names})


def uniforms(seed: int, number: Integers, stream: int, count: int) -> Floats:
    """Numbers in (0, 1), (N, count): a hash of (seed, stream, number, place), 53 bits each."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    key = _mix(np.array([seed * 64 + stream], dtype=np.int64).view(np.uint64) * golden)
    rows = _mix(key + number.astype(np.int64).view(np.uint64) * golden)
    places = np.arange(1, count + 1, dtype=np.uint64) * golden
    bits = _mix(rows[:, None] + places) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) * 2.0**-53


def normals(seed: int, number: Integers, stream: int, count: int) -> Floats:
    """Standard normal numbers, (N, count), by Box and Muller."""
    half = (count + 1) // 2
    u = uniforms(seed, number, stream, 2 * half)
    radius, angle = np.sqrt(-2 * np.log(u[:, :half])), 2 * np.pi * u[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]


def visits_of(seed: int, patients: Integers, visits: tuple[int, int]) -> Integers:
    """How many records each patient has."""
    fewest, most = visits
    drawn = uniforms(seed, patients, 1, 1)[:, 0] * (most - fewest + 1)
    return fewest + drawn.astype(np.int64)


def split_of(seed: int, patients: Integers) -> NDArray[np.str_]:
    """60 % train, 20 % val, 20 % test; of any five patients in a row 3, 1 and 1."""
    block, place = patients // 5, patients % 5
    order = uniforms(seed, block, 2, 5).argsort(axis=1).argsort(axis=1)
    rank = np.take_along_axis(order, place[:, None], axis=1)[:, 0]
    return np.array(["train", "train", "train", "val", "test"])[rank]


def draw_records(seed: int, patient: Integers, visit: Integers) -> Records:
    """Everything about these records; patients are numbers from 0."""
    own = iter(normals(seed, patient, 3, 64).T)  # the patient's, the same at every visit
    now = iter(normals(seed, patient * MOST_VISITS + visit, 4, 64).T)  # of this visit

    def trait(stable: float, passing: float) -> Floats:
        return stable * next(own) + passing * next(now)

    # who it is
    chance = uniforms(seed, patient, 5, 6).T
    disease = next(own)
    old = next(own)
    male = (chance[0] < 0.56).astype(np.float64)
    age = np.clip(63 + 14 * old, 20, 95) + visit * (0.2 + 1.8 * chance[1])
    old = (age - 63) / 14
    weak = _softplus(1.2 * (0.75 * disease + 0.66 * next(own)))
    lvef = np.clip(63 - 17 * weak + trait(3.0, 1.5), 12, 78)
    stable = 0.60 * next(own) + 0.45 * disease + 0.15 * np.clip(old, -3, 3)
    pressure = (stable + 0.5 * next(now)) / 0.914  # standard normal, near enough
    mpcwp = np.clip(np.exp(2.661 + 0.4724 * pressure), 3, 55)
    af = chance[2] < _sigmoid(-2.5 + 0.8 * old + 0.9 * stable)

    load = _sigmoid(2.2 * (pressure - 0.4))  # what the atrium feels: 0 at rest, 1 when congested
    pump = np.tanh((lvef - 46) / 8)  # 1 for a good ventricle, -1 for a weak one
    block = _sigmoid((34 - lvef) / 8 + 1.5 * next(own) - 1.0)  # slow conduction of a weak one
    blocker = (chance[3] < 0.25 + 0.2 * (1 - pump)).astype(np.float64)  # a drug that slows

    # time
    rate = 71 + trait(8.0, 5.0) + 4 * load - 9 * blocker - 2 * male + 16 * af
    rr = 60 / np.clip(rate, 44, 140)
    pr = 0.156 + trait(0.016, 0.004) + 0.004 * old + 0.006 * blocker
    p_time = 0.100 + trait(0.010, 0.003) + 0.003 * old + 0.020 * load
    slow = np.exp(trait(0.07, 0.015) + 0.05 * male + 0.32 * block)  # of the whole QRS
    qt = 0.398 - 0.012 * male + trait(0.013, 0.005) + 0.008 * load + 0.016 * block
    t_width = 0.052 * np.exp(trait(0.12, 0.03))

    begin = -0.042 * slow - pr
    centre = np.stack(
        [
            begin + 0.036,
            begin + 0.036 + (0.38 + 0.09 * load) * p_time,
            -0.026 * slow,
            0 * rr,
            0.015 * slow,
            0.034 * slow,
            0.036 * slow + 0.016 * block,
            0.110 + 0 * rr,
            qt - 0.118,
        ],
        axis=1,
    )
    width = np.stack(
        [
            0.017 + 0.020 * p_time,
            0.015 + 0.060 * p_time,
            0.0080 * slow,
            0.0105 * slow,
            0.0115 * slow,
            0.0095 * slow,
            0.0165 * slow,
            0.040 + 0 * rr,
            t_width,
        ],
        axis=1,
    )

    # space: left, foot, back
    turn = np.deg2rad(
        48 - 12 * old + trait(20.0, 5.0) + load * np.where(male > 0, -24, 24) - 14 * block
    )
    back = trait(0.16, 0.05)
    size = np.exp(trait(0.17, 0.03) + 0.11 * male - 0.06 * old)
    anterior = np.exp(trait(0.3, 0.06)) * (0.40 + 0.60 * _sigmoid((lvef - 38) / 6))
    strain = _sigmoid((38 - lvef) / 9 + 1.4 * next(own) - 0.6)
    t_size = 0.42 * np.exp(trait(0.20, 0.07) + 0.16 * male - 0.10 * old)
    t_size = t_size * (1 + 0.6 * (load - 0.4) * pump)  # taller or flatter: the ventricle decides
    main = 1.15 * size
    r_wave = _wave(main, np.cos(turn), np.sin(turn), 0.10 + back)
    p_size = np.where(af, 0.0, np.exp(trait(0.32, 0.06)))
    late = (0.072 + 0.026 * load) * np.exp(trait(0.25, 0.05))  # the left atrium, stretched
    junction = 0.025 + 0.025 * male + trait(0.020, 0.006)
    basal = np.exp(trait(0.25, 0.05))
    vector = np.stack(
        [
            _wave(0.100 * p_size, 0.40, 0.85 + trait(0.12, 0.03), -0.45),
            _wave(late * p_size, 0.70, 0.42, 0.20 + 0.55 * load + trait(0.45, 0.08)),
            _wave(0.30 * size * anterior, -0.45, trait(0.30, 0.05) - 0.25, -0.85),
            r_wave,
            _wave(0.62 * main, 0.62, 0.25 + trait(0.20, 0.04), 0.85 + 0.20 * load),
            _wave(0.34 * size * basal, -0.40 + trait(0.30, 0.06), -0.75, 0.55),
            _wave(0.62 * size * block, 0.85, 0.05, 0.55),
            _wave(junction, 0.35, 0.30, -0.85) - (0.12 * strain)[:, None] * r_wave,
            _wave(
                t_size,
                0.75 - 1.35 * strain,
                0.55 + trait(0.14, 0.05) - 0.35 * strain,
                -0.50 + 0.26 * load + trait(0.16, 0.05),
            ),
        ],
        axis=1,
    )

    # congestion takes voltage from the limbs, a big heart gives it to the chest
    limbs = np.exp(trait(0.18, 0.05) - 0.13 * load)
    chest = np.exp(trait(0.18, 0.05) + 0.08 * load)
    torso = normals(seed, patient, 6, 24).reshape(-1, 8, 3)
    placed = normals(seed, patient * MOST_VISITS + visit, 7, 24).reshape(-1, 8, 3)
    field = LEAD_FIELD * np.exp(0.10 * torso) + 0.05 * torso[:, ::-1] + 0.035 * placed
    field = field * np.concatenate([limbs[:, None]] * 2 + [chest[:, None]] * 6, axis=1)[:, :, None]
    field = field * np.exp(0.03 * next(now))[:, None, None]  # the recorder's gain

    breathing = 0.045 * np.exp(trait(0.35, 0.15) - 0.45 * old) * (1 - 0.5 * load)
    irregular = 0.012 * np.exp(trait(0.3, 0.2))
    early = np.where(chance[4] < 0.3, 0.02 + 0.18 * chance[5], 0.0)
    fine = np.exp(trait(0.3, 0.1)) * np.where(af, 0.045 + 0.03 * load, 0.0)
    labels = {"age": age, "sex": male, "af": af.astype(np.float64), "lvef": lvef, "mpcwp": mpcwp}
    return Records(
        patient=patient,
        visit=visit,
        labels=labels,
        rr=rr,
        centre=centre,
        width=width,
        vector=vector,
        field=field,
        sway=(0.05 * main)[:, None] * np.stack([next(now), next(now), next(now)], axis=1),
        rhythm=np.stack(
            [
                np.where(af, 0.02, breathing),
                np.where(af, 0.19 * np.exp(trait(0.30, 0.10)), irregular),
                np.where(af, 0.0, early),
            ],
            axis=1,
        ),
        flutter=_wave(fine, 0.25, 0.55, -0.80),
        flutter_hz=6.3 + trait(0.5, 0.2) - 0.7 * load,
        breath_hz=0.25 + 0.03 * next(now),
    )


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64; unsigned numbers wrap."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Floats) -> Floats:
    return np.logaddexp(0, x)


def _wave(size: Floats, left: Floats | float, foot: Floats | float, back: Floats | float) -> Floats:
    """Vectors of a size and a direction, (N, 3)."""
    raw = np.stack(np.broadcast_arrays(left + 0 * size, foot, back), axis=-1)
    return size[:, None] * raw / np.linalg.norm(raw, axis=-1, keepdims=True)
