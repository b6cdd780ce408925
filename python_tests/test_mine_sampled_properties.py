"""What must hold of mine_sampled for any batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops._mine_sampled import distance_weighted_reference
from ecgfast.ops._pairs import all_pairs, relations
from python_tests.test_mine_sampled import OPS, assert_same


@st.composite
def batches(draw):
    """Embeddings, labels, groups or none, and a seed. SYNTHETIC."""
    n, d = draw(st.integers(0, 140)), draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    labels = torch.randint(draw(st.integers(1, 8)), (n,), generator=generator)
    groups = torch.randint(9, (n,), generator=generator) if draw(st.booleans()) else None
    return x, labels, groups, torch.tensor([draw(st.integers(-(2**63), 2**63 - 1))])


@settings(max_examples=60, deadline=None)
@given(batches())
def test_draws_are_of_the_right_kind_and_valid_where_there_are_any(batch):
    x, labels, groups, seed = batch
    positive, negative = relations(all_pairs(x, labels, groups=groups))
    rows = torch.arange(len(x))
    for op in OPS:
        drawn = op(x, labels, groups=groups, seed=seed)
        *chosen, valid = (tensor.reshape(len(x)) for tensor in drawn)
        if len(chosen) == 2:
            assert torch.equal(valid, positive.any(dim=1) & negative.any(dim=1))
        else:
            truth = distance_weighted_reference(
                x, labels, **({"groups": groups} if groups is not None else {})
            )
            assert torch.equal(valid, truth.any(dim=1))
            assert (truth[rows, chosen[0]][valid] > 0).all()
        for indices, relation in zip(chosen[::-1], (negative, positive), strict=False):
            assert relation[rows, indices][valid].all()
            assert torch.equal(indices[~valid], rows[~valid])


@settings(max_examples=40, deadline=None)
@given(batches(), st.integers(1, 50))
def test_an_anchor_draws_alike_in_any_company_of_anchors(batch, most):
    x, labels, _, seed = batch
    few = min(most, len(x))
    places = torch.arange(len(x))
    words = dict(references=x, reference_labels=labels, seed=seed)
    for op in OPS:
        every = op(x, labels, places=places, **words)
        some = op(x[:few], labels[:few], places=places[:few], **words)
        same = [
            (one == other[:few]).double().mean() if few else torch.tensor(1.0)
            for one, other in zip(some, every, strict=True)
        ]
        assert min(same) > 1 - 0.5 / max(few, 1)  # products of other shapes may round otherwise


@settings(max_examples=40, deadline=None)
@given(batches(), st.integers(-(2**40), 2**40))
def test_names_of_labels_are_nothing(batch, shift):
    x, labels, groups, seed = batch
    for op in OPS:
        named = op(x, labels * 3 + shift, groups=groups, seed=seed)
        assert_same(named, op(x, labels, groups=groups, seed=seed))
