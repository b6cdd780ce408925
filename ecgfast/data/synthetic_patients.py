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
    who = _People(seed, patient, visit)
    rr, centre, width = _times(who)
    vector = _vectors(who)
    field = _field(who)
    rhythm, flutter = _rhythm(who)
    wander = np.stack([next(who.now), next(who.now), next(who.now)], axis=1)
    return Records(
        patient=patient,
        visit=visit,
        labels=who.labels,
        rr=rr,
        centre=centre,
        width=width,
        vector=vector,
        field=field,
        sway=(0.05 * 1.15 * who.size)[:, None] * wander,
        rhythm=rhythm,
        flutter=flutter,
        flutter_hz=6.3 + who.trait(0.5, 0.2) - 0.7 * who.load,
        breath_hz=0.25 + 0.03 * next(who.now),
    )


class _People:
    """Labels and hidden states of the records, and the numbers that are drawn one by one."""

    def __init__(self, seed: int, patient: Integers, visit: Integers) -> None:
        self.seed, self.patient, self.number = seed, patient, patient * MOST_VISITS + visit
        self.own = iter(normals(seed, patient, 3, 64).T)  # the same at every visit
        self.now = iter(normals(seed, self.number, 4, 64).T)
        self.chance = uniforms(seed, patient, 5, 6).T

        disease, born = next(self.own), next(self.own)
        self.male = (self.chance[0] < 0.56).astype(np.float64)
        age = np.clip(63 + 14 * born, 20, 95) + visit * (0.2 + 1.8 * self.chance[1])
        self.old = (age - 63) / 14
        weak = np.logaddexp(0, 1.2 * (0.75 * disease + 0.66 * next(self.own)))
        lvef = np.clip(63 - 17 * weak + self.trait(3.0, 1.5), 12, 78)
        stable = 0.60 * next(self.own) + 0.45 * disease + 0.15 * np.clip(self.old, -3, 3)
        pressure = (stable + 0.5 * next(self.now)) / 0.914  # standard normal, near enough
        mpcwp = np.clip(np.exp(2.661 + 0.4724 * pressure), 3, 55)
        self.af = self.chance[2] < _sigmoid(-2.5 + 0.8 * self.old + 0.9 * stable)
        self.labels = {
            "age": age,
            "sex": self.male,
            "af": self.af.astype(np.float64),
            "lvef": lvef,
            "mpcwp": mpcwp,
        }

        # what the atrium feels: 0 at rest, 1 when congested
        self.load = _sigmoid(2.2 * (pressure - 0.4))
        self.lvef = lvef
        self.pump = np.tanh((lvef - 46) / 8)  # 1 for a good ventricle, -1 for a weak one
        # a weak ventricle conducts slowly, some do anyway
        self.block = _sigmoid((34 - lvef) / 8 + 1.5 * next(self.own) - 1.0)
        slowed = self.chance[3] < 0.25 + 0.2 * (1 - self.pump)  # by a drug
        self.blocker = slowed.astype(np.float64)
        self.size = np.ones_like(age)  # of the ventricle, set with its vectors

    def trait(self, stable: float, passing: float) -> Floats:
        """A deviation of these patients, and of these visits."""
        return stable * next(self.own) + passing * next(self.now)


def _times(who: _People) -> tuple[Floats, Floats, Floats]:
    """Mean RR, centres and widths of the waves, s."""
    trait, load, block, old = who.trait, who.load, who.block, who.old
    rate = 71 + trait(8.0, 5.0) + 4 * load - 9 * who.blocker - 2 * who.male + 16 * who.af
    rr = 60 / np.clip(rate, 44, 140)
    pr = 0.156 + trait(0.016, 0.004) + 0.004 * old + 0.006 * who.blocker
    p_time = 0.100 + trait(0.010, 0.003) + 0.003 * old + 0.020 * load
    slow = np.exp(trait(0.07, 0.015) + 0.05 * who.male + 0.32 * block)  # of the whole QRS
    qt = 0.398 - 0.012 * who.male + trait(0.013, 0.005) + 0.008 * load + 0.016 * block
    t_width = 0.052 * np.exp(trait(0.12, 0.03))
    p_peak = -0.042 * slow - pr + 0.036
    centre_and_width = {
        "P right": (p_peak, 0.017 + 0.020 * p_time),
        "P left": (p_peak + (0.38 + 0.09 * load) * p_time, 0.015 + 0.060 * p_time),
        "Q": (-0.026 * slow, 0.0080 * slow),
        "R": (0 * slow, 0.0105 * slow),
        "wall": (0.015 * slow, 0.0115 * slow),
        "S": (0.034 * slow, 0.0095 * slow),
        "delay": (0.036 * slow + 0.016 * block, 0.0165 * slow),
        "ST": (0.110 + 0 * slow, 0.040 + 0 * slow),
        "T": (qt - 0.118, t_width),
    }
    centre = np.stack([centre_and_width[name][0] for name in WAVES], axis=1)
    width = np.stack([centre_and_width[name][1] for name in WAVES], axis=1)
    return rr, centre, width


def _vectors(who: _People) -> Floats:
    """Where each wave points (left, foot, back) and how strongly, mV, (N, W, 3)."""
    trait, load, old, block, male = who.trait, who.load, who.old, who.block, who.male
    # congestion turns the axis of men to the left and that of women to the right
    turn = 48 - 12 * old + trait(20.0, 5.0) + load * np.where(male > 0, -24, 24) - 14 * block
    back = trait(0.16, 0.05)
    size = who.size = np.exp(trait(0.17, 0.03) + 0.11 * male - 0.06 * old)
    anterior = np.exp(trait(0.3, 0.06)) * (0.40 + 0.60 * _sigmoid((who.lvef - 38) / 6))
    strain = _sigmoid((38 - who.lvef) / 9 + 1.4 * next(who.own) - 0.6)
    t_size = 0.42 * np.exp(trait(0.20, 0.07) + 0.16 * male - 0.10 * old)
    t_size = t_size * (1 + 0.6 * (load - 0.4) * who.pump)  # taller if the ventricle is good
    main = 1.15 * size
    r_wave = _wave(main, np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn)), 0.10 + back)
    p_size = np.where(who.af, 0.0, np.exp(trait(0.32, 0.06)))
    late = (0.072 + 0.026 * load) * np.exp(trait(0.25, 0.05))  # the left atrium, stretched
    junction = 0.025 + 0.025 * male + trait(0.020, 0.006)
    basal = np.exp(trait(0.25, 0.05))
    vector = {
        "P right": _wave(0.100 * p_size, 0.40, 0.85 + trait(0.12, 0.03), -0.45),
        "P left": _wave(late * p_size, 0.70, 0.42, 0.20 + 0.55 * load + trait(0.45, 0.08)),
        "Q": _wave(0.30 * size * anterior, -0.45, trait(0.30, 0.05) - 0.25, -0.85),
        "R": r_wave,
        "wall": _wave(0.62 * main, 0.62, 0.25 + trait(0.20, 0.04), 0.85 + 0.20 * load),
        "S": _wave(0.34 * size * basal, -0.40 + trait(0.30, 0.06), -0.75, 0.55),
        "delay": _wave(0.62 * size * block, 0.85, 0.05, 0.55),
        "ST": _wave(junction, 0.35, 0.30, -0.85) - (0.12 * strain)[:, None] * r_wave,
        "T": _wave(
            t_size,
            0.75 - 1.35 * strain,
            0.55 + trait(0.14, 0.05) - 0.35 * strain,
            -0.50 + 0.26 * load + trait(0.16, 0.05),
        ),
    }
    return np.stack([vector[name] for name in WAVES], axis=1)


def _field(who: _People) -> Floats:
    """Lead field, (N, 8, 3): of the torso, of the electrodes as they were placed this time."""
    # congestion takes voltage from the limbs, a big heart gives it to the chest
    limbs = np.exp(who.trait(0.18, 0.05) - 0.13 * who.load)
    chest = np.exp(who.trait(0.18, 0.05) + 0.08 * who.load)
    torso = normals(who.seed, who.patient, 6, 24).reshape(-1, 8, 3)
    placed = normals(who.seed, who.number, 7, 24).reshape(-1, 8, 3)
    field = LEAD_FIELD * np.exp(0.10 * torso) + 0.05 * torso[:, ::-1] + 0.035 * placed
    gain = np.exp(0.03 * next(who.now))  # of the recorder
    return field * np.stack([limbs * gain] * 2 + [chest * gain] * 6, axis=1)[:, :, None]


def _rhythm(who: _People) -> tuple[Floats, Floats]:
    """How irregular the beats are (N, 3), and the fibrillation of the atria, mV (N, 3)."""
    trait, af = who.trait, who.af
    breathing = 0.045 * np.exp(trait(0.35, 0.15) - 0.45 * who.old) * (1 - 0.5 * who.load)
    irregular = 0.012 * np.exp(trait(0.3, 0.2))
    early = np.where(who.chance[4] < 0.3, 0.02 + 0.18 * who.chance[5], 0.0)
    coarse = np.exp(trait(0.3, 0.1)) * np.where(af, 0.045 + 0.03 * who.load, 0.0)
    jitter = np.where(af, 0.19 * np.exp(trait(0.30, 0.10)), irregular)
    rhythm = np.stack([np.where(af, 0.02, breathing), jitter, np.where(af, 0.0, early)], axis=1)
    return rhythm, _wave(coarse, 0.25, 0.55, -0.80)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64; unsigned numbers wrap."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _wave(size: Floats, left: Floats | float, foot: Floats | float, back: Floats | float) -> Floats:
    """Vectors of a size and a direction, (N, 3)."""
    raw = np.stack(np.broadcast_arrays(left + 0 * size, foot, back), axis=-1)
    return size[:, None] * raw / np.linalg.norm(raw, axis=-1, keepdims=True)
