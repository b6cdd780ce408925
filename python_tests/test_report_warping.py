"""The figure of a warping path, on SYNTHETIC records."""

from __future__ import annotations

import doctest
import io

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from ecgfast.ops import dtw_path
from ecgfast.report import warping
from ecgfast.report.warping import draw_warping_path
from ecgfast.testing import make_ecg

LEADS = ["I", "II", "V2"]


def drawn(samples=(200, 200), *, shown=("II", "V2"), radius=40, cost="l1"):
    x, y = (make_ecg(1, 3, n, seed=k)[0] for k, n in enumerate(samples))
    path = dtw_path(x, y, cost=cost, radius=radius)
    figure = draw_warping_path(
        *(x, y, path),
        fs=100,
        leads=LEADS,
        shown=shown,
        names=("one", "other"),
        cost=cost,
        radius=radius,
        synthetic=True,
    )
    return figure, path


@pytest.mark.parametrize(
    ("samples", "radius", "cost"),
    [
        ((200, 200), 40, "l1"),
        ((200, 150), None, "sqeuclidean"),
        ((150, 200), 0, "euclidean"),
        ((1, 30), 3, "l1"),
    ],
    ids=str,
)
def test_makes_a_png_that_says_it_is_synthetic(samples, radius, cost):
    figure, _ = drawn(samples, radius=radius, cost=cost)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    assert figure.get_label() == "Warping path (SYNTHETIC data)"


def test_path_is_drawn_where_it_is():
    figure, path = drawn()
    axes = [axis for part in figure.subfigs for axis in part.axes]
    line = next(x for axis in axes for x in axis.lines if x.get_label() == "path")
    np.testing.assert_allclose(line.get_xydata(), (path.numpy() + 0.5) / 100)


def test_path_stays_between_the_lines_of_the_band():
    samples, radius = (200, 150), 20
    figure, _ = drawn(samples, radius=radius)
    axis = figure.subfigs[1].axes[-1]
    low, high = (line.get_xydata() for line in axis.lines if line.get_label() != "path")
    path = next(line for line in axis.lines if line.get_label() == "path").get_xydata()
    assert (path[:, 1] >= np.interp(path[:, 0], *low.T)).all()
    assert (path[:, 1] <= np.interp(path[:, 0], *high.T)).all()


def test_local_cost_is_that_of_the_op():
    x, y = (make_ecg(1, 3, n, seed=k)[0].double().numpy() for k, n in enumerate((20, 30)))
    apart = x[:, :, None] - y[:, None]
    np.testing.assert_allclose(warping._local(x, y, "l1"), np.abs(apart).sum(0))
    np.testing.assert_allclose(warping._local(x, y, "sqeuclidean"), (apart**2).sum(0))
    np.testing.assert_allclose(warping._local(x, y, "euclidean"), np.sqrt((apart**2).sum(0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leads": LEADS[:2]}, r"x and y must be \(leads, samples\) with 2 leads, got \(3, 50\)"),
        ({"shown": ["V9"]}, "shown must name some of I, II, V2, got V9"),
        ({"cost": "cosine"}, "cost must be one of sqeuclidean, euclidean, l1, got 'cosine'"),
        ({"path": [[0, 0], [49, 60]]}, r"path leaves the records of 50 and 50 samples: .*49, 60"),
        ({"path": [0, 1]}, r"path must be \(steps, 2\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses(change, message):
    x = np.zeros((3, 50))
    words = {"path": [[0, 0], [49, 49]], "leads": LEADS, "shown": ["I"], "fs": 100} | change
    with pytest.raises(ValueError, match=message):
        draw_warping_path(x, x, **words)


def test_example_runs():
    assert doctest.testmod(warping).failed == 0
