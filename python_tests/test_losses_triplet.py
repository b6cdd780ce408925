"""Losses on listed triplets: the ops with their numbers, and what the usual library says."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers

from ecgfast.losses.triplet import MarginLoss, TripletLoss
from ecgfast.ops import triplet_loss

DISTANCES = {  # as they are given: nothing is normalised
    "sqeuclidean": distances.LpDistance(normalize_embeddings=False, power=2),
    "euclidean": distances.LpDistance(normalize_embeddings=False),
    "cosine": distances.CosineSimilarity(),
}
REDUCERS = {
    "mean": reducers.MeanReducer(),
    "mean_active": reducers.AvgNonZeroReducer(),
    "sum": reducers.SumReducer(),
    "none": reducers.DoNothingReducer(),
}


def draw(n=12, m=0, d=5, k=40, seed=0):
    """Embeddings (N, D) and references (M, D) or None in float64, triplets (3, K), labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(c, d, generator=generator, dtype=torch.float64) for c in (n, m))
    columns = m or n
    rows = torch.stack([torch.randint(c, (k,), generator=generator) for c in (n, columns, columns)])
    if not m:  # a distance of a row to itself has no derivative, and two libraries two opinions
        rows[1] = (rows[0] + 1 + rows[1] % (n - 1)) % n
        rows[2] = (rows[0] + 1 + rows[2] % (n - 1)) % n
    labels = torch.randint(3, (n,), generator=generator)
    return x.requires_grad_(), y.requires_grad_() if m else None, rows, labels


def some(rows):
    return torch.arange(rows.shape[1]) % 3 != 1


def assert_same(loss, expected, *leaves):
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    moved, wanted = (torch.autograd.grad(value.sum(), leaves) for value in (loss, expected))
    torch.testing.assert_close(moved, wanted, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_op_with_its_numbers(reduction):
    embeddings = torch.randn(6, 4, requires_grad=True)
    rows = torch.randint(6, (3, 9))
    valid = torch.arange(9) % 2 == 0
    loss = TripletLoss(margin=0.7, reduction=reduction)(embeddings, *rows, valid)
    expected = triplet_loss(embeddings, *rows, valid=valid, margin=0.7, reduction=reduction)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    moved, wanted = (torch.autograd.grad(x.sum(), embeddings)[0] for x in (loss, expected))
    torch.testing.assert_close(moved, wanted, rtol=0, atol=0)


def test_the_published_numbers_are_the_default():
    embeddings = torch.tensor([[0.0], [1.0], [2.0]])
    rows = torch.tensor([[0, 0], [1, 2], [2, 1]])
    assert TripletLoss()(embeddings, *rows).item() == pytest.approx((0 + (4 - 1 + 0.2)) / 2)


@pytest.mark.parametrize("metric", DISTANCES)
@pytest.mark.parametrize("reduction", REDUCERS)
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("m", [0, 7])
def test_triplets_are_what_pytorch_metric_learning_says(metric, reduction, smooth, m):
    x, y, rows, labels = draw(m=m)
    for swap in (False, True) if m == 0 else (False,):
        # with references and swap it looks positives up among the anchors: not compared
        peer = losses.TripletMarginLoss(
            0.3, swap, smooth, distance=DISTANCES[metric], reducer=REDUCERS[reduction]
        )
        there = {} if y is None else {"ref_emb": y, "ref_labels": torch.zeros(m)}
        expected = peer(x, labels, tuple(rows), **there)
        if reduction == "none":
            expected = expected["loss"]["losses"]
        ours = TripletLoss(0.3, reduction, metric=metric, swap=swap, smooth=smooth)
        leaves = [x] if y is None else [x, y]
        assert_same(ours(x, *rows, references=y), expected, *leaves)
        valid = some(rows)
        masked = ours(x, *rows, valid, references=y)
        listed = ours(x, *rows[:, valid], references=y)
        assert_same(masked[valid] if reduction == "none" else masked, listed, *leaves)


def test_swap_with_references_looks_among_them():
    x, y, rows, _ = draw(m=7)
    a, p, n = x[rows[0]], y[rows[1]], y[rows[2]]
    near, far, swapped = (
        torch.linalg.vector_norm(u - v, dim=1) for u, v in [(a, p), (a, n), (p, n)]
    )
    keep = rows[1] != rows[2]
    terms = torch.relu(near - torch.minimum(far, swapped) + 0.3)[keep]
    ours = TripletLoss(0.3, "none", metric="euclidean", swap=True)
    assert_same(ours(x, *rows, references=y)[keep], terms, x, y)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("metric", DISTANCES)
def test_triplets_of_nobody_cost_nothing(metric, smooth):
    x, _, rows, _ = draw()
    nobody = torch.zeros_like(rows[0], dtype=torch.bool)
    for reduction in REDUCERS:
        ours = TripletLoss(0.3, reduction, metric=metric, smooth=smooth)
        for loss in (ours(x, *rows, nobody), ours(x, *rows[:, :0])):
            assert not loss.any()
            (moved,) = torch.autograd.grad(loss.sum(), x)
            assert not moved.any()


def test_a_nan_row_shows():
    x, _, rows, _ = draw()
    x = x.detach().clone()
    x[int(rows[0, 0])] = torch.nan
    for metric in DISTANCES:
        for reduction in ("mean", "mean_active", "sum"):
            assert TripletLoss(reduction=reduction, metric=metric)(x, *rows).isnan()
    assert MarginLoss()(x, *rows).isnan()


@pytest.mark.parametrize("beta", [dict(), dict(num_classes=3)], ids=["one", "classes"])
@pytest.mark.parametrize("nu", [0.0, 0.1])
@pytest.mark.parametrize("m", [0, 7])
def test_margin_is_what_pytorch_metric_learning_says(beta, nu, m):
    x, y, rows, labels = draw(m=m, d=3)
    words = dict(margin=0.3, beta=1.5, learn_beta=True, nu=nu) | beta
    peer, ours = losses.MarginLoss(distance=DISTANCES["euclidean"], **words), MarginLoss(**words)
    start = torch.linspace(1.0, 2.0, 3) if beta else torch.tensor(1.5)
    for loss in (peer, ours):
        loss.beta.data.copy_(start)
    there = {} if y is None else {"ref_emb": y, "ref_labels": torch.zeros(m)}
    leaves = [x] if y is None else [x, y]
    for triplets in (rows, rows[:, some(rows)]):
        expected = peer(x, labels, tuple(triplets), **there)
        if triplets is rows:
            found = ours(x, *rows, references=y, labels=labels)
        else:
            found = ours(x, *rows, some(rows), references=y, labels=labels)
        (wanted,) = torch.autograd.grad(expected, peer.beta, retain_graph=True)
        (moved,) = torch.autograd.grad(found, ours.beta, retain_graph=True)
        torch.testing.assert_close(moved, wanted.reshape(moved.shape))
        assert_same(found, expected.squeeze(), *leaves)


def test_margin_on_rows_of_length_1_is_the_peer_without_words():
    x, _, rows, labels = draw()
    unit = torch.nn.functional.normalize(x)
    assert_same(MarginLoss()(unit, *rows), losses.MarginLoss()(x, labels, tuple(rows)), x)


@pytest.mark.parametrize("classes", [None, 3])
def test_margin_without_a_term_above_0(classes):
    x, _, rows, labels = draw()
    loss = MarginLoss(num_classes=classes, learn_beta=True, nu=0.5)
    nobody = torch.zeros_like(rows[0], dtype=torch.bool)
    broken = rows.clone()
    broken[:, ::2] = 2**40
    for value in (
        loss(x, *rows[:, :0], labels=labels),
        loss(x, *rows, nobody, labels=labels),
        loss(x, *broken, nobody, labels=labels),
        loss(x[:0], *broken, nobody, labels=labels[:0]),
    ):
        assert value == 0
    far = torch.tensor([[0.0], [0.1], [9.0]])
    labels = torch.zeros(3, dtype=torch.int64)
    value = loss(far, *torch.tensor([[0], [1], [2]]), labels=labels)
    # all is where it should be; one beta is still paid for, as the peer does, and no class is
    assert value.item() == pytest.approx(0.6 if classes is None else 0.0)


def test_margin_in_half_and_under_autocast():
    x, _, rows, labels = draw()
    loss = MarginLoss(num_classes=3, learn_beta=True)
    whole = loss(x.detach().half().float(), *rows, labels=labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(x.detach().half(), *rows, labels=labels)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole)


def test_losses_compile_without_a_graph_break():
    x, _, rows, labels = draw()
    for loss, words in [
        (TripletLoss(metric="cosine", swap=True, reduction="mean_active"), {}),
        (MarginLoss(num_classes=3, learn_beta=True, nu=0.1), {"labels": labels}),
    ]:
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        assert_same(compiled(x, *rows, some(rows), **words), loss(x, *rows, some(rows), **words), x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TripletLoss(reduction="max"), "reduction must be one of .* got 'max'"),
        (lambda: TripletLoss(metric="dot"), "metric must be one of .* got 'dot'"),
        (lambda: TripletLoss(margin=-1), "margin must be at least 0, got -1"),
        (lambda: MarginLoss(num_classes=0), "num_classes must be at least 1, got 0"),
    ],
)
def test_refuses_words(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("loss", [TripletLoss(metric="cosine"), MarginLoss()], ids=str)
def test_indices_outside_are_named(loss):
    x, _, rows, _ = draw()
    rows[2, 5] = 12
    with pytest.raises(
        IndexError, match=r"columns\[45\] must be in \[0, 12\), got 12.*40 positives"
    ):
        loss(x, *rows)
    with pytest.raises(ValueError, match=r"negatives must be \(40,\) as anchors, got \(39,\)"):
        loss(x, rows[0], rows[1], rows[2, 1:])
    with pytest.raises(ValueError, match=r"valid must be \(40,\) as anchors, got \(39,\)"):
        loss(x, *rows, some(rows)[1:])


def test_margin_refuses_labels():
    x, _, rows, labels = draw()
    loss = MarginLoss(num_classes=3)
    with pytest.raises(ValueError, match="labels must be given: beta has 3 classes"):
        loss(x, *rows)
    with pytest.raises(
        ValueError, match=r"labels must be \(12,\) integers, got \(5,\) torch.int64"
    ):
        loss(x, *rows, labels=labels[:5])
    with pytest.raises(ValueError, match=r"got .* torch\.float32"):
        loss(x, *rows, labels=labels.float())
    labels = torch.where(torch.arange(12) == rows[0, 4], 3, labels)
    count = int((rows[0] == rows[0, 4]).sum())
    with pytest.raises(IndexError, match=rf"\[0, 3\), .* triplet \d+ has 3; {count} of 40"):
        loss(x, *rows, labels=labels)
    unused = some(rows) & (rows[0] != rows[0, 4])
    loss(x, *rows, unused, labels=labels)


def test_shows_its_numbers_and_has_no_parameters():
    loss = TripletLoss(margin=0.5)
    assert repr(loss) == "TripletLoss(margin=0.5, reduction='mean')"
    assert not list(loss.parameters())
    assert not loss.state_dict()
    words = repr(TripletLoss(0.1, "sum", metric="cosine", swap=True, smooth=True))
    assert words.endswith("reduction='sum', metric='cosine', swap=True, smooth=True)")
    assert repr(MarginLoss(num_classes=4)) == "MarginLoss(margin=0.2, beta: 4 classes)"
    assert list(MarginLoss().state_dict()) == ["beta"]
    assert [p.shape for p in MarginLoss(num_classes=4, learn_beta=True).parameters()] == [(4,)]
