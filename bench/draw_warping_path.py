"""Draws the warping path of two PTB-XL records of two patients, as docs/warping-path.png is made.

python bench/draw_warping_path.py ../shared docs/warping-path.png
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch
from PIL import Image

from ecgfast.config import LEADS
from ecgfast.data.wfdb import read_wfdb
from ecgfast.ops import dtw_path
from ecgfast.report.warping import draw_warping_path
from ecgfast.transforms.beats import r_peaks
from ecgfast.transforms.signal import Prepare

FS, SECONDS, RADIUS = 100, 5, 100
COST = "l1"
COLOURS = 96


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("shared", type=Path, help="the folder that holds data/")
    words.add_argument("output", type=Path, help="a PNG")
    words.add_argument("--records", default="31,42", help="two ecg_ids of PTB-XL")
    given = words.parse_args()
    ids = [int(word) for word in given.records.split(",")]
    folder = given.shared / "data/ptb-xl-500/records100"
    signals = [read_wfdb(folder / f"00000/{n:05d}_lr.hea").signal for n in ids]
    ecg = torch.stack([torch.from_numpy(s[:, : SECONDS * FS]).float() for s in signals])
    ecg = Prepare(fs=FS, band=(0.5, 40.0))(ecg)
    x, y = ecg
    rates = [
        60 * FS / peaks.diff().double().mean()
        for peaks in map(torch.as_tensor, r_peaks(ecg, fs=FS))
    ]
    names = [f"PTB-XL {n}, {rate:.0f} beats/min" for n, rate in zip(ids, rates, strict=True)]
    figure = draw_warping_path(
        x,
        y,
        dtw_path(x, y, cost=COST, radius=RADIUS),
        fs=FS,
        leads=LEADS,
        names=(names[0], names[1]),
        cost=COST,
        radius=RADIUS,
        title="Two ECGs aligned by dynamic time warping",
    )
    file = io.BytesIO()
    figure.savefig(file)
    # a palette: a third of the bytes, and no difference to see
    Image.open(file).convert("RGB").quantize(COLOURS).save(given.output, optimize=True)


if __name__ == "__main__":
    main()
