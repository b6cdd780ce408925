"""What a SYNTHETIC scanner writes around its fan: a name, a ruler, an ECG that runs along."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgfast.data.synthetic_heart import Heart
from ecgfast.data.synthetic_scan import View, beats

SWEEP = 3.0  # s from edge to edge
WAVES = ((0.0, 0.012, 1.0), (0.04, 0.012, -0.2), (0.30, 0.04, 0.25))  # s after R, width, height


def burn_in(
    seed: int, heart: Heart, view: View, fps: float, name: str, out: NDArray[np.uint8]
) -> None:
    """Writes into a video (F, S, S), most of it beside the fan."""
    from PIL import Image, ImageDraw, ImageFont

    frames, size = out.shape[:2]
    still = Image.new("L", (size, size))
    draw = ImageDraw.Draw(still)
    font = ImageFont.load_default(max(6, size // 14))
    for line, text in enumerate((name, "SYNTHETIC", f"{60 / heart.rr:.0f} BPM")):
        draw.text((1, line * size // 13), text, 220, font=font)
    cm = 10 / view.spacing_mm(size)  # pixels
    for tick in np.arange(size // 2 - view.depth / 20 * cm, size * 0.9, cm):
        draw.line([(size - 3, int(tick)), (size - 1, int(tick))], 180)
    np.maximum(out, np.asarray(still), out=out)

    t = np.arange(frames) / fps
    column = np.arange(size)
    begins, rr = beats(seed, heart, view)
    for frame, now in zip(out, t, strict=True):
        edge = now % SWEEP / SWEEP * size
        drawn = now - (edge - column) % size * SWEEP / size  # when the column was last written
        shown = (drawn >= 0) & ((column - edge) % size > 0.05 * size)
        beat = np.maximum(np.searchsorted(begins, drawn, side="right") - 1, 0)
        since = drawn - begins[beat]
        wave = sum(h * np.exp(-(((since - c) / w) ** 2)) for c, w, h in WAVES)
        wave = wave + 0.12 * np.exp(-(((since - rr[beat] + 0.16) / 0.03) ** 2))
        row = np.round(size * (0.975 - 0.06 * wave)).astype(int).clip(0, size - 1)
        top = np.minimum(row, np.roll(row, 1))
        for x in column[shown][1:]:
            frame[top[x] : max(top[x], row[x], row[x - 1]) + 1, x] = 200
