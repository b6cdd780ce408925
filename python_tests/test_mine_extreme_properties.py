"""What must hold of mining for any embeddings and labels."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops.mine_extreme import (
    batch_hard,
    batch_hard_reference,
    label_distance,
    nearest_farthest,
)
from python_tests.test_mine_extreme import assert_labels_match, assert_rows_match, assert_same

rules = st.sampled_from(
    [(p, n) for p in ("hardest", "easiest") for n in ("hardest", "easiest", "semihard")]
)


@st.composite
def problems(draw):
    """Embeddings, labels and groups. All distances are exact in float32, and many of them equal."""
    n, d = draw(st.integers(1, 24)), draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    levels = draw(st.sampled_from([2, 3, 100]))
    rows = torch.randint(levels, (n, d), generator=generator).float()
    rows = rows * draw(st.sampled_from([0.125, 1.0, 64.0])) + draw(st.sampled_from([0.0, 4096.0]))
    labels = torch.randint(draw(st.integers(1, n)), (n,), generator=generator)
    return rows, labels, torch.randint(n, (n,), generator=generator)


@settings(max_examples=40, deadline=None)
@given(problems(), rules, st.booleans())
def test_differences_decide(problem, rule, grouped):
    rows, labels, groups = problem
    words = dict(groups=groups) if grouped else {}
    words |= dict(positive=rule[0], negative=rule[1])
    assert_same(batch_hard(rows, labels, **words), batch_hard_reference(rows, labels, **words))


@settings(max_examples=40, deadline=None)
@given(problems(), st.booleans(), st.sampled_from([None, 0.0, 0.5, 10.0]))
def test_labels_are_compared_as_plain_torch_does(problem, apart, max_gap):
    rows, _, groups = problem
    assert_labels_match(rows[:, 0], groups=groups, groups_apart=apart, max_gap=max_gap)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(0, 22))
def test_farthest_are_sorted(problem, k_far):
    rows = problem[0]
    _, farthest = assert_rows_match(rows, eligible=None, k_far=k_far)
    taken = min(k_far, rows.shape[1])
    order = rows.argsort(dim=1, descending=True, stable=True)[:, :taken]
    assert torch.equal(farthest[:, :taken], order)
    assert (farthest[:, taken:] == -1).all()


@settings(max_examples=40, deadline=None)
@given(problems(), rules, st.randoms(use_true_random=False))
def test_names_of_classes_are_nothing(problem, rule, random):
    rows, labels, _ = problem
    names = torch.tensor([random.randrange(-(2**62), 2**62) for _ in range(len(rows))])
    words = dict(positive=rule[0], negative=rule[1])
    assert_same(batch_hard(rows, labels, **words), batch_hard(rows, names[labels], **words))


@settings(max_examples=40, deadline=None)
@given(problems(), rules)
def test_the_order_of_rows_is_nothing_but_for_ties(problem, rule):
    rows, labels, _ = problem
    words = dict(positive=rule[0], negative=rule[1])
    ahead = batch_hard(rows, labels, **words)
    back = batch_hard(rows.flip(0), labels.flip(0), **words)
    assert torch.equal(ahead.valid, back.valid.flip(0))
    last = len(rows) - 1
    for a, b in zip(ahead[:2], back[:2], strict=True):
        reached = [(rows - rows[i]).square().sum(dim=1) for i in (a, last - b.flip(0))]
        torch.testing.assert_close(*reached, rtol=0, atol=0)


@settings(max_examples=40, deadline=None)
@given(problems())
def test_moving_and_turning_labels_changes_nothing(problem):
    values = problem[0][:, 0].round()
    for moved in (values + 8, -values, values * 4):
        assert_same(label_distance(values), label_distance(moved))


@settings(max_examples=30, deadline=None)
@given(problems(), st.integers(1, 5))
def test_strips_of_distances_are_rows_of_the_matrix(problem, height):
    rows, _, groups = problem
    distances, eligible = (rows[:, None] - rows).abs().sum(dim=-1), groups > 0
    itself = torch.arange(len(rows))
    whole = nearest_farthest(distances, eligible=eligible, places=itself, k_far=3)
    for begin in range(0, len(rows), height):
        part = slice(begin, begin + height)
        strip = nearest_farthest(distances[part], eligible=eligible, places=itself[part], k_far=3)
        assert all(torch.equal(a[part], b) for a, b in zip(whole, strip, strict=True))
