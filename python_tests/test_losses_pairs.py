"""Losses over all pairs: as pytorch-metric-learning has them, and the same over several ranks."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import distances
from pytorch_metric_learning import losses as peer

from ecgfast.losses.pairs import AllPairsMarginLoss, AllTripletsLoss, ContrastiveLoss
from ecgfast.ops import all_triplets, contrastive, margin_all
from python_tests.ranks import load, two_ranks

PATTERNS = {
    "pairs": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    "fours": [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
    "one_class": [4] * 6,
    "all_different": list(range(8)),
    "unequal": [0, 0, 0, 0, 0, 1, 1, 2, 5, 5, 0, 9],
    "one_row": [0],
}
DISTANCES = {
    "lp": (distances.LpDistance(normalize_embeddings=False), "euclidean", False),
    "lp_normalised": (distances.LpDistance(), "euclidean", True),
    "squared": (distances.LpDistance(power=2), "sqeuclidean", True),
    "cosine": (distances.CosineSimilarity(), "cosine", False),
}


def as_similarity(name, distance):
    """The peer states margins of a similarity as one."""
    return 1 - distance if name == "cosine" else distance


def draw(pattern, kind):
    generator = torch.Generator().manual_seed(len(pattern))
    labels = torch.tensor(PATTERNS[pattern])

    def rows(count):
        return torch.randn(count, 5, generator=generator, dtype=torch.float64) / 2

    if kind == "none":
        return rows(len(labels)), labels, None, None
    return rows(len(labels)), labels, rows(9), labels.repeat(9)[:9].flip(0)


def outcome(loss, x, labels, y, y_labels, parameters=()):
    """Value and gradients of rows, references and parameters."""
    leaves = [row.clone().requires_grad_() for row in (x, y) if row is not None]
    value = loss(leaves[0], labels, leaves[1] if len(leaves) > 1 else None, y_labels)
    leaves += parameters
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [
        value.detach().squeeze(),
        *(torch.zeros_like(p) if g is None else g for g, p in zip(found, leaves, strict=True)),
    ]


def ours(loss):
    return lambda x, labels, y, y_labels: loss(
        x, labels, **({} if y is None else dict(references=y, reference_labels=y_labels))
    )


def theirs(loss):
    return lambda x, labels, y, y_labels: loss(x, labels, None, y, y_labels)


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape).to(a.dtype), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("references", ["none", "other"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_is_what_pytorch_metric_learning_says(pattern, distance, references):
    given = draw(pattern, references)
    of_peer, metric, normalise = DISTANCES[distance]
    words = dict(metric=metric, normalise=normalise)
    for near, far in ((0.0, 1.0), (0.4, 1.2)):
        loss = ContrastiveLoss(near, far, **words)
        margins = (as_similarity(distance, margin) for margin in (near, far))
        expected = peer.ContrastiveLoss(*margins, distance=of_peer)
        assert_same(outcome(ours(loss), *given), outcome(theirs(expected), *given))
    for margin in (0.05, 0.8):
        loss = AllTripletsLoss(margin, **words)
        expected = peer.TripletMarginLoss(margin, distance=of_peer)
        assert_same(outcome(ours(loss), *given), outcome(theirs(expected), *given))


@pytest.mark.parametrize("classes", [None, 10])
@pytest.mark.parametrize("references", ["none", "other"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_margin_and_its_beta_are_what_pytorch_metric_learning_says(
    pattern, distance, references, classes
):
    given = draw(pattern, references)
    of_peer, metric, normalise = DISTANCES[distance]
    beta = 0.75  # 1 - 0.75 is a number too
    # A similarity falls where beta rises, so nu means the other direction: left out there.
    nu = 0.0 if distance == "cosine" else 0.03
    loss = AllPairsMarginLoss(
        0.1, beta, learn_beta=True, num_classes=classes, nu=nu, metric=metric, normalise=normalise
    ).double()
    expected = peer.MarginLoss(
        0.1, nu, as_similarity(distance, beta), "all", True, classes, distance=of_peer
    ).double()
    with torch.no_grad():  # a beta that differs between classes, the same number on both sides
        steps = torch.linspace(0, 0.5, classes or 1, dtype=torch.float64)
        loss.beta += steps.reshape(loss.beta.shape)
        expected.beta += -steps if distance == "cosine" else steps
    found = outcome(ours(loss), *given, parameters=[loss.beta])
    wanted = outcome(theirs(expected), *given, parameters=[expected.beta])
    wanted[-1] = -wanted[-1] if distance == "cosine" else wanted[-1]
    assert_same(found, wanted)


def test_two_ranks_are_one_process_on_the_whole_batch(tmp_path):
    found = two_ranks("two_ranks_pairs", tmp_path)[0]
    script = load("two_ranks_pairs")
    names = set()
    for name, loss in script.losses(False):
        model = script.Model(loss).double()
        value = model(*script.batch())
        value.backward()
        close = dict(rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found[name]["loss"], value.detach(), **close)
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(found[name]["gradients"][key], parameter.grad, **close)
        names.add(name)
    assert names == set(found)
    assert len(names) == 12


def test_are_the_ops_with_their_numbers():
    x, labels = torch.randn(20, 4), torch.arange(20) % 3
    for reduction in ("mean_active", "mean", "sum"):
        words = dict(metric="sqeuclidean", normalise=True, reduction=reduction)
        pairs = [
            (ContrastiveLoss(0.1, 0.9, gather=True, **words), contrastive),
            (AllTripletsLoss(0.3, **words), all_triplets),
            (AllPairsMarginLoss(0.3, 0.7, **words), margin_all),
        ]
        numbers = [dict(positive_margin=0.1, negative_margin=0.9), dict(margin=0.3)]
        numbers += [dict(margin=0.3, beta=0.7)]
        for (loss, op), options in zip(pairs, numbers, strict=True):
            expected = op(x, labels, **options, **words)
            expected = expected if isinstance(expected, torch.Tensor) else expected[0]
            torch.testing.assert_close(loss(x, labels), expected)


def test_beta_is_a_parameter_only_if_learned():
    assert not list(AllPairsMarginLoss(num_classes=3).parameters())
    learned = AllPairsMarginLoss(num_classes=3, learn_beta=True)
    assert [tuple(p.shape) for p in learned.parameters()] == [(3,)]
    assert learned.state_dict().keys() == AllPairsMarginLoss(num_classes=3).state_dict().keys()


def test_says_its_numbers():
    words = "metric='euclidean', normalise=False, reduction='mean_active', gather=False"
    assert repr(AllTripletsLoss(0.5)) == f"AllTripletsLoss(margin=0.5, {words})"
    assert repr(ContrastiveLoss()).startswith("ContrastiveLoss(positive_margin=0.0, negative_")
    assert "learn_beta=True, nu=0.5" in repr(AllPairsMarginLoss(learn_beta=True, nu=0.5))


def test_refuses():
    x, labels = torch.zeros(3, 2), torch.tensor([0, 1, 7])
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\).* 1 of 3 are not, .* is 7"):
        AllPairsMarginLoss(num_classes=4)(x, labels)
    with pytest.raises(ValueError, match="mean_active, mean, sum, got 'none'"):
        AllTripletsLoss(reduction="none")
    with pytest.raises(ValueError, match="gather=True"):
        ContrastiveLoss(gather=True)(x, labels, references=x, reference_labels=labels)


def test_compiles_without_a_graph_break():
    loss = AllPairsMarginLoss(learn_beta=True, num_classes=4, nu=0.1)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x, labels = torch.randn(9, 3, requires_grad=True), torch.arange(9) % 4
    values = [f(x, labels) for f in (loss, compiled)]
    torch.testing.assert_close(*values)
    leaves = [x, loss.beta]
    torch.testing.assert_close(*(torch.autograd.grad(value, leaves) for value in values))
