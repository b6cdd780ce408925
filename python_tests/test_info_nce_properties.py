"""What must hold of the losses of info_nce for any batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops.info_nce import info_nce, multi_similarity, nt_xent, sup_con
from python_tests.test_info_nce import ALL_PAIRS, draw, gradient

problems = st.builds(
    lambda n, classes, d, seed: draw(n, classes, d, dtype=torch.float64, seed=seed),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 2**31),
)
names = st.sampled_from(sorted(ALL_PAIRS))
kept = settings(max_examples=40, deadline=None)


@kept
@given(problems, names)
def test_no_loss_is_negative(problem, name):
    x, labels, groups = problem
    assert (ALL_PAIRS[name][0](x, labels, groups=groups, reduction="none") >= 0).all()


@kept
@given(problems, names, st.floats(1e-3, 1e3))
def test_lengths_do_not_matter(problem, name, length):
    x, labels, _ = problem
    op = ALL_PAIRS[name][0]
    torch.testing.assert_close(op(x * length, labels), op(x, labels))
    moved = gradient(lambda z: op(z, labels), x)[0]
    along = (moved * x).sum(dim=1)  # so no row is asked to grow or shrink
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-11)


@kept
@given(problems, names, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(problem, name, random):
    x, labels, groups = problem
    order = list(range(len(x)))
    random.shuffle(order)
    op = ALL_PAIRS[name][0]
    mixed = op(x[order], labels[order], groups=groups[order])
    torch.testing.assert_close(mixed, op(x, labels, groups=groups))


@kept
@given(problems)
def test_fewer_negatives_never_cost_more(problem):
    x, labels, groups = problem
    for op in (nt_xent, sup_con, multi_similarity):
        every = op(x, labels, reduction="none")
        fewer = op(x, labels, groups=groups, reduction="none")
        assert (fewer <= every + 1e-12).all()


@kept
@given(problems, st.integers(0, 2**31))
def test_queries_and_keys_may_change_places(problem, seed):
    q, labels, groups = problem
    k = draw(*q.shape[:1], 1, q.shape[1], dtype=torch.float64, seed=seed)[0]
    words = dict(labels=labels, groups=groups, logit_scale=5.0)
    torch.testing.assert_close(info_nce(q, k, **words), info_nce(k, q, **words))
