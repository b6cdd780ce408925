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
BLOOD, AROUND, MUSCLE, CHEST, LINING = -57, -36, -24, -26, -16
AORTA, LEAFLET, PERICARDIUM = -15, -17, 2
Point = tuple[Floats | float, Floats | float]
BASE = 0.55  # the valves' plane cuts the ventricle's ellipse here, of its half length
RISE = 0.30  # of the aortic root over the ventricle's axis, radians
NEWTON = 6
Box = tuple[slice, slice, slice]
EVERYWHERE: Box = (slice(None), slice(None), slice(None))
MARGIN = 8.0  # mm around a box: for soft edges, and for what moves within a few frames


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
        x: Of the places, (F, P, Q).
        y: See x.
        beam: Unit vector along the beam at each place, in x and y, each (1, P, Q) or what
            broadcasts to it.

    Returns:
        Level in dB, x and y of the same tissue at the end of diastole, share of blood in [0, 1],
        each (F, P, Q).
    """
    d, cosine, sine, facing = _ventricle(now, x, y, beam)
    middle, half = (now.posterior + now.septum) / 2, (now.posterior - now.septum) / 2
    thick = half * sine
    thick += middle
    outside = d - thick
    u, v = _in_diastole(heart, now, x, y, (d, outside, cosine, sine))
    scene = _Scene(x, y, np.full_like(d, AROUND), np.zeros_like(d))

    _right_ventricle(now, scene)
    before = _under(x - now.base, 0.0, 3.0)  # on the ventricle's side of the valves
    muscle = _under(outside, 0.0)
    muscle *= before
    scene.paint(muscle, 8 * facing + (MUSCLE - 5))
    lining = _line(d, 1.4)
    lining *= before
    lining *= facing
    scene.paint(lining, LINING)
    box = scene.box(top=0.0)  # the sac shines where it lies behind the heart
    behind = _line(outside[box] - 1.8, 2.2)
    behind *= before[box]
    behind *= facing[box]
    behind *= _under(-y[box], -4.0, 12.0)
    scene.paint(behind, PERICARDIUM, box)
    chamber = _under(d, 0.0)
    chamber *= _under(x - now.base, 8.0, 4.0)
    scene.fill(chamber)
    _left_atrium(heart, now, scene)
    _root(heart, now, scene)
    _mitral(heart, now, scene)
    return scene.level, u, v, scene.blood


@dataclass(frozen=True)
class _Scene:
    """Levels and blood of places (F, P, Q), painted one structure over the other."""

    x: Floats
    y: Floats
    level: Floats
    blood: Floats

    def box(
        self,
        left: float = -np.inf,
        right: float = np.inf,
        top: float = -np.inf,
        bottom: float = np.inf,
    ) -> Box:
        """The part of the arrays that a box, mm, needs: the rest is not computed."""
        x, y = self.x[0], self.y[0]
        inside = (x > left - MARGIN) & (x < right + MARGIN)
        inside &= (y > top - MARGIN) & (y < bottom + MARGIN)
        first, second = inside.any(axis=1).nonzero()[0], inside.any(axis=0).nonzero()[0]
        if not len(first):
            return slice(None), slice(0, 0), slice(0, 0)
        return slice(None), slice(first[0], first[-1] + 1), slice(second[0], second[-1] + 1)

    def paint(self, share: Floats, level: Floats | float, box: Box = EVERYWHERE) -> None:
        part = self.level[box]
        part += share * (level - part)

    def fill(self, share: Floats, box: Box = EVERYWHERE) -> None:
        """With blood."""
        self.paint(share, BLOOD, box)
        part = self.blood[box]
        np.maximum(part, share, out=part)


def _ventricle(
    now: Course, x: Floats, y: Floats, beam: tuple[Floats, Floats]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Distance to the cavity's edge (mm, exact on both axes), direction, how the beam meets it."""
    one_a, one_b = 1 / now.a, 1 / now.b
    p, r = (x - now.shift) * one_a, y * one_b
    q = p * p
    q += r * r
    np.sqrt(q, out=q)
    q += np.float32(1e-4)
    nx, ny = p * one_a, r * one_b
    slope = nx * nx
    slope += ny * ny
    np.sqrt(slope, out=slope)
    slope += np.float32(1e-7)
    facing = nx * beam[0]
    facing += ny * beam[1]
    facing /= slope
    facing *= facing  # 1 where the beam meets the wall squarely
    d = q - 1
    d *= q
    d /= slope
    p /= q
    r /= q
    return d, p, r, facing


def _in_diastole(
    heart: Heart, now: Course, x: Floats, y: Floats, place: tuple[Floats, Floats, Floats, Floats]
) -> tuple[Floats, Floats]:
    """Tissue moves with the cavity's edge, and less the farther it lies from the wall."""
    d, outside, cosine, sine = place
    first = (heart.posterior - heart.septum) / 2 * sine
    first += (heart.posterior + heart.septum) / 2
    thinner = heart.septum / now.septum  # walls thicken alike
    depth = np.maximum(d * thinner, outside + first)
    follows = _under(outside, 12.0, 10.0)
    u, v = (depth + heart.length) * cosine, (depth + heart.lvid / 2) * sine
    for moved, still in ((u, x), (v, y)):
        moved -= still
        moved *= follows
        moved += still
    return u, v


def _right_ventricle(now: Course, scene: _Scene) -> None:
    height = 9.0 - 2.0 * now.atrium
    middle = -(now.b + now.septum) - height
    box = scene.box(bottom=float(middle.max()) + 12)
    d = _oval(scene.x[box] - 4, scene.y[box] - middle, 44.0, height)
    scene.paint(_under(d, 6.0, 2.0), CHEST, box)
    scene.paint(_line(d - 1.5, 1.6), CHEST + 7, box)
    scene.fill(_under(d, 0.0), box)


def _left_atrium(heart: Heart, now: Course, scene: _Scene) -> None:
    tall = heart.atrium / 2 * (0.88 + 0.12 * now.atrium)
    wide = 1.3 * tall
    floor = 0.95 * heart.lvid / 2 + 3.0
    box = scene.box(left=float(now.base.min()))
    x, y = scene.x[box], scene.y[box]
    d = _oval(x - (now.base + 0.80 * wide), y - (floor - tall), wide, tall)
    scene.paint(_line(d - 1.2, 1.8), LINING - 2, box)
    scene.fill(_under(d, 0.0, 1.5), box)
    # the aorta comes down behind it
    left, top = 20 + heart.length * BASE, floor + 12
    box = scene.box(left - 15, left + 15, top - 15, top + 15)
    d = _oval(scene.x[box] - left, scene.y[box] - top, 11.0, 9.5)
    scene.paint(_line(d - 1.0, 2.2), AROUND + 8, box)
    scene.fill(0.8 * _under(d, 0.0, 2.0), box)


def _root(heart: Heart, now: Course, scene: _Scene) -> None:
    radius, height = heart.root / 2, root_height(heart, now)
    cos, sin = np.float32(np.cos(RISE)), np.float32(-np.sin(RISE))
    box = scene.box(left=float(now.base.min()) - 4, bottom=float(height.max()) + radius)
    dx, dy = scene.x[box] - now.base, scene.y[box] - height
    along = cos * dx
    along += sin * dy
    away = cos * dy
    away -= sin * dx
    np.abs(away, out=away)
    bulge = _line(along - 11, 9.0)
    bulge *= 0.13 * radius
    bulge += radius
    d = away - bulge
    tube = _under(-along, 3.0, 3.0)
    wall = _line(d - 0.9, 1.5)
    wall *= tube
    scene.paint(wall, AORTA, box)
    tube *= _under(d, 0.0)
    scene.fill(tube, box)
    # cusps: shut they meet in the middle, open they leave the separation between their tips
    gap = np.maximum(now.aortic * np.float32(heart.separation / 2), 0.3)
    size, strength = 0.8 + 1.2 * heart.calcium, LEAFLET + 15 * heart.calcium
    belly = (5.0 + 3 * now.aortic, 0.62 * radius + 0.38 * gap + 1.0)
    cusp = _to_line(along, away, (1.0, radius), belly)
    np.minimum(cusp, _to_line(along, away, belly, (9.0 + 5 * now.aortic, gap)), out=cusp)
    scene.paint(_line(cusp, size), strength, box)


def root_height(heart: Heart, now: Course) -> Floats:
    """Of the middle of the root; it swings to the chest while the atrium fills."""
    return -0.84 * now.b - 0.35 * now.septum + heart.root / 2 - 2.5 * now.atrium


def _mitral(heart: Heart, now: Course, scene: _Scene) -> None:
    front = root_height(heart, now) + heart.root / 2
    back = 0.84 * now.b
    meet_x, meet_y = now.base - 7.0, 0.45 * front + 0.55 * back
    swing = now.mitral
    top, bottom = float(front.min()) - 10, float(back.max())
    box = scene.box(float(now.base.min()) - 22, float(now.base.max()), top, bottom)
    x, y = scene.x[box], scene.y[box]
    tip = (meet_x - 12 * swing, meet_y + swing * (front - 5 - meet_y))
    bend = (now.base - 4 - 5 * swing, 0.5 * (front + tip[1]) - 2.5 * swing)
    d = _to_line(x, y, (now.base, front), bend)
    np.minimum(d, _to_line(x, y, bend, tip), out=d)
    tip = (meet_x - 3 * swing, meet_y + swing * (back - 3 - meet_y))
    np.minimum(d, _to_line(x, y, (now.base, back), tip), out=d)
    scene.paint(_line(d, 1.2), LEAFLET - 2, box)


def _oval(x: Floats, y: Floats, wide: Floats | float, tall: Floats | float) -> Floats:
    """Distance to an ellipse, near it; negative inside."""
    p, r = x * (1 / wide), y * (1 / tall)
    q = p * p
    q += r * r
    np.sqrt(q, out=q)
    q += np.float32(1e-4)
    p *= 1 / wide
    p *= p
    r *= 1 / tall
    r *= r
    p += r
    np.sqrt(p, out=p)
    p += np.float32(1e-7)
    d = q - 1
    d *= q
    d /= p
    return d


def _to_line(x: Floats, y: Floats, one: Point, two: Point) -> Floats:
    """Distance to a line from one point to another."""
    dx, dy = two[0] - one[0], two[1] - one[1]
    scale = 1 / (dx * dx + dy * dy)
    px, py = x - one[0], y - one[1]
    place = px * (dx * scale)
    place += py * (dy * scale)
    np.maximum(place, 0, out=place)
    np.minimum(place, 1, out=place)
    px -= place * dx
    py -= place * dy
    px *= px
    py *= py
    px += py
    return np.sqrt(px, out=px)


def _line(d: Floats, width: float) -> Floats:
    """A bell over a distance."""
    bell = d * np.float32(1 / width)
    bell *= bell
    np.negative(bell, out=bell)
    return np.exp(bell, out=bell)


def _under(d: Floats, edge: float, soft: float = 1.0) -> Floats:
    """1 well under the edge, 0 well over it."""
    share = d * np.float32(-0.5 / soft)
    share += np.float32(0.5 / soft * edge + 0.5)
    np.maximum(share, 0, out=share)
    return np.minimum(share, 1, out=share)


def _step(
    t: NDArray[np.float64],
    low: NDArray[np.float64] | float,
    high: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    z = np.clip((t - low) / (high - low), 0, 1)
    return z * z * (3 - 2 * z)
