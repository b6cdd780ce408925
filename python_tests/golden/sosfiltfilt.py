"""Freezes what scipy's sosfiltfilt says, in float64.

Run ``python sosfiltfilt.py > sosfiltfilt.json`` in this folder; scipy 1.17.1 wrote the file that is
here.
"""

import json

import numpy as np
from scipy import signal

X = np.cumsum(np.sin(np.arange(2 * 60.0) ** 1.3)).reshape(2, 60)
CASES = [
    (signal.butter(2, 25, fs=500, output="sos"), "odd", None),
    (signal.butter(3, [0.5, 40], "bandpass", fs=500, output="sos"), "even", 20),
    (np.r_[signal.iirnotch(50, 30, fs=500)][None], "constant", 7),
    (signal.butter(1, 0.05, "highpass", fs=500, output="sos"), None, None),
]


def _frozen() -> dict:
    cases = []
    for sos, padtype, padlen in CASES:
        y = signal.sosfiltfilt(sos, X, padtype=padtype, padlen=padlen)
        cases.append({"sos": sos.tolist(), "padtype": padtype, "padlen": padlen, "y": y.tolist()})
    return {"x": X.tolist(), "cases": cases}


if __name__ == "__main__":
    print(json.dumps(_frozen(), indent=1))
