"""Draws the sectors that are found in three real echo clips, as docs/echo-masks.png is made.

python bench/draw_echo_masks.py ../shared docs/echo-masks.png
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from ecgfast.config.clips import ClipFit
from ecgfast.data.sector import find_sector, fit_video
from ecgfast.data.videos import VideoReading, read_video

matplotlib.use("Agg")

import matplotlib.pyplot as plt

CLIPS = {
    "a4c_sonosite_30fr_examples_ybr_color.dcm": "apical four chamber\nYBR_FULL_422, JPEG",
    "plax_colour_acme_10fr_US-PAL-8-10x-echo.dcm": "parasternal long axis, flow\nPALETTE, RLE",
    "alax_colour_vivid_e95_27fr_will-jxl.dcm": "apical long axis, flow\nJPEG XL",
}
COLUMNS = ("a frame, and its sector", "SD over time, levels", "what is stored: 112 x 112, grey")
SHADES = 256


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("shared", type=Path, help="the folder that holds data/")
    words.add_argument("output", type=Path, help="a PNG")
    given = words.parse_args()
    figure, axes = plt.subplots(3, 3, figsize=(10.5, 8.4), layout="constrained")
    for row, (name, title) in zip(axes, CLIPS.items(), strict=True):
        video = read_video(given.shared / "data/echo-dicom", name, VideoReading())
        mask = find_sector(video.pixels, video.region).mask
        frames, facts, issues = fit_video(video, ClipFit())
        sd = video.pixels.mean(axis=3).std(axis=0)
        row[0].imshow(video.pixels[0])
        row[0].contour(mask, [0.5], colors="#ffd400", linewidths=1)
        shown = row[1].imshow(sd, vmax=np.quantile(sd, 0.99), cmap="magma")
        row[1].contour(mask, [0.5], colors="white", linewidths=0.6)
        figure.colorbar(shown, ax=row[1], shrink=0.8)
        row[2].imshow(frames[0, 0], cmap="gray", vmin=0, vmax=255)
        said = ", ".join(issue.name for issue in [*video.issues, *issues]) or "no issue"
        row[0].set_ylabel(title, fontsize=8)
        mm = facts["spacing_mm"]
        size = "mm unknown" if np.isnan(mm) else f"{mm:.3g} mm a pixel"
        row[2].set_xlabel(f"{len(frames)} frames, {facts['fps']:.3g}/s, {size}\n{said}", fontsize=8)
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    file = io.BytesIO()
    figure.savefig(file, dpi=110)
    # a palette: a third of the bytes, and no difference to see
    Image.open(file).convert("RGB").quantize(SHADES).save(given.output, optimize=True)


if __name__ == "__main__":
    main()
