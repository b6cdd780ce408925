"""A SYNTHETIC heart in the parasternal long axis: its cycle, and what echoes where at each time.

Lengths are in mm. x runs from the apex to the base, y from the chest to the back; the left
ventricle's ellipse lies at the origin. docs/synthetic.md says what it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32 wherever there are many

# how strongly things echo, dB under the strongest
BLOOD, MUSCLE, LINING, AORTA, LEAFLET, BONE, AROUND, CHEST = -62, -25, -17, -15, -15, 0, -41, -27
PERICARDIUM = -4
Point = tuple[Floats | float, Floats | float]
BASE = 0.55  # the valves' plane cuts the ventricle's ellipse here, of its half length
NEWTON = 6


@dataclass(frozen=True)
class Heart:
    """A heart at the end of diastole, as one video sees it.

    Attributes:
        lvid: Inner diameter of the left ventricle, mm.
        length: Half of its length, mm, as the view cuts it.
        septum: Its thickness, mm.
        posterior: Thickness of the posterior wall, mm.
        lvef: Ejection fraction, 0 to 1.
        valve_area: Of the aortic valve, cm2.
        calcium: Of its cusps, 0 to 1.
        root: Diameter of the aortic root, mm.
        atrium: Diameter of the left atrium, mm.
        rr: Seconds from beat to beat.
    """

    lvid: float
    length: float
    septum: float
    posterior: float
    lvef: float
    valve_area: float
    calcium: float
    root: float
    atrium: float
    rr: float

    @property
    def separation(self) -> float:
        """Of the open cusps, mm: 8 at 1 cm2, but never wider than the root."""
        return min(8.0 * self.valve_area**0.75, 0.72 * self.root)


@dataclass(frozen=True)
class Course:
    """A heart at F times, each (F, 1, 1).

    Attributes:
        a: Half length of the cavity, mm.
        b: Half its diameter, mm.
        septum: Its thickness, mm.
        posterior: Thickness of the posterior wall, mm.
        shift: How far the ellipse's middle has come to the apex, mm, negative.
        base: Place of the valves' plane, mm.
        aortic: Opening of the aortic valve, 0 to 1.
        mitral: Opening of the mitral valve, 0 to 1.
        atrium: Filling of the left atrium, 0 to 1.
    """

    a: Floats
    b: Floats
    septum: Floats
    posterior: Floats
    shift: Floats
    base: Floats
    aortic: Floats
    mitral: Floats
    atrium: Floats


def cycle(
    heart: Heart,
    since: NDArray[np.float64],
    rr: NDArray[np.float64],
    strength: float | NDArray[np.float64] = 1.0,
) -> Course:
    """The heart at times after the R peak, s, of beats that last ``rr``, each (F,)."""
    t, rr = np.asarray(since, dtype=np.float64), np.asarray(rr, dtype=np.float64)
    end = np.minimum(0.31 + 0.08 * (rr - 0.85), 0.55 * rr)  # of systole
    rest = rr - end
    early, late = end + 0.15 * rest, rr - 0.26 * rest  # the two times of filling
    eject = _step(t, 0.04, end)
    fill = 0.72 * _step(t, early, early + 0.32 * rest) + 0.28 * _step(t, late, rr)
    volume = 1 - np.clip(heart.lvef * strength, 0.05, 0.85) * (eject - fill)
    opening = _step(t, 0.04, 0.09) - _step(t, end - 0.05, end)
    swing = _step(t, early, early + 0.12 * rest) - 0.65 * _step(t, early + 0.17 * rest, late)
    swing += 0.4 * _step(t, late, late + 0.10 * rest) - 0.75 * _step(t, rr - 0.09 * rest, rr)

    # a b^2 is the volume; the muscle keeps its own, so walls thicken
    a, b = heart.length * volume**0.2, heart.lvid / 2 * volume**0.4
    mean = (heart.septum + heart.posterior) / 2
    shell = (heart.length + mean) * (heart.lvid / 2 + mean) ** 2 - heart.length * (
        heart.lvid / 2
    ) ** 2
    h = np.full_like(a, mean)
    for _ in range(NEWTON):
        slope = (b + h) ** 2 + 2 * (a + h) * (b + h)
        h -= ((a + h) * (b + h) ** 2 - a * b**2 - shell) / slope
    shift = a - heart.length  # the apex stays, the base comes down
    septum, posterior = h * heart.septum / mean, h * heart.posterior / mean
    values = (a, b, septum, posterior, shift, shift + BASE * a, opening, swing, eject - fill)
    return Course(*(v.astype(np.float32)[:, None, None] for v in values))


def echoes(
    heart: Heart, now: Course, x: Floats, y: Floats, beam: tuple[Floats, Floats]
) -> tuple[Floats, Floats, Floats, Floats]:
    """How strongly each place echoes, where its tissue lies in diastole, its share of blood.

    Args:
        heart: Whose.
        now: Its course, F times.
        x: Of the places, (F, ...) or what broadcasts to it.
        y: See x.
        beam: Unit vector along the beam at each place, in x and y.

    Returns:
        Level in dB, (F, ...), x and y of the same tissue at the end of diastole,
        share of blood in [0, 1].
    """
    a, b = now.a, now.b
    along = x - now.shift
    p, r = along / a, y / b
    q = np.sqrt(p * p + r * r) + np.float32(1e-4)
    nx, ny = p / a, r / b
    slope = np.sqrt(nx * nx + ny * ny) + np.float32(1e-7)
    d = (q - 1) * q / slope  # to the cavity's edge, mm; exact on both axes
    cosine, sine = p / q, r / q
    thick = 0.5 * (now.septum + now.posterior) + 0.5 * (now.posterior - now.septum) * sine
    facing = np.abs(nx * beam[0] + ny * beam[1]) / slope  # 1 where the beam meets the wall squarely
    facing *= facing

    # tissue moves with the cavity's edge, and less the farther it lies from it
    first = 0.5 * (heart.septum + heart.posterior + (heart.posterior - heart.septum) * sine)
    depth = np.where(d < thick, d * first / thick, d - thick + first)
    follows = _ramp(d - thick, 20.0, 12.0)
    half = np.float32(heart.lvid / 2)
    u = x + follows * ((heart.length + depth) * cosine - x)
    v = y + follows * ((half + depth) * sine - y)

    level = np.full(np.broadcast_shapes(x.shape, q.shape), AROUND, dtype=np.float32)
    blood = np.zeros_like(level)
    inner, outer = _ramp(d, 0.0), _ramp(d - thick, 0.0)
    before = _ramp(x - now.base, 0.0, 3.0)  # on the ventricle's side of the valves

    _right_ventricle(heart, now, x, y, level, blood)
    level += outer * before * (MUSCLE + 9 * (facing - 0.6) - level)
    lining = np.exp(-np.square(d * np.float32(1 / 1.3)))
    level += lining * before * facing * (LINING - level)
    sac = np.exp(-np.square((d - thick - 1.5) * np.float32(1 / 1.7)))
    sac *= _ramp(-y, 0.0, 14.0) * facing * before
    level += sac * (PERICARDIUM - level)
    chamber = inner * _ramp(x - now.base, 6.0, 4.0)
    _fill(level, blood, chamber)
    _left_atrium(heart, now, x, y, level, blood)
    _root(heart, now, x, y, level, blood)
    _mitral(heart, now, x, y, level)
    return level, u, v, blood


def _right_ventricle(
    heart: Heart, now: Course, x: Floats, y: Floats, level: Floats, blood: Floats
) -> None:
    height = 10.0 - 2.0 * now.atrium
    middle = -(now.b + now.septum) - height + 1.0
    d = _oval(x - 6, y - middle, 40.0, height)
    level += _ramp(d - 5.0, 0.0, 2.0) * (CHEST - level)
    _fill(level, blood, _ramp(d, 0.0))


def _left_atrium(
    heart: Heart, now: Course, x: Floats, y: Floats, level: Floats, blood: Floats
) -> None:
    tall = heart.atrium / 2 * (0.88 + 0.12 * now.atrium)
    wide = 1.25 * tall
    d = _oval(x - now.base - 0.86 * wide, y - (0.92 * heart.lvid / 2 + 4.0 - tall), wide, tall)
    level += np.exp(-np.square((d - 1.2) * np.float32(1 / 1.6))) * (LINING - 3 - level)
    _fill(level, blood, _ramp(d, 0.0))
    # the aorta comes down behind it
    d = _oval(
        x - 28 - heart.length * BASE,
        y - (0.92 * heart.lvid / 2 + 24),
        10.5,
        10.0,
    )
    level += np.exp(-np.square((d - 1.0) * np.float32(1 / 1.5))) * (AORTA - 6 - level)
    _fill(level, blood, _ramp(d, 0.0))


def _root(heart: Heart, now: Course, x: Floats, y: Floats, level: Floats, blood: Floats) -> None:
    radius = heart.root / 2
    cos, sin = np.float32(0.96), np.float32(-0.28)  # it rises away from the ventricle
    dx, dy = x - now.base, y - _root_height(heart, now)
    s, r = cos * dx + sin * dy, cos * dy - sin * dx
    bulge = radius * (1 + 0.14 * np.exp(-np.square((s - 11) * np.float32(1 / 8.0))))
    d = np.abs(r) - bulge
    tube = _ramp(-s, 2.0, 3.0)
    wall = np.exp(-np.square((d - 0.8) * np.float32(1 / 1.5))) * tube
    level += wall * (AORTA - level)
    _fill(level, blood, _ramp(d, 0.0) * tube)
    # cusps: shut they meet in the middle, open they leave the separation between their tips
    tip = now.aortic * np.float32(heart.separation / 2)
    size = np.float32(0.9 + 1.3 * heart.calcium)
    strength = np.float32(LEAFLET + 13 * heart.calcium)
    away = np.abs(r)
    hinge = (1.5, radius)
    to_cusp = _to_line(s, away, hinge, (10 + 4 * now.aortic, np.maximum(tip, 0.4)))
    near = np.exp(-np.square(to_cusp / size))
    level += near * (strength - level)


def _root_height(heart: Heart, now: Course) -> Floats:
    """Of the middle of the root; it swings to the chest while the atrium fills."""
    return -0.84 * now.b - now.septum * 0.35 + np.float32(heart.root / 2) - 2.5 * now.atrium


def _mitral(heart: Heart, now: Course, x: Floats, y: Floats, level: Floats) -> None:
    front = _root_height(heart, now) + np.float32(heart.root / 2)
    back = 0.84 * now.b
    meet_x, meet_y = now.base - 7.0, 0.45 * front + 0.55 * back
    open_ = now.mitral
    tip = (meet_x - 13 * open_, meet_y + open_ * (front - 6 - meet_y))
    bend = (now.base - 4 - 5 * open_, 0.5 * (front + tip[1]) - 2.5 * open_)
    d = _to_line(x, y, (now.base, front), bend)
    d = np.minimum(d, _to_line(x, y, bend, tip))
    tip = (meet_x - 3 * open_, meet_y + open_ * (back - 3 - meet_y))
    d = np.minimum(d, _to_line(x, y, (now.base, back), tip))
    near = np.exp(-np.square(d * np.float32(1 / 1.3)))
    level += near * (LEAFLET - 3 - level)


def _fill(level: Floats, blood: Floats, share: Floats) -> None:
    level += share * (BLOOD - level)
    np.maximum(blood, share, out=blood)


def _oval(x: Floats, y: Floats, wide: Floats | float, tall: Floats | float) -> Floats:
    """Distance to an ellipse, near it; negative inside."""
    p, r = x / wide, y / tall
    q = np.sqrt(p * p + r * r) + np.float32(1e-4)
    nx, ny = p / wide, r / tall
    return (q - 1) * q / (np.sqrt(nx * nx + ny * ny) + np.float32(1e-7))


def _to_line(x: Floats, y: Floats, one: Point, two: Point) -> Floats:
    """Distance to a line from one point to another."""
    dx, dy = two[0] - one[0], two[1] - one[1]
    px, py = x - one[0], y - one[1]
    place = (px * dx + py * dy) / (dx * dx + dy * dy)
    np.clip(place, 0, 1, out=place)
    px -= place * dx
    py -= place * dy
    return np.sqrt(px * px + py * py)


def _ramp(d: Floats, edge: float, soft: float = 1.0) -> Floats:
    """1 well under the edge, 0 well over it."""
    return np.clip((edge - d) * np.float32(0.5 / soft) + np.float32(0.5), 0, 1)


def _step(
    t: NDArray[np.float64], low: NDArray[np.float64] | float, high: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    z = np.clip((t - low) / (high - low), 0, 1)
    return z * z * (3 - 2 * z)
