"""A SYNTHETIC scanner: beams through a heart, speckle that moves with tissue, and their fan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.synthetic_heart import Course, Floats, Heart, cycle, echoes
from ecgfast.data.synthetic_patients import normals, uniforms

TEXTURE = 512  # a power of two
PER_MM = 2.0  # places of the texture
TOGETHER = 8  # frames at a time: few enough for the cache
Integers = NDArray[np.int64]
Fan = tuple[NDArray[np.float64], NDArray[np.float64], list[Integers], list[Floats], Integers]
LONGEST = 120.0  # s of a video
BEATS = 400  # that are drawn: more than it has
NOISE = 1 << 20  # values; no frame has more places
FLICKER = np.float32(0.3)  # share of the grain of tissue that does not move with it
PATCHES = 40.0  # variance of the blur of uneven tissue, in that of a speckle
HAZE_FADE = 0.7  # dB a mm


@dataclass(frozen=True)
class View:
    """How one video looks at a heart.

    Attributes:
        number: Of the video: what its noise is drawn from.
        depth: mm.
        half_angle: Of the fan, radians.
        turn: Of the heart in the fan, radians.
        centre: Of the left ventricle, across and down from the probe, mm.
        gain: dB.
        span: dB from black to white.
        fade: dB a cm of depth, beyond what the scanner makes good.
        haze: Of the near field, dB.
        lost: Beams at the sides and behind ribs, dB: strength left, right and of two ribs.
        ribs: Where they lie, -1 to 1.
        grain: Of the speckle, dB an SD of it.
        clutter: In blood, dB.
        breath: Of the chest, mm and Hz.
        start: Of the video in a beat, 0 to 1.
    """

    number: int
    depth: float
    half_angle: float
    turn: float
    centre: tuple[float, float]
    gain: float
    span: float
    fade: float
    haze: float
    lost: tuple[float, float, float, float]
    ribs: tuple[float, float]
    grain: float
    clutter: float
    breath: tuple[float, float]
    start: float

    def spacing_mm(self, size: int) -> float:
        """Of a pixel, of a frame of ``size`` x ``size``."""
        return self.depth * _pixel(size, self.half_angle)


def scan(
    seed: int, heart: Heart, view: View, fps: float, out: NDArray[np.uint8], *, noise: bool = True
) -> None:
    """Fills a video (F, S, S)."""
    frames, size = out.shape[:2]
    t = np.arange(frames) / fps
    course = _course(seed, heart, view, t)
    angle, depth, where, weights, inside = _fan(size, round(view.half_angle, 3))
    z = (depth * view.depth).astype(np.float32)[None, None, :]
    sine, cosine = (f(angle).astype(np.float32)[None, :, None] for f in (np.sin, np.cos))
    across, down = z * sine, z * cosine
    c, s = np.float32(np.cos(view.turn)), np.float32(np.sin(view.turn))
    beam = (c * sine + s * cosine, c * cosine - s * sine)
    fixed = _fixed(view, angle, z, seed) if noise else np.zeros_like(z)
    grain = _texture(seed)
    drift = view.breath[0] * np.sin(2 * np.pi * (view.breath[1] * t + view.start))
    hashed = uniforms(seed, np.array([view.number]), 46, frames + 2)[0]
    corner = (hashed[:2] * TEXTURE).astype(np.float32)
    out[...] = 0
    flat = out.reshape(frames, -1)
    for begin in range(0, frames, TOGETHER):
        part = slice(begin, begin + TOGETHER)
        now = Course(*(getattr(course, n)[part] for n in course.__dataclass_fields__))
        dx = across - np.float32(view.centre[0])
        dy = down - (view.centre[1] + drift[part]).astype(np.float32)[:, None, None]
        x, y = c * dx + s * dy, c * dy - s * dx
        level, u, v, blood = echoes(heart, now, x, y, beam)
        if noise:
            speckle = grain.take(_place(u, v, corner), mode="clip")
            passing = _passing(seed, hashed[2:][part], level.shape)
            level += fixed
            level += blood * np.float32(view.clutter)
            blood *= 1 - FLICKER  # it flows: all of its grain is new
            blood += FLICKER
            blood *= passing - speckle
            speckle += blood
            speckle *= np.float32(view.grain)
            level += speckle
            passing *= 4
            passing += np.float32(view.haze) - np.float32(HAZE_FADE) * z
            np.maximum(level, passing, out=level)
            level = _smear(level)
        level += np.float32(view.gain + view.span)
        level *= np.float32(255 / view.span)
        np.maximum(level, 0, out=level)
        np.minimum(level, 255, out=level)
        polar = level.reshape(len(level), -1)
        image = np.full((len(level), len(inside)), 0.5, dtype=np.float32)
        for weight, place in zip(weights, where, strict=True):
            read = polar.take(place, axis=1, mode="clip")
            read *= weight
            image += read
        flat[part, inside] = image.astype(np.uint8)


def beats(seed: int, heart: Heart, view: View) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When the R peaks of a video come, s, the first of them before it, and how long beats last."""
    drawn = normals(seed, np.array([view.number]), 45, BEATS)[0]
    rr = heart.rr * np.exp(0.025 * drawn)
    return rr.cumsum() - rr - view.start * rr[0], rr


def _course(seed: int, heart: Heart, view: View, t: NDArray[np.float64]) -> Course:
    begins, rr = beats(seed, heart, view)
    beat = np.searchsorted(begins, t, side="right") - 1
    strength = 1 + 0.02 * normals(seed, np.array([view.number]), 50, BEATS)[0]
    return cycle(heart, t - begins[beat], rr[beat], strength[beat])


def _fixed(view: View, angle: NDArray[np.float64], z: Floats, seed: int) -> Floats:
    """What beams and depths lose, dB (1, B, Z)."""
    place = angle / view.half_angle
    left, right, one, two = view.lost
    loss = left * np.clip(-place - 0.4, 0, 1) ** 2 + right * np.clip(place - 0.4, 0, 1) ** 2
    for strength, rib in ((one, view.ribs[0]), (two, view.ribs[1])):
        loss = loss + strength * np.exp(-(((place - rib) / 0.12) ** 2))
    return -loss.astype(np.float32)[None, :, None] - np.float32(view.fade) * z / 10


def _smear(level: Floats) -> Floats:
    """Beams are wide: each sees its neighbours, too."""
    out = 0.4 * level
    level *= np.float32(0.3)
    out[:, 1:] += level[:, :-1]
    out[:, :-1] += level[:, 1:]
    out[:, 0] += level[:, 0]
    out[:, -1] += level[:, -1]
    return out


def _place(u: Floats, v: Floats, corner: Floats) -> Integers:
    """Where in the texture a place lies; u and v are spent."""
    for values, first in ((u, corner[0]), (v, corner[1])):
        values *= np.float32(PER_MM)
        values += first
    row, column = v.astype(np.intp), u.astype(np.intp)
    row &= TEXTURE - 1
    column &= TEXTURE - 1
    row *= TEXTURE
    row += column
    return row


@lru_cache(maxsize=4)
def _texture(seed: int) -> Floats:
    """Speckle: the logarithm of a Rayleigh field, SD 1, the same on opposite edges."""
    rows = normals(seed, np.arange(2 * TEXTURE), 47, TEXTURE).reshape(2, TEXTURE, TEXTURE)
    f = np.fft.fftfreq(TEXTURE)
    blur = np.exp(-2 * (np.pi * 1.3) ** 2 * (f[:, None] ** 2 + f[None, :] ** 2))
    spectrum = np.fft.fft2(rows[0] + 1j * rows[1])
    field = np.fft.ifft2(spectrum * blur)
    log = np.log(np.abs(field) + 1e-3 * np.abs(field).mean())
    log = np.maximum((log - log.mean()) / log.std(), -3)
    coarse = np.fft.ifft2(spectrum * blur**PATCHES).real  # tissue is not even
    log += 0.8 * coarse / coarse.std()
    return np.ascontiguousarray(log, dtype=np.float32).reshape(-1)


@lru_cache(maxsize=4)
def _noise(seed: int) -> Floats:
    return normals(seed, np.arange(NOISE // 512), 48, 512).astype(np.float32).reshape(-1)


def _passing(seed: int, chance: NDArray[np.float64], shape: tuple[int, ...]) -> Floats:
    """Noise that no frame shares with the next, (F, B, Z)."""
    noise, each = _noise(seed), shape[1] * shape[2]
    first = (chance * (NOISE - each)).astype(np.int64)
    out = np.empty((len(first), each), dtype=np.float32)
    for row, begin in zip(out, first, strict=True):
        row[:] = noise[begin : begin + each]
    return out.reshape(shape)


def _pixel(size: int, half: float) -> float:
    """Its side, of the depth: the fan fills the frame."""
    return float(max(1.0, 2 * np.sin(half)) / (0.98 * size))


@lru_cache(maxsize=64)
def _fan(size: int, half: float) -> Fan:
    """Angles of the beams, depths of their samples in [0, 1], and how pixels are read from them."""
    beams, samples = max(8, round(0.75 * size)), max(8, round(0.9 * size))
    angle, depth = np.linspace(-half, half, beams), np.linspace(0.02, 1.0, samples)
    pixel = _pixel(size, half)
    across = (np.arange(size) + 0.5 - size / 2) * pixel
    down = (np.arange(size) + 0.5 - size / 2) * pixel + 0.5
    r = np.hypot(across[None, :], down[:, None])
    a = np.arctan2(across[None, :], down[:, None])
    inside = ((r >= depth[0]) & (r <= 1) & (np.abs(a) <= half)).reshape(-1).nonzero()[0]
    i = (a.reshape(-1)[inside] + half) / (2 * half) * (beams - 1)
    j = (r.reshape(-1)[inside] - depth[0]) / (1 - depth[0]) * (samples - 1)
    i0, j0 = (
        np.clip(np.floor(k).astype(np.int64), 0, n - 2) for k, n in ((i, beams), (j, samples))
    )
    fi, fj = (i - i0).astype(np.float32), (j - j0).astype(np.float32)
    corner = i0 * samples + j0
    where = [corner, corner + 1, corner + samples, corner + samples + 1]
    weights = [(1 - fi) * (1 - fj), (1 - fi) * fj, fi * (1 - fj), fi * fj]
    return angle, depth, where, weights, inside
