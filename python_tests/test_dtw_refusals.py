"""What dtw refuses: from users in words, from any caller at the border to native code."""

from __future__ import annotations

import pytest
import torch

from ecgfast import _C
from ecgfast.ops import soft_dtw
from ecgfast.ops.dtw import dtw, dtw_mine


def test_swapped_axes_warn():
    x = torch.randn(2, 300, 12)
    with pytest.warns(UserWarning, match=r"300 leads of 12 samples.*time must be the last axis"):
        dtw(x)


RECORDS = torch.zeros(3, 2, 9)


@pytest.mark.parametrize(
    ("x", "y", "words", "error", "message"),
    [
        (torch.zeros(3, 9), None, {}, ValueError, r"x must be \(records, leads, samples\), got"),
        (RECORDS, torch.zeros(9), {}, ValueError, r"y must be \(records, leads, samples\), got"),
        (torch.zeros(3, 2, 0), None, {}, ValueError, "x has no leads or no samples"),
        (RECORDS.int(), None, {}, TypeError, "x must be .* got torch.int32"),
        (RECORDS, torch.zeros(3, 4, 9), {}, ValueError, "x has 2 leads and y has 4"),
        (RECORDS, RECORDS.half(), {}, TypeError, "cast one of them"),
        (RECORDS, RECORDS.to("meta"), {}, ValueError, "y on meta"),
        (RECORDS, None, {"cost": "manhattan"}, ValueError, "did you mean"),
        (RECORDS, None, {"cost": "L1"}, ValueError, "did you mean l1"),
        (RECORDS, None, {"precision": "faster"}, ValueError, "precision .* did you mean fast"),
        (RECORDS, None, {"radius": -1}, ValueError, "radius must be at least 0, got -1"),
        (RECORDS, None, {"radius": 10.0}, ValueError, "an int for samples"),
        (RECORDS, None, {"radius": float("nan")}, ValueError, "an int for samples"),
        (RECORDS, None, {"radius": True}, ValueError, "radius must be a number"),
        (RECORDS, None, {"radius": "5"}, ValueError, "radius must be a number"),
        (RECORDS, None, {"lengths": [9, 9]}, ValueError, r"lengths must be \(3,\), got \(2,\)"),
        (RECORDS, None, {"lengths": [9, 0, 0]}, ValueError, r"in \[1, 9\], got 0 for record 1 \(2"),
        (RECORDS, None, {"lengths": [9, 10, 9]}, ValueError, r"in \[1, 9\], got 10 for record 1"),
        (RECORDS, None, {"lengths": [9.0, 1.0, 2.0]}, ValueError, "whole numbers"),
        (RECORDS, RECORDS, {"lengths": [9, 9, 9]}, ValueError, "lengths must be a pair"),
    ],
)
def test_refuses(x, y, words, error, message):
    with pytest.raises(error, match=message):
        dtw(x, y, **words)


@pytest.mark.parametrize("op", [dtw, dtw_mine, soft_dtw])
def test_a_gap_is_named_if_that_is_asked_for(op):
    x = torch.zeros(5, 2, 9)
    x[3, 1, 4] = torch.nan
    x[3, 1, 7] = -torch.inf
    x[4, 0, 8] = torch.nan
    first = r"x has 2 samples .* in record 3, the first at lead 1, sample 4 \(2 records in all"
    with pytest.raises(ValueError, match=first):
        op(x, on_gap="raise")
    op(x, on_gap="raise", lengths=[9, 9, 9, 4, 8])  # what is not looked at is no gap
    op(x[:3], on_gap="raise")
    with pytest.raises(ValueError, match="did you mean propagate"):
        op(x, on_gap="propagated")
    if op is not dtw_mine:
        with pytest.raises(ValueError, match="y has 2 samples missing"):
            op(x[:3], x, on_gap="raise")


@pytest.mark.parametrize("cost", ["euclidean", "l1"])
def test_fast_refuses_other_costs(cost):
    with pytest.raises(ValueError, match=r"for cost='sqeuclidean' alone, got .*precision='exact'"):
        dtw(RECORDS, cost=cost, precision="fast")
    with pytest.raises(ValueError, match="sqeuclidean"):
        dtw_mine(RECORDS, cost=cost, precision="fast")


def view(tensor, **lies):
    facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
    code = {torch.float32: 2, torch.float64: 3, torch.int32: 6, torch.int64: 7}[tensor.dtype]
    return tuple((facts | dict(dtype=code, device=-1) | lies).values())


def test_border_guards_memory():
    place = (-1, 0, 2)
    x, y = torch.zeros(2, 3, 8), torch.zeros(4, 3, 9)
    row, column, room = _C.dtw_shapes(2, 4, 3, 8, 9, False, place)
    honest = dict(
        rows=torch.zeros(row),
        columns=torch.zeros(column),
        x_length=torch.zeros(0, dtype=torch.int64),
        y_length=torch.full((4,), 9),
        x_finite=torch.zeros(2, dtype=torch.int32),
        y_finite=torch.zeros(4, dtype=torch.int32),
        scratch=torch.zeros(room),
        distance=torch.zeros(2, 4),
    )
    facts = (3, 8, 9, 0, 5, -1.0, True, False)
    for name, lie, message in [
        ("rows", dict(shape=(2, 3, 8)), "rows must be"),
        ("rows", dict(dtype=3), "dtype"),
        ("columns", dict(shape=(4, 3, 9)), "columns must be"),
        ("columns", dict(stride=(0, 0, 1)), "dense"),
        ("x_length", dict(shape=(3,)), "x_length must be"),
        ("y_length", dict(dtype=6), "y_length has the wrong dtype"),
        ("x_finite", dict(shape=(4,)), "x_finite must be"),
        ("y_finite", dict(dtype=7), "y_finite has the wrong dtype"),
        ("scratch", dict(shape=(1, 73)), "scratch must be"),
        ("distance", dict(dtype=1), "without a kernel"),
        ("distance", dict(stride=(8, 1)), "dense"),
        ("distance", dict(device=0), "one device"),
        ("distance", dict(data=0), "no memory"),
    ]:
        views = [view(part, **(lie if key == name else {})) for key, part in honest.items()]
        with pytest.raises(ValueError, match=message):
            _C.dtw_forward(*views, *facts, place)
    views = [view(part) for part in honest.values()]
    for at, lie, message in [
        (0, 0, "leads and samples"),
        (2, 2**31, "too large"),
        (3, 4, "no such cost"),
        (3, 3, "rows must be"),  # without norms
        (4, -1, "radius must be"),
        (4, 18, "radius must be"),
        (5, 1.5, "fraction must be"),
        (7, True, "x itself"),
    ]:
        with pytest.raises(ValueError, match=message):
            _C.dtw_forward(*views, *facts[:at], lie, *facts[at + 1 :], place)
    with pytest.raises(TypeError):
        _C.dtw_forward(x, *views[1:], *facts, place)
    form, none = view(honest["rows"]), view(honest["columns"], shape=(0, 0, 0))
    length, finite = view(honest["x_length"]), view(honest["x_finite"])
    _C.dtw_prepare(view(x), length, form, none, finite, False, place)
    for views, message in [
        ((view(y), length, form, none, finite), "rows must be"),
        ((view(x, stride=(24, 1, 3)), length, form, none, finite), "dense"),
        ((view(x), length, form, form, finite), "columns must be"),
        ((view(x), length, form, none, view(honest["y_finite"])), "finite must be"),
        ((view(x), view(honest["y_length"]), form, none, finite), "length must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            _C.dtw_prepare(*views, False, place)
