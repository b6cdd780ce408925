"""Orders of frames: numbers that invert exactly, and what they mean for a clip."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from ecgfast.transforms.frame_order import (
    FrameOrders,
    frame_orders,
    inverse,
    order_code,
    order_of,
)

ANY = pytest.mark.parametrize("frames", [2, 3, 4, 5, 6])


@ANY
def test_code_and_order_invert_exactly_for_all_orders(frames):
    every = math.factorial(frames)
    codes = torch.arange(every)
    orders = order_of(codes, frames)
    assert orders.tolist() == sorted(map(list, permutations(range(frames))))  # lexicographic
    assert torch.equal(orders, frame_orders(frames))
    assert torch.equal(order_code(orders), codes)
    mixed = torch.randperm(every)
    assert torch.equal(order_code(order_of(mixed, frames)), mixed)


@ANY
def test_codes_are_places_in_base_of_factorials(frames):
    for order in permutations(range(frames)):
        left, code = list(range(frames)), 0
        for place, frame in enumerate(order):
            code += left.index(frame) * math.factorial(frames - 1 - place)
            left.remove(frame)
        assert order_code(torch.tensor([order])).item() == code


@ANY
def test_an_order_and_its_inverse_leave_a_clip_as_it_was(frames):
    orders = frame_orders(frames)
    true = torch.arange(frames)
    assert torch.equal(orders.gather(1, inverse(orders)), true.expand_as(orders))
    assert torch.equal(inverse(orders).gather(1, orders), true.expand_as(orders))
    assert torch.equal(inverse(inverse(orders)), orders)
    clip = torch.randint(256, (1, frames, 3, 3), dtype=torch.uint8)
    for order in orders:
        shown = clip[:, order]
        assert torch.equal(shown[:, 0], clip[:, order[0]])  # shown frame i is true frame order[i]
        assert torch.equal(shown[:, inverse(order[None])[0]], clip)


def test_the_first_code_is_the_true_order_and_the_last_is_backwards():
    assert order_of(torch.tensor([0, 23]), 4).tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]


def test_draws_are_of_the_seed_even_and_each_with_its_code():
    orders = FrameOrders(4)
    torch.manual_seed(5)
    order, code = orders(4800)
    torch.manual_seed(5)
    again = orders(4800)
    assert torch.equal(order, again[0])
    assert torch.equal(code, again[1])
    assert torch.equal(order_code(order), code)
    assert orders.count == 24
    counts = code.bincount(minlength=24)
    assert ((counts - 200).abs() < 70).all()  # five SDs of a count of 200
    assert not orders.state_dict()  # weights hold no table
    assert orders(0)[0].shape == (0, 4)


@pytest.mark.parametrize("frames", [0, 1, 7, 50])
def test_too_few_and_too_many_frames_are_refused(frames):
    for make in (frame_orders, FrameOrders, lambda f: order_of(torch.zeros(1).long(), f)):
        with pytest.raises(ValueError, match=f"frames must be 2 to 6 .* got {frames}"):
            make(frames)
    with pytest.raises(ValueError, match="frames must be 2 to 6"):
        order_code(torch.zeros(1, frames, dtype=torch.int64))


def test_what_is_no_order_and_no_code_is_refused():
    with pytest.raises(ValueError, match=r"2 of 3 rows are no order of 0 to 2, .* \[1, 1, 2\]"):
        order_code(torch.tensor([[0, 1, 2], [1, 1, 2], [1, 2, 3]]))
    with pytest.raises(ValueError, match="whole numbers"):
        order_code(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="whole numbers"):
        order_code(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="codes of 4 frames are 0 to 23, got 24 in 2 of 3"):
        order_of(torch.tensor([3, 24, -1]), 4)
    with pytest.raises(ValueError, match="whole numbers"):
        order_of(torch.tensor([0.0]), 4)
