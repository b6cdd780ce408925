"""Losses agree with pytorch-metric-learning wherever that is right; elsewhere the test says why."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import pytorch_metric_learning.distances as their_distances
import pytorch_metric_learning.losses as theirs
import pytorch_metric_learning.reducers as their_reducers
import torch
from torch.nn.functional import normalize

from ecgfast.pml import distances, losses, reducers

_spec = importlib.util.spec_from_file_location("cases", Path(__file__).parent / "pml_cases.py")
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)

WORDS = {
    "NTXentLoss": [{}, {"temperature": 0.5}],
    "SupConLoss": [{}, {"temperature": 1.0}],
    "MultiSimilarityLoss": [{}, {"alpha": 1, "beta": 10, "base": 0.1}],
    "ContrastiveLoss": [{}, {"pos_margin": 0.7, "neg_margin": 1.5}],
    "TripletMarginLoss": [{}, {"margin": 0.3}, {"margin": 0.1, "smooth_loss": True}],
    "MarginLoss": [{}, {"margin": 0.1, "beta": 1.4, "nu": 0.3, "learn_beta": True}],
    "AngularLoss": [{}, {"alpha": 25}],
    "NPairsLoss": [{}],
}
PAIR_LOSSES = ["NTXentLoss", "SupConLoss", "MultiSimilarityLoss", "ContrastiveLoss"]
EVERY = [(name, words) for name in WORDS for words in WORDS[name]]


def peer_is_wrong(name, indices, found):
    """The cases that have a test of their own below."""
    a1, _, a2, _ = found
    if name in PAIR_LOSSES and max(len(a1), len(a2)) <= 1:
        return True  # says 0 for a list of one pair each
    if name == "AngularLoss" and indices is not None and len(a2) == 0 < len(a1):
        return True  # says 0 without listed negatives, which it does not look at otherwise
    return name == "SupConLoss" and len(a1) > 0 and len(a2) == 0


def pairs_of(labels, ref_labels, indices):
    if indices is None:
        partners = labels if ref_labels is None else ref_labels
        same = labels[:, None] == partners
        other = ~same
        if ref_labels is None:
            same = same & ~torch.eye(len(labels), dtype=torch.bool)
        return (*same.nonzero().unbind(1), *other.nonzero().unbind(1))
    a, p = indices[:2]
    return (*indices,) if len(indices) == 4 else (a, p, a, indices[2])


@pytest.mark.parametrize(
    ("name", "words", "pattern"),
    [
        (name, words, pattern)
        for name, words in EVERY
        for pattern in (["unequal"] if words else cases.PATTERNS)
    ],
    ids=str,
)
def test_agrees_with_the_peer(name, words, pattern):
    labels = torch.tensor(cases.PATTERNS[pattern])
    embeddings = cases.rows(len(labels))
    # its angular loss normalises anchors and positives alone: both are given unit rows
    before = (lambda x: normalize(x)) if name == "AngularLoss" else None
    compared = 0
    for among in cases.REFERENCES:
        ref_emb, ref_labels = cases.references(among, embeddings, labels)
        if name == "NPairsLoss" and ref_emb is not None:
            continue
        for kind in cases.KINDS:
            indices = cases.lists(kind, labels, ref_labels)
            if peer_is_wrong(name, indices, pairs_of(labels, ref_labels, indices)):
                continue
            case = embeddings, labels, indices, ref_emb, ref_labels, before
            ours = cases.outcome(getattr(losses, name)(**words), *case)
            peer = cases.outcome(getattr(theirs, name)(**words), *case)
            for one, other in zip(ours, peer, strict=True):
                case = f"{among}, {kind}"
                error = (one - other).abs().max()
                assert error <= 1e-10 + 1e-9 * other.abs().max(), f"{case}: {error:.1e}"
            compared += 1
    if (name, pattern[:3]) != ("SupConLoss", "one"):
        assert compared >= (4 if name == "NPairsLoss" else 6)


DISTANCES = [
    ("LpDistance", {}),
    ("LpDistance", {"normalize_embeddings": False, "power": 2}),
    ("LpDistance", {"p": 1, "normalize_embeddings": False}),
    ("LpDistance", {"p": 3}),
    ("CosineSimilarity", {}),
    ("DotProductSimilarity", {"normalize_embeddings": False}),
]


@pytest.mark.parametrize(("kind", "words"), DISTANCES, ids=str)
@pytest.mark.parametrize("name", [name for name in WORDS if name != "AngularLoss"])
def test_takes_other_distances(name, kind, words):
    labels = torch.tensor(cases.PATTERNS["unequal"])
    embeddings = cases.rows(len(labels))
    margins = {"pos_margin": 0.9, "neg_margin": 0.1}
    extra = margins if name == "ContrastiveLoss" and "Sim" in kind else {}
    for among, tuples in (("none", "none"), ("other", "none"), ("other", "repeated")):
        if name == "NPairsLoss":
            among = "none"
        ref_emb, ref_labels = cases.references(among, embeddings, labels)
        indices = cases.lists(tuples, labels, ref_labels)
        found = []
        for package, its_distances in ((losses, distances), (theirs, their_distances)):
            loss = getattr(package, name)(distance=getattr(its_distances, kind)(**words), **extra)
            found.append(cases.outcome(loss, embeddings, labels, indices, ref_emb, ref_labels))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


REDUCERS = [
    ("MeanReducer", {}),
    ("SumReducer", {}),
    ("AvgNonZeroReducer", {}),
    ("ThresholdReducer", {"low": 0.2, "high": 1.1}),
    ("ThresholdReducer", {"high": 0.6}),
    ("ClassWeightedReducer", {"weights": torch.tensor([1.0, 2.0, 0.5]).repeat(4)}),
    ("PerAnchorReducer", {}),
]


PEER_REDUCES_WRONG = [  # see below
    ("MultiSimilarityLoss", "ClassWeightedReducer"),
    ("NTXentLoss", "PerAnchorReducer"),
    ("ContrastiveLoss", "PerAnchorReducer"),
]


@pytest.mark.parametrize(("kind", "words"), REDUCERS, ids=str)
@pytest.mark.parametrize("name", [name for name in WORDS if name != "AngularLoss"])
def test_takes_other_reducers(name, kind, words):
    if kind == "PerAnchorReducer" and name in ("TripletMarginLoss", "MarginLoss"):
        reduced = getattr(losses, name)(reducer=reducers.PerAnchorReducer())
        with pytest.raises(NotImplementedError, match="triplets"):
            reduced(cases.rows(4), torch.tensor([0, 0, 1, 1]))
        return
    labels = torch.tensor(cases.PATTERNS["unequal"])
    embeddings = cases.rows(len(labels))
    for tuples in ("none", "pairs", "triplets", "repeated"):
        if (name, kind) in PEER_REDUCES_WRONG and (kind, tuples) != ("PerAnchorReducer", "pairs"):
            continue
        indices = cases.lists(tuples, labels, None)
        found = []
        for package, its_reducers in ((losses, reducers), (theirs, their_reducers)):
            loss = getattr(package, name)(reducer=getattr(its_reducers, kind)(**words))
            found.append(cases.outcome(loss, embeddings, labels, indices))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_hands_back_what_the_peer_hands_back():
    labels = torch.tensor(cases.PATTERNS["fours"])
    embeddings = cases.rows(len(labels))
    for name in ("NTXentLoss", "TripletMarginLoss", "ContrastiveLoss", "SupConLoss"):
        ours = getattr(losses, name)(reducer=reducers.DoNothingReducer())(embeddings, labels)
        loss = getattr(theirs, name)(reducer=their_reducers.DoNothingReducer())
        peer = loss(embeddings, labels)
        assert ours.keys() == peer.keys()
        for part in ours:
            assert ours[part]["reduction_type"] == peer[part]["reduction_type"]
            torch.testing.assert_close(ours[part]["losses"], peer[part]["losses"])
            torch.testing.assert_close(ours[part]["indices"], peer[part]["indices"])


def test_several_reducers_and_a_divisor():
    labels = torch.tensor(cases.PATTERNS["unequal"])
    embeddings = cases.rows(len(labels))
    found = []
    for package, its in ((losses, reducers), (theirs, their_reducers)):
        several = its.MultipleReducers({"pos_loss": its.SumReducer()}, its.MeanReducer())
        found.append(package.ContrastiveLoss(reducer=several)(embeddings, labels))
    torch.testing.assert_close(*found)
    with pytest.raises(ValueError, match="hands over a divisor"):
        losses.NTXentLoss(reducer=reducers.DivisorReducer())(embeddings, labels)


@pytest.mark.parametrize("classes", [None, 10])
def test_learns_the_boundary_of_the_margin_loss(classes):
    labels = torch.tensor(cases.PATTERNS["unequal"])
    embeddings = cases.rows(len(labels))
    words = {"nu": 0.7, "learn_beta": True, "num_classes": classes}
    for tuples in ("none", "triplets", "repeated", "empty"):
        indices = cases.lists(tuples, labels, None)
        ours, peer = losses.MarginLoss(**words), theirs.MarginLoss(**words)
        for loss in (ours, peer):
            value = loss(embeddings.requires_grad_(), labels, indices)
            value.backward()
        none = torch.zeros_like(ours.beta)
        one, other = (none if x.beta.grad is None else x.beta.grad for x in (ours, peer))
        torch.testing.assert_close(one, other)


def test_charges_nothing_where_there_are_no_triplets():
    """The peer's zero has no gradient for the boundary: an optimiser would skip it, ours gets 0."""
    loss = losses.MarginLoss(nu=0.7, learn_beta=True)
    value = loss(cases.rows(4), torch.arange(4))
    value.backward()
    assert value.item() == 0
    assert loss.beta.grad.tolist() == [0]


def test_vicreg_agrees():
    views = cases.rows(9), cases.rows(9, seed=1)
    for words in ({}, {"invariance_lambda": 3, "variance_mu": 40, "covariance_v": 9, "eps": 0.1}):
        found = []
        for package in (losses, theirs):
            leaves = [x.clone().requires_grad_() for x in views]
            value = package.VICRegLoss(**words)(leaves[0], ref_emb=leaves[1])
            found.append([value, *torch.autograd.grad(value, leaves)])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    for words in ({"labels": torch.arange(9)}, {"indices_tuple": (torch.arange(1),) * 3}):
        with pytest.raises(ValueError, match=f"takes no {next(iter(words))}"):
            losses.VICRegLoss()(views[0], ref_emb=views[1], **words)
    with pytest.raises(ValueError, match="2 rows"):
        losses.VICRegLoss()(views[0][:1], ref_emb=views[1][:1])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", [name for name in WORDS if name != "NPairsLoss"])
def test_two_views_without_labels_agree(name, symmetric):
    if name == "MarginLoss":
        pytest.skip("the peer does not allow it")
    views = [normalize(cases.rows(7, seed=seed)) for seed in (0, 1)]
    found = []
    for package in (losses, theirs):
        leaves = [x.clone().requires_grad_() for x in views]
        loss = package.SelfSupervisedLoss(getattr(package, name)(), symmetric=symmetric)
        value = loss(*(normalize(x) for x in leaves))
        found.append([value, *torch.autograd.grad(value, leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_draws_triplets_of_every_anchor():
    labels = torch.tensor(cases.PATTERNS["unequal"])
    loss = losses.TripletMarginLoss(
        margin=9, triplets_per_anchor=50, reducer=reducers.DoNothingReducer()
    )
    a, p, n = loss(cases.rows(len(labels)), labels)["loss"]["indices"]
    assert a.bincount(minlength=12).tolist() == [50 * (labels == k).sum().gt(1) for k in labels]
    assert (labels[a] == labels[p]).all()
    assert (a != p).all()
    assert (labels[a] != labels[n]).all()
    seen = set(zip(a.tolist(), p.tolist(), strict=True))
    assert {x for x in seen if x[0] == 0} == {(0, 1), (0, 2), (0, 3), (0, 4), (0, 10)}


def test_adds_a_penalty_on_embeddings():
    labels = torch.tensor([0, 0, 1, 1])
    embeddings = cases.rows(4)
    words = {
        "embedding_regularizer": lambda x: x.square().sum(dim=1).mean(),
        "embedding_reg_weight": 0.3,
    }
    for name in ("NTXentLoss", "ContrastiveLoss"):
        ours = getattr(losses, name)(**words)(embeddings, labels)
        torch.testing.assert_close(ours, getattr(theirs, name)(**words)(embeddings, labels))


# where the peer is wrong --------------------------------------------------------------------------


def test_one_pair_is_not_nothing():
    """The peer says 0 to a list with one positive and one negative pair: no gradient at all."""
    embeddings = cases.rows(3)
    indices = tuple(torch.tensor([k]) for k in (0, 1, 2))
    x = normalize(embeddings)
    near, far = x[0] @ x[1], x[0] @ x[2]
    assert theirs.NTXentLoss(temperature=0.5)(embeddings, None, indices) == 0
    expected = torch.log1p(torch.exp((far - near) / 0.5))
    for loss in (losses.NTXentLoss(0.5), losses.SupConLoss(0.5)):
        torch.testing.assert_close(loss(embeddings, None, indices), expected)
    assert theirs.ContrastiveLoss()(embeddings, None, indices) == 0
    expected = (x[0] - x[1]).norm() + torch.relu(1 - (x[0] - x[2]).norm())
    torch.testing.assert_close(losses.ContrastiveLoss()(embeddings, None, indices), expected)


def test_one_class_has_a_supcon_loss():
    """The peer says 0 as soon as a batch has no negative; the published formula does not."""
    x = cases.rows(5)
    labels = torch.zeros(5, dtype=torch.int64)
    logits = (normalize(x) @ normalize(x).T / 0.1).fill_diagonal_(-torch.inf)
    off = ~torch.eye(5, dtype=torch.bool)
    expected = logits.logsumexp(1) - logits[off].reshape(5, 4).mean(1)
    torch.testing.assert_close(losses.SupConLoss()(x, labels), expected.mean())
    assert theirs.SupConLoss()(x, labels) == 0


def test_the_collapsed_batch_gives_the_logarithm():
    for count in (4, 64):
        labels = torch.arange(count).repeat(2)
        same = torch.ones(2 * count, 8)
        expected = torch.log(torch.tensor(2.0 * count - 1))
        torch.testing.assert_close(losses.NTXentLoss()(same, labels), expected)
        torch.testing.assert_close(losses.SupConLoss()(same, labels), expected)


def test_angular_negatives_are_at_length_one_too():
    """The peer leaves the negatives as long as they came: the loss depends on their scale."""
    x = cases.rows(6)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    ours = losses.AngularLoss()
    torch.testing.assert_close(ours(x, labels), ours(3 * x, labels))
    torch.testing.assert_close(ours(x, labels), theirs.AngularLoss()(normalize(x), labels))
    assert not torch.isclose(theirs.AngularLoss()(x, labels), theirs.AngularLoss()(3 * x, labels))


def test_angular_negatives_are_by_label_whatever_is_listed():
    """The peer ignores which negatives are listed, but says 0 where none are."""
    x = normalize(cases.rows(4))
    labels = torch.tensor([0, 0, 1, 1])
    near = torch.tensor([0, 3]), torch.tensor([1, 2])
    some, none = torch.tensor([0, 1]), torch.tensor([], dtype=torch.int64)
    expected = theirs.AngularLoss()(x, labels, (*near, some, some + 2))
    torch.testing.assert_close(losses.AngularLoss()(x, labels, (*near, none, none)), expected)
    assert theirs.AngularLoss()(x, labels, (*near, none, none)) == 0


def test_classes_weigh_their_own_anchors():
    """The peer's losses are a column there: times a row of weights, all losses get all weights."""
    x, labels = cases.rows(6), torch.tensor([0, 0, 0, 1, 1, 2])
    weights = torch.tensor([1.0, 0.0, 9.0], dtype=torch.float64)
    each = losses.MultiSimilarityLoss(reducer=reducers.DoNothingReducer())(x, labels)
    expected = (each["loss"]["losses"] * weights[labels]).mean()
    ours = losses.MultiSimilarityLoss(reducer=reducers.ClassWeightedReducer(weights))
    torch.testing.assert_close(ours(x, labels), expected)
    peer = theirs.MultiSimilarityLoss(reducer=their_reducers.ClassWeightedReducer(weights))
    mixed = each["loss"]["losses"].mean() * weights[labels].mean()
    torch.testing.assert_close(peer(x, labels), mixed)


def test_a_repeated_pair_has_the_gradient_of_one():
    """The peer writes a repeated pair's loss once and gives its gradient as often as it stands."""
    x, labels = cases.rows(6), torch.tensor([0, 0, 0, 1, 1, 1])
    once = cases.lists("pairs", labels, None)
    twice = once[0].repeat(2), once[1].repeat(2), *once[2:]
    found = []
    for package, its in ((losses, reducers), (theirs, their_reducers)):
        loss = package.NTXentLoss(reducer=its.PerAnchorReducer())
        found += [cases.outcome(loss, x, labels, indices) for indices in (once, twice)]
    for other in found[1:3]:
        torch.testing.assert_close(other, found[0])
    torch.testing.assert_close(found[3][0], found[0][0])
    torch.testing.assert_close(found[3][1], 2 * found[0][1])


def test_swap_looks_at_the_references():
    """With ref_emb the peer looks the positive up among the anchors, by its index there."""
    x, y = cases.rows(4), cases.rows(4, seed=1)
    indices = tuple(torch.tensor(k) for k in ([0, 1, 2], [3, 0, 1], [2, 3, 0]))
    a, p, n = (t for t in indices)
    x1, y1 = normalize(x), normalize(y)
    far = torch.minimum((x1[a] - y1[n]).norm(dim=1), (y1[p] - y1[n]).norm(dim=1))
    expected = torch.relu((x1[a] - y1[p]).norm(dim=1) - far + 2).mean()
    ours = losses.TripletMarginLoss(margin=2, swap=True)(x, None, indices, y)
    torch.testing.assert_close(ours, expected)
    peer = theirs.TripletMarginLoss(margin=2, swap=True)(x, None, indices, y)
    assert not torch.isclose(peer, expected)
    same = losses.TripletMarginLoss(margin=2, swap=True)(x, None, indices)
    torch.testing.assert_close(
        same, theirs.TripletMarginLoss(margin=2, swap=True)(x, None, indices)
    )


def test_a_second_view_may_share_the_tensor_of_labels():
    """The peer tells "the same rows" by the labels' tensor, and drops each row's only positive."""
    x, y = cases.rows(5), cases.rows(5, seed=1)
    labels = torch.arange(5)
    ours = losses.NTXentLoss(0.5)(x, labels, None, y, labels)
    expected = torch.nn.functional.cross_entropy(normalize(x) @ normalize(y).T / 0.5, labels)
    torch.testing.assert_close(ours, expected)
    assert theirs.NTXentLoss(0.5)(x, labels, None, y, labels) == 0


def test_a_nan_is_seen():
    """The peer's mean of what is above zero drops it: NaN > 0 is false."""
    x = cases.rows(8)
    x[3, 1] = torch.nan
    labels = torch.arange(4).repeat_interleave(2)
    assert theirs.TripletMarginLoss()(x, labels).isfinite()
    for name in WORDS:
        assert getattr(losses, name)()(x, labels).isnan(), name


def test_small_temperatures_keep_their_gradient():
    """The peer's exp underflows in float32: the loss stops at 87.3, where its gradient is 0."""
    x = torch.tensor([[1.0, 0, 0], [-1, 0.01, 0], [1, 0.01, 0], [0, 1, 0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1])
    indices = torch.tensor([0, 2]), torch.tensor([1, 3]), torch.tensor([0, 2]), torch.tensor([2, 0])
    near, far = (normalize(x)[:1] @ normalize(x)[[1, 2]].T / 0.01).unbind(1)
    value, gradient = cases.outcome(losses.NTXentLoss(0.01), x, labels, indices)
    assert value > 140
    assert gradient[3].norm() > 49
    _, gradient = cases.outcome(theirs.NTXentLoss(0.01), x, labels, indices)
    assert gradient.norm() < 1e-3
    assert (far - near).item() > 190


def test_equal_rows_have_no_distance():
    """torch.cdist of more than 25 rows gives equal float32 rows a distance, with a gradient."""
    x = cases.rows(40, 32, dtype=torch.float32).repeat_interleave(2, dim=0)
    rows, columns = torch.arange(0, 80, 2), torch.arange(1, 80, 2)
    ours = distances.LpDistance(normalize_embeddings=False)
    assert (ours(x)[rows, columns] == 0).all()
    assert (their_distances.LpDistance(normalize_embeddings=False)(x)[rows, columns] > 0).any()
    assert cases.outcome(losses.ContrastiveLoss(), x, torch.arange(80) // 2)[0].isfinite()


def test_a_pair_reduced_by_anchor_may_have_any_reference():
    """The peer's table of losses is batch by batch: an index beyond the batch is an error there."""
    x, y = cases.rows(3), cases.rows(7, seed=1)
    labels, ref_labels = torch.tensor([0, 1, 2]), torch.tensor([9, 9, 9, 0, 0, 1, 9])
    listed = losses.NTXentLoss(reducer=reducers.DoNothingReducer())
    each = listed(x, labels, None, y, ref_labels)["loss"]["losses"]
    expected = (each[:2].mean() + each[2]) / 3
    for loss in (
        losses.NTXentLoss(reducer=reducers.PerAnchorReducer()),
        losses.NTXentLoss(
            reducer=reducers.PerAnchorReducer(
                aggregation_func=lambda table, number: table.sum(1) / number.clamp(min=1)
            )
        ),
    ):
        torch.testing.assert_close(loss(x, labels, None, y, ref_labels), expected)
    peer = theirs.NTXentLoss(reducer=their_reducers.PerAnchorReducer())
    with pytest.raises(IndexError):
        peer(x, labels, None, y, ref_labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(WORDS))
def test_halves_are_computed_in_float32(name, dtype):
    """The peer computes, masks and sums in half: infinities, and losses that stop at 9.7."""
    labels = torch.arange(6).repeat(4)
    x = cases.rows(24, 32).to(dtype)
    loss = getattr(losses, name)()
    plain = cases.outcome(loss, x.float(), labels)
    for autocast in (False, True):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = loss(leaf, labels)
        (gradient,) = torch.autograd.grad(value, leaf)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, plain[0])
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, plain[1].to(dtype), rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize("name", list(WORDS))
def test_in_float32_no_worse_than_the_peer(name):
    labels = torch.arange(8).repeat(4)
    x = cases.rows(32, 64)
    before = normalize if name == "AngularLoss" else None
    truth = cases.outcome(getattr(theirs, name)(), x, labels, before=before)
    peer = cases.outcome(getattr(theirs, name)(), x.float(), labels, before=before)
    ours = cases.outcome(getattr(losses, name)(), x.float(), labels, before=before)
    for t, p, o in zip(truth, peer, ours, strict=True):
        floor = 4 * torch.finfo(torch.float32).eps * t.abs().max()
        assert (o - t).abs().max() <= 2 * (p - t).abs().max() + floor


# refusals -----------------------------------------------------------------------------------------


def test_refuses():
    x, labels = cases.rows(4), torch.tensor([0, 0, 1, 1])
    loss = losses.NTXentLoss()
    one = torch.tensor([0])
    for error, words, match in (
        (ValueError, (x,), "labels must be given"),
        (ValueError, (x, labels[:3]), r"labels must be \(4,\)"),
        (ValueError, (x[0], labels), r"embeddings must be \(rows, D\)"),
        (TypeError, (x.long(), labels), "float dtype"),
        (ValueError, (x, labels, None, x.clone()), "ref_labels must be given"),
        (ValueError, (x, labels, None, None, labels.clone()), "without ref_emb"),
        (ValueError, (x, labels, None, x[:, :2], labels), "ref_emb 2"),
        (ValueError, (x, labels, (one, one)), "got 2 lists"),
        (ValueError, (x, labels, (one, one, torch.tensor([1, 2]))), "do not match"),
        (IndexError, (x, labels, (one, one, one + 4)), r"outside of \[0, 4\), the first at 0: 4"),
        (TypeError, (x, labels / 3), "fractions"),
    ):
        with pytest.raises(error, match=match):
            loss(*words)
    both = torch.tensor([0]), torch.tensor([1])
    with pytest.raises(ValueError, match="positive and negative"):
        losses.SupConLoss()(x, labels, (*both, *both))
    with pytest.raises(ValueError, match="needs LpDistance"):
        losses.AngularLoss(distance=distances.CosineSimilarity())
    with pytest.raises(ValueError, match="no ref_emb"):
        losses.NPairsLoss()(x, labels, None, x.clone(), labels)
    with pytest.raises(ValueError, match="collects no statistics"):
        losses.NTXentLoss(collect_stats=True)
    with pytest.raises(ValueError, match="triplets_per_anchor"):
        losses.TripletMarginLoss(triplets_per_anchor=0)
    with pytest.raises(ValueError, match="NPairsLoss does not"):
        losses.SelfSupervisedLoss(losses.NPairsLoss())


def test_whole_numbers_of_any_dtype_are_labels():
    x, labels = cases.rows(6), torch.tensor([0, 1, 0, 1, 0, 1])
    expected = losses.NTXentLoss()(x, labels)
    for dtype in (torch.float32, torch.int32, torch.uint8, torch.bool):
        assert losses.NTXentLoss()(x, labels.to(dtype)) == expected


def test_a_loss_of_ones_own_is_a_subclass():
    class Pull(losses.BaseMetricLossFunction):
        def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
            assert indices_tuple is None
            assert ref_emb is embeddings
            far = self.distance(embeddings, ref_emb)[labels[:, None] == ref_labels]
            everyone = torch.arange(len(far))
            return {"loss": {"losses": far, "indices": everyone, "reduction_type": "element"}}

    x = cases.rows(4)
    far = torch.stack([(a - b).norm() for a, b in zip(*normalize(x).split(2), strict=True)])
    value = Pull()(x, torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(value, far.mean() / 2)  # each pair twice, each row with itself


@pytest.mark.parametrize("name", list(WORDS))
def test_nothing_to_compare_is_zero_with_a_gradient(name):
    none = torch.arange(0)
    cases_of = [
        (cases.rows(0), none),
        (cases.rows(1), torch.tensor([3])),
        (cases.rows(0), none, (none,) * 3),
        (cases.rows(4), torch.tensor([0, 0, 1, 1]), (none,) * 4),
    ]
    if name != "NPairsLoss":
        cases_of.append((cases.rows(3), torch.tensor([0, 0, 1]), None, cases.rows(0), none))
    for case in cases_of:
        value, *gradients = cases.outcome(getattr(losses, name)(), *case)
        assert value == 0
        assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("name", ["NTXentLoss", "TripletMarginLoss", "MarginLoss"])
def test_all_pairs_compile_without_a_graph_break(name):
    x, labels = cases.rows(8), torch.arange(4).repeat(2)
    loss = getattr(losses, name)()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for one, other in zip(
        cases.outcome(compiled, x, labels), cases.outcome(loss, x, labels), strict=True
    ):
        torch.testing.assert_close(one, other)


# what is fused ------------------------------------------------------------------------------------

PRODUCTS = [
    ("CosineSimilarity", {}),
    ("DotProductSimilarity", {}),
    ("DotProductSimilarity", {"normalize_embeddings": False}),
]
HINGES = [
    ("LpDistance", {}),
    ("LpDistance", {"normalize_embeddings": False, "power": 2}),
    ("CosineSimilarity", {}),
]
FUSED = [
    ("NTXentLoss", PRODUCTS, "Mean Sum ClassWeighted PerAnchor"),
    ("SupConLoss", PRODUCTS, "Mean Sum ClassWeighted PerAnchor AvgNonZero"),
    ("MultiSimilarityLoss", PRODUCTS, "Mean Sum ClassWeighted PerAnchor AvgNonZero"),
    ("ContrastiveLoss", HINGES, "Mean Sum ClassWeighted PerAnchor AvgNonZero"),
    ("TripletMarginLoss", HINGES, "Mean Sum ClassWeighted AvgNonZero"),
    ("MarginLoss", HINGES, "Mean Sum ClassWeighted Divisor"),
]


@pytest.mark.parametrize(
    ("name", "kind", "reducer"),
    [(name, kind, r) for name, kinds, rs in FUSED for kind in kinds for r in rs.split()],
    ids=str,
)
def test_all_pairs_are_not_listed(name, kind, reducer, monkeypatch):
    """And the op says what the list says, also with the anchors' places among references."""
    labels = torch.tensor(cases.PATTERNS["unequal"])
    x = cases.rows(len(labels))
    y, ref_labels = torch.cat([cases.rows(4, seed=3), x]), torch.cat([labels[:4], labels])
    places = torch.arange(4, 4 + len(x))
    weights = {"weights": torch.arange(1.0, 11.0)} if reducer == "ClassWeighted" else {}
    words = {"learn_beta": True, "nu": 0.3, "num_classes": 10} if name == "MarginLoss" else {}
    loss = getattr(losses, name)(
        distance=getattr(distances, kind[0])(**kind[1]),
        reducer=getattr(reducers, reducer + "Reducer")(**weights),
        **words,
    )

    def outcome():
        leaves = [t.clone().requires_grad_() for t in (x, y)]
        value = loss.of_batch(leaves[0], labels, None, leaves[1], ref_labels, places=places)
        return [value, *torch.autograd.grad(value, [*leaves, *loss.parameters()])]

    with monkeypatch.context() as patch:
        patch.setattr(loss, "fused", lambda batch: None)
        listed = outcome()
    monkeypatch.setattr("ecgfast.pml._tuples.relations", None)  # lists nothing any more
    for one, other in zip(outcome(), listed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_lists_repeat_bit_for_bit():
    labels = torch.arange(8).repeat(8)
    x = cases.rows(64, 16, dtype=torch.float32)
    indices = cases.lists("repeated", labels, None)
    for name in WORDS:
        runs = [cases.outcome(getattr(losses, name)(), x, labels, indices) for _ in range(5)]
        assert all(torch.equal(a, b) for run in runs for a, b in zip(run, runs[0], strict=True))
