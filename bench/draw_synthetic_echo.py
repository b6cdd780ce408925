"""Draws a sheet of SYNTHETIC echo videos, as docs/echo-synthetic.png is made.

python bench/draw_synthetic_echo.py docs/echo-synthetic.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ecgfast.data.synthetic_echo import make_echo_cohort

SIZE, FRAMES, FPS = 168, 5, 8.0
HEAD, GREYS = 22, 48


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("output", type=Path, help="a PNG")
    words.add_argument("--patients", type=int, default=60)
    words.add_argument("--rows", type=int, default=4)
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    videos, table = make_echo_cohort(
        given.patients, size=SIZE, frames=FRAMES, fps=FPS, seed=given.seed
    )
    kinds = [(0, 0), (1, 0), (0, 1), (1, 1)]  # hypertrophied or not, stenosed or not
    rows = [
        int(((table["lvh"] == lvh) & (table["as_severe"] == severe)).nonzero()[0][i // 4])
        for i, (lvh, severe) in enumerate(kinds[i % 4] for i in range(given.rows))
    ]
    sheet = Image.new("L", (FRAMES * SIZE, HEAD + len(rows) * SIZE))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    draw.text((6, 4), "SYNTHETIC: made by a program, measured on nobody", 255, font=font)
    for place, i in enumerate(rows):
        top = HEAD + place * SIZE
        sheet.paste(Image.fromarray(np.concatenate(videos[i], axis=1)), (0, top))
        captions = (
            f"wall {table['wall_mm'][i]:.0f} mm",
            f"valve {table['valve_area_cm2'][i]:.1f} cm2",
            f"EF {table['lvef'][i]:.0f} %",
        )
        for line, text in enumerate(captions):
            draw.text((4, top + SIZE - 38 + 12 * line), text, 200, font=font)
        draw.text((FRAMES * SIZE - 62, top + SIZE - 14), "SYNTHETIC", 160, font=font)
    sheet.quantize(GREYS).save(given.output, optimize=True)


if __name__ == "__main__":
    main()
