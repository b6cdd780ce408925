"""Clips of video on the page: moving, and frame by frame with where a score comes from."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecgfast.report.style import GREY, WHOLE, Floats, Picture, picture

SIDE = 336  # pixels of a moving clip, at least: what a person can see
SHOWN = 5  # frames of a strip
QUALITY = 80  # of WebP
PALETTE = "inferno"


@picture
def clip_strip(
    frames: NDArray[np.uint8], heat: Floats, *, fps: float, title: str, synthetic: bool
) -> Figure:
    """Some frames with their activation maps over them, and the largest of all maps.

    Args:
        frames: ``(F, H, W)``.
        heat: ``(f, h, w)`` from 0 to 1, over the same time and the same picture.
        fps: Frames a second; 0 is not known.
        title: Above all.
        synthetic: Whether they are made.
    """
    heats = over_frames(heat, len(frames))
    count = min(SHOWN, len(frames))
    figure = Figure(figsize=(WHOLE, WHOLE / (count + 1) + 0.75))
    what = "what raised the score" if heat.any() else "nothing raised the score"
    headline = f"{title}: {what}" + (" (SYNTHETIC data)" if synthetic else "")
    figure.set_label(headline)
    figure.suptitle(headline, x=0.01, ha="left", fontsize=9, fontweight="bold")
    axes = figure.subplots(1, count + 1)
    figure.subplots_adjust(left=0.01, right=0.92, top=0.8, bottom=0.02, wspace=0.04)
    shown = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    panels = [(frames[at], heats[at], _when(int(at), fps)) for at in shown]
    panels.append((frames[len(frames) // 2], heat.max(axis=0), "all frames, largest"))
    box = (0.0, 1.0, 1.0, 0.0)
    for axis, (frame, map_, name) in zip(axes, panels, strict=False):
        axis.imshow(frame, cmap="gray", vmin=0, vmax=255, extent=box)
        shades = axis.imshow(
            map_,
            cmap=PALETTE,
            vmin=0,
            vmax=1,
            extent=box,
            alpha=np.clip(0.6 * map_, 0, 1),
            interpolation="bilinear",
        )
        axis.set_title(name, loc="left", color=GREY)
    for axis in axes:
        axis.set_axis_off()
    bar = figure.add_axes((0.93, 0.2, 0.012, 0.5))
    figure.colorbar(shades, cax=bar, ticks=[0, 1]).outline.set_visible(False)
    bar.set_yticklabels(["0", "most"], color=GREY)
    return figure


def moving_clip(
    frames: NDArray[np.uint8], heat: Floats | None, *, fps: float, title: str, synthetic: bool
) -> Picture:
    """A clip that plays again and again, alone and beside it with its activation maps.

    Args:
        frames: ``(F, H, W)``.
        heat: As for ``clip_strip``; none shows the clip alone.
        fps: Frames a second; 0 plays 25.
        title: For those who cannot see it.
        synthetic: Says so in every frame.

    Returns:
        An animated WebP.
    """
    factor = max(1, -(-SIDE // frames.shape[1]))
    plain = [_larger(np.repeat(frame[..., None], 3, axis=2), factor) for frame in frames]
    pictures = plain
    if heat is not None:
        painted = [
            _larger(_painted(frame, map_), factor)
            for frame, map_ in zip(frames, over_frames(heat, len(frames)), strict=True)
        ]
        pictures = [
            np.concatenate([one, other], axis=1) for one, other in zip(plain, painted, strict=True)
        ]
    images = [Image.fromarray(one) for one in pictures]
    if synthetic:
        for image in images:
            ImageDraw.Draw(image).text((8, 6), "SYNTHETIC", fill=(230, 160, 60), font_size=16)
    file = io.BytesIO()
    images[0].save(
        file,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / (fps or 25.0)),
        loop=0,
        quality=QUALITY,
        method=4,
    )
    code = base64.b64encode(file.getvalue()).decode()
    alt = f"{title}, moving" + (" (SYNTHETIC data)" if synthetic else "")
    return Picture(f"data:image/webp;base64,{code}", alt, heat is not None)


def over_frames(heat: Floats, frames: int) -> Floats:
    """Maps ``(f, h, w)`` at each of so many frames, ``(frames, h, w)``, by lines between them.

    A map stands for the middle of its share of the time.

    Example:
        >>> over_frames(np.array([[[0.0]], [[1.0]]]), 4).ravel().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    at = (np.arange(frames) + 0.5) * len(heat) / frames - 0.5
    at = at.clip(0, len(heat) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(heat) - 1)
    share = (at - low)[:, None, None]
    mixed: Floats = (1 - share) * heat[low] + share * heat[high]
    return mixed


def _when(frame: int, fps: float) -> str:
    return f"frame {frame}" if not fps else f"{1000 * frame / fps:.0f} ms"


def _larger(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _painted(frame: NDArray[np.uint8], heat: Floats) -> NDArray[np.uint8]:
    size = (frame.shape[1], frame.shape[0])
    fine = Image.fromarray(np.asarray(heat, np.float32)).resize(size, Image.Resampling.BILINEAR)
    level = np.clip(np.asarray(fine), 0, 1)
    colour = 255 * matplotlib.colormaps[PALETTE](level)[..., :3]
    share = 0.6 * level[..., None]
    mixed = (1 - share) * frame[..., None] + share * colour
    return np.rint(mixed).astype(np.uint8)
