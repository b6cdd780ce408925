"""Hinges over all pairs and all triplets against their references, and at their edges."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch

from ecgfast import _C
from ecgfast.ops import (
    _all_triplets,
    _pair_losses,
    all_triplets,
    all_triplets_terms,
    contrastive,
    margin_all,
    pair_hinge,
    pair_hinge_terms,
)
from ecgfast.ops._all_triplets import all_triplets_reference
from ecgfast.ops._pair_metric import METRICS, REDUCTIONS
from ecgfast.ops._pairs import all_pairs
from ecgfast.ops.pair_hinge import pair_hinge_reference
from ecgfast.testing import assert_as_accurate

THRESHOLDS = dict(positive_threshold=0.9, negative_threshold=1.6)

# (N, M or None for no references, D, classes): alone; more columns than a block of a kernel and
# an odd rest; long rows. And a class larger than what is compared one by one
SHAPES = [(2, None, 1, 1), (9, 300, 5, 3), (21, None, 131, 6)]
WIDE = (130, None, 7, 2)


def draw(n, m, d, classes, *, device="cpu", dtype=torch.float32, seed=0, groups=False):
    """Rows and labels, and the words that say who is whose partner."""
    generator = torch.Generator().manual_seed(seed)

    def side(count):
        rows = torch.randn(count, d, generator=generator, dtype=torch.float64) / d**0.5
        return rows.to(device=device, dtype=dtype), ids(count, classes)

    def ids(count, most):
        return torch.randint(most, (count,), generator=generator).to(device)

    x, labels = side(n)
    words = dict(groups=ids(n, 2 * n)) if groups else {}
    if m is None:
        return [x], labels, words
    y, reference_labels = side(m)
    words |= dict(reference_labels=reference_labels, places=ids(n, m + 1) - 1)
    if groups:
        words["reference_groups"] = ids(m, 2 * n)
    return [x, y], labels, words


def with_rows(op, labels, words, **options):
    """The op as a function of the rows alone; a loss of halves is float32."""

    def function(x, y=None):
        loss = op(x, labels, references=y, **words, **options)
        return (loss if isinstance(loss, torch.Tensor) else loss[0]).to(x.dtype)

    return function


def hinges(op):
    return lambda *given, **words: op(*given, **THRESHOLDS, **words)


def gradients(function, *rows):
    leaves = [row.detach().requires_grad_() for row in rows]
    return torch.autograd.grad(function(*leaves).sum(), leaves)


PAIRS = [
    pytest.param(hinges(pair_hinge), hinges(pair_hinge_reference), id="pairs"),
    pytest.param(all_triplets, all_triplets_reference, id="triplets"),
]
OPS = [pytest.param(hinges(pair_hinge), id="pairs"), pytest.param(all_triplets, id="triplets")]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("op", "reference"), PAIRS)
def test_matches_reference(device, op, reference, metric, shape):
    for dtype in (torch.float32, torch.float64):
        rows, labels, words = draw(*shape, device=device, dtype=dtype, groups=True)
        made = [with_rows(f, labels, words, metric=metric) for f in (op, reference)]
        assert_as_accurate(*made, *rows)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("op", "reference"), PAIRS)
def test_every_reduction_matches_reference(op, reference, reduction, normalise):
    for m in (None, 17):
        rows, labels, words = draw(40, m, 6, 4)
        options = dict(reduction=reduction, normalise=normalise)
        made = [with_rows(f, labels, words, **options) for f in (op, reference)]
        assert_as_accurate(*made, *rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "reference"), PAIRS)
def test_matches_reference_in_half(device, op, reference, dtype):
    rows, labels, words = draw(20, 33, 8, 3, device=device, dtype=dtype)
    made = [with_rows(f, labels, words) for f in (op, reference)]
    assert_as_accurate(*made, *rows)
    loss = op(rows[0], labels)
    assert (loss if isinstance(loss, torch.Tensor) else loss[0]).dtype == torch.float32


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("op", "reference"), PAIRS)
def test_every_instruction_set_matches_reference(isa, op, reference, metric):
    for shape in [*SHAPES, WIDE]:
        rows, labels, words = draw(*shape, groups=True)
        made = [with_rows(f, labels, words, metric=metric) for f in (op, reference)]
        assert_as_accurate(*made, *rows)


def test_thresholds_and_weights_have_exact_gradients(device):
    (x, y), labels, words = draw(12, 19, 4, 3, device=device, dtype=torch.float64)

    def loss(op, *tensors):
        names = ("positive_threshold", "negative_threshold", "positive_weight", "negative_weight")
        return op(x, labels, references=y, **words, **dict(zip(names, tensors, strict=True)))

    drawn = torch.rand(4, 12, dtype=torch.float64, device=device) + 0.5
    leaves = [row.clone().requires_grad_() for row in drawn]
    values = [loss(op, *leaves) for op in (pair_hinge, pair_hinge_reference)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, leaves) for value in values))
    one = torch.tensor(0.7, dtype=torch.float64, device=device, requires_grad=True)
    values = [loss(op, one, 2 * one, *leaves[2:]) for op in (pair_hinge, pair_hinge_reference)]
    torch.testing.assert_close(*(torch.autograd.grad(value, one) for value in values))


def by_triplets(x, labels, beta, margin):
    """The margin loss as its definition lists it: all triplets, and the terms that are over 0."""
    d = torch.cdist(x, x)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    a, p, n = torch.where(positive[:, :, None] & ~same[:, None, :])
    pull, push = torch.relu(d[a, p] - beta[a] + margin), torch.relu(beta[a] - d[a, n] + margin)
    return (pull + push).sum() / ((pull > 0).sum() + (push > 0).sum())


def test_margin_all_is_the_sum_over_triplets(device):
    (x,), labels, _ = draw(24, None, 5, 4, device=device, dtype=torch.float64)
    leaves = [x.requires_grad_(), torch.linspace(0.6, 1.4, 24, dtype=torch.float64, device=device)]
    leaves[1].requires_grad_()
    values = [margin_all(x, labels, beta=leaves[1]), by_triplets(x, labels, leaves[1], 0.2)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, leaves) for value in values))


def test_contrastive_by_hand(device):
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], device=device, requires_grad=True)
    labels = torch.tensor([0, 0, 1], device=device)
    loss = contrastive(x, labels, positive_margin=1.0, negative_margin=6.0)
    assert loss.item() == 2 + (2 + 1) / 2  # (3 - 1); 6 - 4 and 6 - 5, each from both ends
    # pull: +-1 along x; push: half of each end's unit vectors, (0, -1) and (3, -4) / 5
    (moved,) = torch.autograd.grad(loss, x)
    expected = [[-1.0, 0.5], [1 - 0.3, 0.4], [0.3, -0.5 - 0.4]]
    torch.testing.assert_close(moved, torch.tensor(expected, device=device))
    mean = contrastive(x, labels, positive_margin=1.0, negative_margin=5.0, reduction="mean")
    assert mean.item() == 2 + 0.5  # 1 and 0


@pytest.mark.parametrize("reduction", ["mean_active", "none"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("op", OPS)
def test_gradcheck(op, metric, reduction):
    for m in (None, 8):
        rows, labels, words = draw(6, m, 3, 2, dtype=torch.float64, seed=3)
        function = with_rows(op, labels, words, metric=metric, reduction=reduction)
        assert torch.autograd.gradcheck(function, [row.requires_grad_() for row in rows])


@pytest.mark.parametrize("op", OPS)
def test_refuses_a_second_derivative(op):
    (x,), labels, words = draw(6, None, 3, 2)
    x.requires_grad_()
    loss = with_rows(op, labels, words)(x).square()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("height", [1, 3, 7, 100])
def test_strips_do_not_show(device, height):
    rows, labels, words = draw(13, 30, 4, 3, device=device, dtype=torch.float64, groups=True)
    x, y = rows
    for columns in (None, y):
        given = words if columns is not None else dict(groups=words["groups"])
        who = all_pairs(x, labels, references=columns, **given)[2:7]
        thresholds = torch.rand(2, 13, dtype=torch.float64, device=device) + 0.5
        grads = torch.rand(2, 13, dtype=torch.float64, device=device)
        ops = torch.ops.ecgfast

        def every(h, columns=columns, who=who, thresholds=thresholds, grads=grads, ops=ops):
            words = ("euclidean", *who, h)
            yield from ops.pair_hinge(x, columns, thresholds, *words)
            for side in (False, True)[: 1 if columns is None else 2]:
                yield ops.pair_hinge_backward(grads, x, columns, thresholds, side, *words)
            yield from ops.all_triplets(x, columns, 0.3, *words)
            yield from ops.all_triplets_backward(grads[0], x, columns, 0.3, *words)

        torch.testing.assert_close(list(every(height)), list(every(None)), rtol=1e-12, atol=1e-13)


def test_more_positives_than_shared_memory_sorts(device):
    (x, y), _, _ = draw(1, 2300, 2, 1, device=device)
    words = dict(reference_labels=(torch.arange(2300, device=device) % 20 == 0).long())
    labels = torch.zeros(1, dtype=torch.int64, device=device)
    made = [with_rows(f, labels, words) for f in (all_triplets, all_triplets_reference)]
    assert_as_accurate(*made, x, y)


def test_counts_are_exact_beyond_2_to_31():
    # one large class and many others: 3000 * 2999 * 3000 triplets, all active
    labels = torch.cat([torch.zeros(3000, dtype=torch.int64), torch.arange(1, 3001)])
    x = torch.randn(6000, 2, generator=torch.Generator().manual_seed(0))
    _, active, triplets = all_triplets(x, labels, margin=100.0, reduction="sum")
    assert active.item() == triplets.item() == 3000 * 2999 * 3000 > 2**34
    terms = pair_hinge_terms(x, labels, positive_threshold=-1.0, negative_threshold=100.0)
    assert terms.positive_active.sum().item() == 3000 * 2999
    assert terms.negative_active.sum().item() == 6000 * 5999 - 3000 * 2999


def test_the_corner_of_a_hinge_is_inactive(device):
    x = torch.tensor([[0.0], [1.0], [2.0]], device=device)  # d = 1 to the positive, 2 to the other
    labels = torch.tensor([0, 0, 1], device=device)
    groups = torch.tensor([0, 1, 1], device=device)  # so row 1 has no negative
    loss, active, triplets = all_triplets(x, labels, groups=groups, margin=1.0, reduction="sum")
    assert (loss.item(), active.item(), triplets.item()) == (0, 0, 1)
    (moved,) = gradients(
        lambda z: all_triplets(z, labels, groups=groups, margin=1.0, reduction="sum")[0], x
    )
    assert not moved.any()
    options = dict(positive_threshold=1.0, negative_threshold=2.0, groups=groups, reduction="sum")
    assert pair_hinge(x, labels, **options).item() == 0
    assert not gradients(lambda z: pair_hinge(z, labels, **options), x)[0].any()


def test_ties_among_positives_and_negatives(device):
    x = torch.tensor([[0.0], [1.0], [-1.0], [1.0], [2.0], [-2.0], [2.0], [0.0]], device=device)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2], device=device)
    for margin in (0.0, 0.5, 1.0, 2.0):
        made = [
            with_rows(f, labels, {}, margin=margin, reduction="sum")
            for f in (all_triplets, all_triplets_reference)
        ]
        assert_as_accurate(*made, x)
        found = [f(x, labels, margin=margin)[1:] for f in (all_triplets, all_triplets_reference)]
        assert found[0] == found[1]


def direct(x, labels, metric, op):
    """The truth in float64 with distances from differences: near pairs lose nothing."""
    apart = x[:, None] - x
    squares = apart.square().sum(dim=-1)
    d = (
        squares
        if metric == "sqeuclidean"
        else torch.where(squares == 0, 0, torch.where(squares == 0, 1, squares).sqrt())
    )
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(x), dtype=torch.bool)
    if op is all_triplets:
        each = torch.relu(d[:, :, None] - d[:, None, :] + 0.2)
        return torch.where(positive[:, :, None] & ~same[:, None, :], each, 0).sum()
    return torch.where(positive, d, 0).sum() + torch.where(same, 0, torch.relu(0.5 - d)).sum()


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("op", [contrastive, all_triplets])
def test_near_rows_lose_nothing(device, op, metric):
    # clusters far from the origin, some rows 1e-3 and 1e-6 of their norm apart, some equal
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(4, 16, generator=generator)
    steps = torch.tensor([0.0, 1e-6, 1e-3, 1e-2, 1e-1, 0.0]).repeat_interleave(4)[:, None]
    x = centres.repeat(6, 1) + steps * torch.randn(24, 16, generator=generator)
    labels = torch.arange(24) % 3
    words = dict(negative_margin=0.5) if op is contrastive else dict(margin=0.2)
    function = with_rows(op, labels.to(device), {}, metric=metric, reduction="sum", **words)
    value, (moved,) = function(x.to(device)), gradients(function, x.to(device))
    truth = x.double().requires_grad_()
    loss = direct(truth, labels, metric, op)
    (expected,) = torch.autograd.grad(loss, truth)
    assert (value.double().cpu() - loss).abs() <= 1e-6 * loss
    assert (moved.double().cpu() - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("op", OPS)
def test_equal_rows_have_no_gradient_and_no_nan(device, op):
    labels = torch.arange(12, device=device) % 3
    x = torch.ones(12, 5, device=device)
    for metric in METRICS:
        function = with_rows(op, labels, {}, metric=metric)
        assert function(x).isfinite()
        (moved,) = gradients(function, x)  # of cosine, a gradient across the row, to rounding
        assert moved.abs().max() <= (1e-6 if metric == "cosine" else 0)
        assert not gradients(function, torch.zeros_like(x))[0].any()


@pytest.mark.parametrize("op", OPS)
def test_without_positives_or_negatives(device, op):
    (x,), _, _ = draw(7, None, 4, 2, device=device)
    different, alike = torch.arange(7, device=device), torch.zeros(7, device=device).long()
    for labels in (different, alike):
        for reduction in REDUCTIONS:
            function = with_rows(op, labels, {}, reduction=reduction)
            assert function(x).isfinite().all()
            assert gradients(function, x)[0].isfinite().all()
    for labels in (different, alike):
        loss, active, triplets = all_triplets(x, labels)
        assert loss.item() == active.item() == triplets.item() == 0
    assert contrastive(x, alike).item() > 0


@pytest.mark.parametrize(("n", "m"), [(0, None), (1, None), (0, 3), (3, 0)])
@pytest.mark.parametrize("op", OPS)
def test_empty(device, op, n, m):
    rows, labels, words = draw(n, m, 3, 1, device=device)
    words.pop("places", None)
    for reduction in REDUCTIONS:
        function = with_rows(op, labels, words, reduction=reduction)
        assert not function(*rows).any()
        assert not any(moved.any() for moved in gradients(function, *rows))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("op", OPS)
def test_a_nan_row_is_seen(device, op, metric):
    rows, labels, words = draw(20, 30, 4, 2, device=device)
    rows[1][7, 2] = torch.nan
    function = with_rows(op, labels, words, metric=metric, reduction="none", normalise=True)
    torch.testing.assert_close(function(*rows).isnan(), words["places"] != 7)
    assert gradients(function, *rows)[1][7].isnan().all()
    rows[1][7, 2], rows[0][3, 1] = 0, torch.nan
    assert function(*rows).isnan().nonzero().flatten().tolist() == [3]
    assert not all_triplets_terms(rows[0], labels, references=rows[1], **words).active[3]


def test_labels_may_be_any_integers(device):
    (x,), labels, _ = draw(15, None, 4, 3, device=device)
    far = torch.tensor([2**40, -5, 2**33 + 1], device=device)[labels]
    torch.testing.assert_close(all_triplets(x, far), all_triplets(x, labels), rtol=0, atol=0)


def test_a_reference_at_its_place_is_no_partner(device):
    (x,), labels, _ = draw(15, None, 4, 3, device=device, dtype=torch.float64)
    at = torch.arange(15, device=device)
    for op in (hinges(pair_hinge), all_triplets):
        alone = with_rows(op, labels, {})
        among = with_rows(op, labels, dict(reference_labels=labels, places=at))
        torch.testing.assert_close(alone(x), among(x, x))
        both = gradients(among, x, x)
        torch.testing.assert_close(gradients(alone, x)[0], both[0] + both[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, 3:-1],
        lambda x: x[::2],
        lambda x: x.T.contiguous().T,
        lambda x: x[:1].expand(8, -1),
    ],
)
@pytest.mark.parametrize(("op", "reference"), PAIRS)
def test_takes_any_strides(op, reference, change):
    (x,), labels, _ = draw(16, None, 12, 3, dtype=torch.float64)
    rows = change(x)
    made = [with_rows(f, labels[: len(rows)], {}) for f in (op, reference)]
    assert_as_accurate(*made, rows)


@pytest.mark.parametrize("op", OPS)
def test_runs_do_not_show(op):
    (x,), labels, words = draw(300, None, 32, 8)
    function = with_rows(op, labels, words)
    first = (function(x), *gradients(function, x))
    for _ in range(20):
        torch.testing.assert_close((function(x), *gradients(function, x)), first, rtol=0, atol=0)


@pytest.mark.parametrize("op", OPS)
def test_thread_count_does_not_show(op):
    (x,), labels, words = draw(900, None, 16, 40)
    function = with_rows(op, labels, words, reduction="none")
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append((function(x), *gradients(function, x)))
    torch.set_num_threads(before)
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_torch_knows_the_ops():
    (x, y), labels, words = draw(6, 9, 4, 2, groups=True)
    ops, thresholds = torch.ops.ecgfast, torch.rand(2, 6)
    for rows in (x, x.T.contiguous().T, x.half()):
        for columns in (None, y.to(rows.dtype)):
            given = words if columns is not None else {}
            who = all_pairs(rows, labels, references=columns, **given)[2:7]
            calls = [
                (ops.pair_hinge, (rows, columns, thresholds, "euclidean", *who)),
                (
                    ops.pair_hinge_backward,
                    (thresholds, rows, columns, thresholds, False, "cosine", *who),
                ),
                (ops.all_triplets, (rows, columns, 0.1, "euclidean", *who)),
                (ops.all_triplets_backward, (thresholds[0], rows, columns, 0.1, "cosine", *who)),
            ]
            for op, arguments in calls:
                torch.library.opcheck(op.default, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(dynamic):
    def objective(x, y, labels, words):
        beta = (x.sum() * 0 + 1.1).expand(len(x))
        loss = margin_all(x, labels, beta=beta) + contrastive(x, labels, references=y, **words)
        return loss + all_triplets(x, labels, references=y, **words)[0]

    compiled = torch.compile(objective, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n, m in ((8, 12), (9, 17)):
        (x, y), labels, words = draw(n, m, 5, 3)
        leaves = [x.requires_grad_(), y.requires_grad_()]
        values = [f(x, y, labels, words) for f in (objective, compiled)]
        torch.testing.assert_close(*values)
        torch.testing.assert_close(*(torch.autograd.grad(value, leaves) for value in values))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_autocast_leaves_it_alone(op, dtype):
    (x,), labels, words = draw(30, None, 40, 3)
    function = with_rows(op, labels, words, normalise=True)
    outside = (function(x), *gradients(function, x))
    with torch.autocast("cpu", dtype=dtype):
        inside = (function(x), *gradients(function, x))
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)


def peak(function):
    """Most bytes of tensors alive at once, beyond those before it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


@pytest.mark.parametrize("op", OPS)
def test_memory_is_a_strip_and_a_few_rows(op):
    n, d, height = 3000, 16, 256
    (x,), labels, words = draw(n, None, d, 100)
    function = with_rows(op, labels, words)
    most = peak(lambda: gradients(function, x))
    scratch = torch.get_num_threads() * 20 * n  # of all_triplets
    assert most <= 4 * n * height + 4 * 6 * n * d + scratch + 300 * n
    assert most < 4 * n * n / 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(embeddings=torch.zeros(6)), ValueError, r"embeddings must be \(rows, D\)"),
        (dict(labels=torch.zeros(3)), ValueError, r"labels must be \(4,\), got \(3,\)"),
        (dict(labels=torch.zeros(4)), TypeError, "labels must be integers"),
        (dict(metric="l1"), ValueError, "euclidean, sqeuclidean, cosine, got 'l1'"),
        (dict(reduction="max"), ValueError, "mean, mean_active, sum, none, got 'max'"),
        (dict(references=torch.zeros(2, 3)), ValueError, "reference_labels must be given"),
    ],
)
@pytest.mark.parametrize("op", [hinges(pair_hinge), all_triplets, contrastive, margin_all])
def test_refuses(op, change, error, message):
    given = dict(embeddings=torch.zeros(4, 3), labels=torch.zeros(4, dtype=torch.int64)) | change
    with pytest.raises(error, match=message):
        op(given.pop("embeddings"), given.pop("labels"), **given)


def test_refuses_thresholds_of_other_shapes():
    x, labels = torch.zeros(4, 3), torch.arange(4)
    with pytest.raises(ValueError, match=r"positive_threshold must be a number or \(4,\), got \(3"):
        pair_hinge(x, labels, positive_threshold=torch.ones(3), negative_threshold=1.0)
    with pytest.raises(ValueError, match=r"negative_weight must be a number or \(4,\), got \(4, 1"):
        pair_hinge(x, labels, **THRESHOLDS, negative_weight=torch.ones(4, 1))
    with pytest.raises(ValueError, match="margin must be at least 0, got -1"):
        all_triplets(x, labels, margin=-1.0)


def test_border_guards_memory():
    def view(tensor, **lies):
        dtype = {torch.float32: 2, torch.int32: 6, torch.int64: 7}[tensor.dtype]
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        return tuple((facts | dict(dtype=dtype, device=-1) | lies).values())

    ints, longs = torch.zeros(3, dtype=torch.int32), torch.zeros(3, dtype=torch.int64)
    strip = [torch.zeros(3, 5), torch.zeros(3, 2), torch.zeros(5, 2), torch.zeros(3)]
    strip += [torch.zeros(5), ints, torch.zeros(5, dtype=torch.int32), ints]
    strip += [torch.zeros(5, dtype=torch.int32), longs]
    here = (-1, 0, 1)
    two, none = torch.zeros(2, 3), torch.zeros(2, 0)
    scratch = [torch.zeros(1, 18), torch.zeros(1, 16, dtype=torch.int32)]
    counts = torch.zeros(2, 3, dtype=torch.int64)
    x, y = torch.zeros(3, 2), torch.zeros(5, 2)
    calls = [
        (_C.pair_hinge_sums, [two, two, torch.zeros(4, 3, dtype=torch.int64)], (here,)),
        (_C.pair_hinge_coefficients, [two, two, none, none, x], (True, False, here)),
        (_C.pair_hinge_triplet_sums, [torch.zeros(3), counts, *scratch], (0.1, here)),
        (_C.pair_hinge_triplet_coefficients, [torch.zeros(3), x, y, *scratch], (0.1, here)),
    ]
    lies = [dict(device=0), dict(dtype=3), dict(shape=(7,), stride=(1,)), dict(data=0)]
    told = ([view(t) for t in strip], False, 0, 0)
    for call, tensors, rest in calls:
        call(told, *map(view, tensors), *rest)
        for lie in lies:
            for n in range(len(strip)):
                wrong = [view(t, **(lie if k == n else {})) for k, t in enumerate(strip)]
                with pytest.raises(ValueError, match=r"must be|wrong dtype|no memory|kernel"):
                    call((wrong, False, 0, 0), *map(view, tensors), *rest)
            for n in (n for n, t in enumerate(tensors) if t.numel()):
                wrong = [view(t, **(lie if k == n else {})) for k, t in enumerate(tensors)]
                with pytest.raises(ValueError, match=r"must be|wrong dtype|no memory|kernel"):
                    call(told, *wrong, *rest)
        with pytest.raises(ValueError, match="metric must be"):
            call((*told[:3], 3), *map(view, tensors), *rest)


@pytest.mark.parametrize("module", [_all_triplets, _pair_losses])
def test_examples_run(module):
    outcome = doctest.testmod(importlib.import_module(module.__name__))
    assert outcome.failed == 0
    assert outcome.attempted >= 1
