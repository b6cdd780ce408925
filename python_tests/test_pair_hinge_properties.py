"""What must hold of hinges over all pairs and all triplets, for any batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfast.ops import all_triplets, contrastive, margin_all, pair_hinge_terms
from python_tests.test_pair_hinge import draw, gradients

batches = st.builds(
    lambda n, d, classes, seed: draw(n, None, d, classes, dtype=torch.float64, seed=seed)[:2],
    st.integers(1, 24),
    st.integers(1, 20),
    st.integers(1, 6),
    st.integers(0, 2**31),
)
METRICS = st.sampled_from(["euclidean", "sqeuclidean", "cosine"])


@settings(max_examples=40, deadline=None)
@given(batches, METRICS, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(batch, metric, random):
    (x,), labels = batch
    order = list(range(len(x)))
    random.shuffle(order)
    for op in (contrastive, margin_all):
        values = op(x[order], labels[order], metric=metric), op(x, labels, metric=metric)
        torch.testing.assert_close(*values, rtol=1e-10, atol=1e-12)
    mixed, plain = (all_triplets(x[o], labels[o], metric=metric) for o in (order, slice(None)))
    torch.testing.assert_close(mixed, plain, rtol=1e-10, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(batches, METRICS, st.floats(0, 2), st.floats(0, 2))
def test_a_wider_margin_never_costs_less(batch, metric, margin, more):
    (x,), labels = batch
    words = dict(metric=metric, reduction="sum")
    narrow, wide = (all_triplets(x, labels, margin=m, **words) for m in (margin, margin + more))
    assert narrow.loss <= wide.loss + 1e-10 <= narrow.loss + more * wide.active.item() + 2e-10
    assert narrow.active <= wide.active <= wide.triplets == narrow.triplets


@settings(max_examples=40, deadline=None)
@given(batches, st.sampled_from(["euclidean", "sqeuclidean"]), st.floats(-5, 5))
def test_moving_all_rows_changes_nothing(batch, metric, shift):
    (x,), labels = batch
    for op in (contrastive, margin_all, lambda *given, **words: all_triplets(*given, **words)[0]):
        values = (op(z, labels, metric=metric, reduction="sum") for z in (x, x + shift))
        torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)
        (moved,) = gradients(lambda z, op=op: op(z, labels, metric=metric, reduction="sum"), x)
        least = 1e-12 * (1 + moved.abs().max().item()) * len(x)
        torch.testing.assert_close(
            moved.sum(dim=0), torch.zeros_like(x[0]), rtol=0, atol=100 * least
        )


@settings(max_examples=40, deadline=None)
@given(batches, METRICS)
def test_counts_are_those_of_the_labels(batch, metric):
    (x,), labels = batch
    same = (labels[:, None] == labels).sum(dim=1)
    words = dict(positive_threshold=-1.0, negative_threshold=100.0, metric=metric)
    terms = pair_hinge_terms(x, labels, **words)
    assert torch.equal(terms.positives, same - 1)
    assert torch.equal(terms.negatives, len(x) - same)
    assert torch.equal(terms.positive_active, terms.positives)
    assert torch.equal(terms.negative_active, terms.negatives)
    triplets = all_triplets(x, labels, margin=100.0, reduction="none")
    assert torch.equal(triplets.active, (same - 1) * (len(x) - same))
    assert torch.equal(triplets.active, triplets.triplets)


@settings(max_examples=40, deadline=None)
@given(batches, st.integers(1, 12))
def test_references_in_two_parts_add_up(batch, cut):
    (x,), labels = batch
    cut = min(cut, len(x))
    words = dict(positive_threshold=0.3, negative_threshold=1.5)
    whole = pair_hinge_terms(x, labels, references=x, reference_labels=labels, **words)
    parts = [
        pair_hinge_terms(x, labels, references=x[p], reference_labels=labels[p], **words)
        for p in (slice(cut), slice(cut, None))
    ]
    for name in whole._fields:
        added = sum(getattr(part, name) for part in parts)
        torch.testing.assert_close(added, getattr(whole, name), rtol=1e-10, atol=1e-12)
