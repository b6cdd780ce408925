"""The losses of info_nce against their references: values, gradients, edges, torch integration.

Long, because it tests five losses.
"""

from __future__ import annotations

import math

import pytest
import torch

from ecgfast import _C
from ecgfast.ops.info_nce import (
    angular,
    angular_reference,
    info_nce,
    info_nce_reference,
    info_nce_terms,
    multi_similarity,
    multi_similarity_reference,
    nt_xent,
    nt_xent_reference,
    nt_xent_terms,
    sup_con,
    sup_con_reference,
)
from ecgfast.testing import assert_as_accurate

ALL_PAIRS = {
    "nt_xent": (nt_xent, nt_xent_reference),
    "sup_con": (sup_con, sup_con_reference),
    "multi_similarity": (multi_similarity, multi_similarity_reference),
}
# (N, labels, D): one of each, odd, one class, none of a class twice, tails of every vector with
# rows of several tiles, positives in every tile
SHAPES = [(1, 1, 1), (7, 3, 5), (9, 1, 4), (33, 10**6, 3), (301, 90, 17), (270, 2, 8)]


def draw(n, classes, d, *, device="cpu", dtype=torch.float32, seed=0):
    """Embeddings (N, D), labels (N,) and groups (N,) of about three rows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=generator) * 2**33 - 5
    groups = torch.randint(n // 3 + 1, (n,), generator=generator)
    return x.to(device=device, dtype=dtype), labels.to(device), groups.to(device)


def words_of(kind, labels, groups, references):
    """Arguments of the op by what stands against the anchors, whose rows are among references."""
    grouped = dict(groups=groups) if "groups" in kind else {}
    if "references" not in kind:
        return grouped
    count = len(labels)
    turned = torch.arange(len(references), device=labels.device).roll(3)  # anchors lie anywhere
    ids = labels.repeat(2)[: len(references)]
    at = turned.argsort()[:count].clone()
    at[1::4] = -1
    words = dict(references=references, reference_labels=ids[turned], places=at)
    if grouped:
        words |= dict(reference_groups=groups.repeat(2)[: len(references)][turned])
    return words | grouped


KINDS = ["", "groups", "references", "references, groups"]


def both_of(name, labels, groups, kind, **words):
    """Op and reference as functions of embeddings, and of references if there are any."""

    def bound(function):
        def of(x, *references):
            given = words_of(kind, labels, groups, *references or (None,))
            return function(x, labels, **given, **words).to(x.dtype)

        return of

    return [bound(function) for function in ALL_PAIRS[name]]


def more(x):
    """References: the rows, and some of them again, a little off."""
    return torch.cat([x, 0.9 * x[: len(x) // 2] + 0.1])


def mild(name, dtype):
    """Logits of a few units: the reference in float64 is the truth, whose own error is theirs."""
    if dtype != torch.float64:
        return {}
    return dict(alpha=1.0, beta=2.0) if name == "multi_similarity" else dict(temperature=1.0)


def gradient(function, *leaves):
    leaves = [x.detach().requires_grad_() for x in leaves]
    return torch.autograd.grad(function(*leaves).sum(), leaves)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALL_PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches_reference(dtype, name, kind, shape):
    x, labels, groups = draw(*shape, dtype=dtype)
    inputs = (x, more(x)) if "references" in kind else (x,)
    words = mild(name, dtype)
    plain = mild(name, torch.float64) | dict(normalise=False)
    for reduction in ("none", "sum", "mean") if len(x) < 10 else ("none",):
        functions = both_of(name, labels, groups, kind, reduction=reduction, **words)
        assert_as_accurate(*functions, *inputs)
    assert_as_accurate(*both_of(name, labels, groups, kind, **plain), *inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALL_PAIRS)
def test_matches_reference_on_every_device(device, name, kind):
    for shape in ((7, 3, 5), (45, 6, 9)):
        x, labels, groups = draw(*shape, device=device)
        inputs = (x, more(x)) if "references" in kind else (x,)
        assert_as_accurate(*both_of(name, labels, groups, kind), *inputs)


def test_a_row_longer_than_a_block(device):
    x, labels, groups = draw(2, 2, 3, device=device, dtype=torch.float64)
    columns, ids, theirs = draw(1100, 40, 3, device=device, dtype=torch.float64, seed=1)
    ids[:50] = labels[0]
    for name, functions in ALL_PAIRS.items():
        words = dict(reference_labels=ids, groups=groups, reference_groups=theirs)
        words |= mild(name, torch.float64)
        assert_as_accurate(
            *(lambda a, b, f=f, w=words: f(a, labels, references=b, **w) for f in functions),
            x,
            columns,
        )


@pytest.mark.parametrize("name", ALL_PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype, name):
    x, labels, groups = draw(40, 9, 16, device=device, dtype=dtype)
    assert_as_accurate(*both_of(name, labels, groups, ""), x)
    assert ALL_PAIRS[name][0](x, labels).dtype == torch.float32


@pytest.mark.parametrize("name", ALL_PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_instruction_set_matches_reference(isa, dtype, name):
    for shape in SHAPES:
        x, labels, groups = draw(*shape, dtype=dtype)
        assert_as_accurate(*both_of(name, labels, groups, "groups", **mild(name, dtype)), x)


QUERIES = ["", "labels", "groups", "labels, groups", "one way"]


def two_sided(function, kind, labels, groups, key_labels, key_groups):
    words = {}
    if "labels" in kind:
        words |= dict(labels=labels, key_labels=key_labels)
    if "groups" in kind:
        words |= dict(groups=groups, key_groups=key_groups)

    def of(q, k, scale):
        return function(q, k, logit_scale=scale, symmetric=kind != "one way", **words)

    return of


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_info_nce_matches_reference(device, dtype, kind):
    for n, classes, d in ((1, 1, 2), (12, 5, 7), (45, 20, 9)):
        q, labels, groups = draw(n, classes, d, device=device, dtype=dtype)
        m = n + 3 if kind == "labels" else n
        k, key_labels, key_groups = draw(m, classes, d, device=device, dtype=dtype, seed=1)
        ids = (labels, groups, key_labels, key_groups)
        scale = torch.tensor(9.0, device=device, dtype=dtype)
        functions = [two_sided(f, kind, *ids) for f in (info_nce, info_nce_reference)]
        assert_as_accurate(*functions, q, k, scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_info_nce_of_many(isa, dtype):
    q, labels, groups = draw(301, 60, 16, dtype=dtype)
    k, *_ = draw(301, 60, 16, dtype=dtype, seed=1)
    scale = torch.tensor(20.0, dtype=dtype)
    for kind in QUERIES:
        ids = (labels, groups, labels, groups)
        functions = [two_sided(f, kind, *ids) for f in (info_nce, info_nce_reference)]
        assert_as_accurate(*functions, q, k, scale)


def test_info_nce_is_half_of_each_direction():
    q, labels, _ = draw(9, 4, 6, dtype=torch.float64)
    k, key_labels, _ = draw(7, 4, 6, dtype=torch.float64, seed=1)
    words = dict(labels=labels, key_labels=key_labels)
    turned = dict(labels=key_labels, key_labels=labels)
    a = info_nce(q, k, symmetric=False, **words)
    b = info_nce(k, q, symmetric=False, **turned)
    torch.testing.assert_close(info_nce(q, k, **words), (a + b) / 2)
    sums, counts = info_nce_terms(q, k, **words)
    torch.testing.assert_close(a, sums.sum() / counts.sum())
    square = info_nce(q[:7], k, reduction="none")
    torch.testing.assert_close(square.mean(), info_nce(q[:7], k))


def pairs_of(n, k, device):
    generator = torch.Generator().manual_seed(2)
    anchors, positives = torch.randint(n, (2, k), generator=generator).to(device)
    return anchors, positives, torch.arange(k, device=device) % 3 != 1


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_angular_matches_reference(device, dtype, reduction):
    for n, classes, d, k in ((1, 1, 2, 1), (7, 3, 5, 20), (45, 6, 9, 30), (5, 1, 3, 4)):
        x, labels, groups = draw(n, classes, d, device=device, dtype=dtype)
        anchors, positives, valid = pairs_of(n, k, device)
        for words in ({}, dict(valid=valid), dict(groups=groups), dict(alpha=20.0)):
            words |= dict(reduction=reduction)
            listed = (anchors, positives, labels)
            functions = [
                lambda z, f=f, r=listed, w=words: f(z, *r, **w)
                for f in (angular, angular_reference)
            ]
            assert_as_accurate(*functions, x)
    unnormalised = [
        lambda z, f=f: f(z, anchors, positives, labels, normalise=False)
        for f in (angular, angular_reference)
    ]
    assert_as_accurate(*unnormalised, x)


def test_gradcheck(device):
    x, labels, groups = draw(6, 3, 4, device=device, dtype=torch.float64)
    references = more(x)
    for op, _ in ALL_PAIRS.values():
        assert torch.autograd.gradcheck(
            lambda a, f=op: f(a, labels, groups=groups, reduction="none"), x.requires_grad_()
        )
        words = words_of("references", labels, groups, references)
        del words["references"]
        assert torch.autograd.gradcheck(
            lambda a, b, f=op, w=words: f(a, labels, references=b, **w),
            (x, references.detach().requires_grad_()),
        )
    keys = draw(6, 3, 4, device=device, dtype=torch.float64, seed=1)[0].requires_grad_()
    scale = torch.tensor(3.0, device=device, dtype=torch.float64, requires_grad=True)
    for words in (dict(), dict(labels=labels), dict(symmetric=False, normalise=False)):
        assert torch.autograd.gradcheck(
            lambda q, k, s, w=words: info_nce(q, k, logit_scale=s, reduction="none", **w),
            (x, keys, scale),
        )
    rows = pairs_of(6, 8, device)
    assert torch.autograd.gradcheck(
        lambda a: angular(a, *rows[:2], labels, valid=rows[2], reduction="none"), x
    )


def test_refuses_a_second_derivative(device):
    x, labels, _ = draw(5, 2, 3, device=device)
    x.requires_grad_()
    for op, _ in ALL_PAIRS.values():
        (first,) = torch.autograd.grad(op(x, labels).square(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.01])
def test_collapsed_embeddings_give_log_of_all_others(device, temperature):
    for n in (2, 5, 24):
        labels = torch.arange(n, device=device).repeat(2)
        x = torch.tensor([[3.0, -1.0, 0.5]], device=device).expand(2 * n, -1)
        expected = pytest.approx(math.log(2 * n - 1), abs=2e-7 * (1 + 1 / temperature))
        assert nt_xent(x, labels, temperature=temperature).item() == expected
        assert sup_con(x, labels, temperature=temperature).item() == expected
        exact = nt_xent(x.double(), labels, temperature=temperature).item()
        assert exact == pytest.approx(math.log(2 * n - 1), rel=1e-13)
        half = info_nce(x[:n], x[n:], logit_scale=1 / temperature).item()
        assert half == pytest.approx(math.log(n), abs=2e-7 * (1 + 1 / temperature))


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.01])
def test_any_temperature(isa, temperature):
    x, labels, groups = draw(120, 30, 4)
    for name in ("nt_xent", "sup_con"):
        assert_as_accurate(*both_of(name, labels, groups, "", temperature=temperature), x)
        wild = dict(temperature=temperature, normalise=False)  # logits of thousands
        assert_as_accurate(*both_of(name, labels, groups, "", **wild), 3 * x)


def test_small_losses_keep_their_digits():
    x = torch.eye(4).repeat_interleave(2, dim=0)  # far from all negatives, on their positives
    labels = torch.arange(4).repeat_interleave(2)
    loss = nt_xent(x, labels, temperature=0.05)
    assert loss.item() == pytest.approx(6 * math.exp(-20), rel=1e-5)


def values(a, dtype):
    """A exactly as a similarity, by the op that is nothing but a log-sum-exp of one pair."""
    ids = torch.zeros(len(a), dtype=torch.int32)
    other, nowhere = torch.ones(1, dtype=torch.int32), torch.full((len(a),), -1)
    return dict(
        rows=a[:, None], columns=torch.ones(1, 1, dtype=dtype), scale=torch.ones((), dtype=dtype),
        row_labels=ids, column_labels=other, row_groups=None, column_groups=None, places=nowhere,
        kind="negatives", numbers=None,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exp_is_good_to_its_last_places(isa, dtype):
    # The gradient coefficient of a negative is exp2(s / log 2 - first): with first = 0, and a scale
    # of log 2 whose product with 1 / log 2 is rounded to 1, it is exp2(s).
    least = -125.9 if dtype == torch.float32 else -1021.9
    x = torch.linspace(least, -least, 40001, dtype=torch.float64).to(dtype)
    words = values(x, dtype) | dict(scale=torch.tensor(math.log(2), dtype=dtype))
    assert torch.tensor(1.4426950408889634074 * float(words["scale"])).to(dtype) == 1
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    dx, *_ = torch.ops.ecgfast.info_nce_backward(
        one, zero, zero, None, None, None, x.new_empty(0, 0), **words
    )
    found = dx[:, 0].double() / words["scale"].double()  # that product rounds once more
    exact = (x.double() * math.log(2)).exp() if dtype == torch.float32 else x.exp2()
    units = ((found - exact) / exact).abs().max() / torch.finfo(dtype).eps
    assert units <= 2.5


def test_exp_at_its_ends(isa):
    for dtype in (torch.float32, torch.float64):
        ends = [-math.inf, -1e30, 0.0, 1e30, math.inf, math.nan]
        x = torch.tensor(ends, dtype=dtype)
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        dx, *_ = torch.ops.ecgfast.info_nce_backward(
            one, zero, zero, None, None, None, x.new_empty(0, 0), **values(x, dtype)
        )
        expected = torch.tensor([0, 0, 1, math.inf, math.inf, math.nan], dtype=dtype)
        torch.testing.assert_close(dx[:, 0], expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_softplus_is_good_to_its_last_places(isa, dtype):
    # One positive and one negative: the loss is softplus(z_n - z_p), down to where it is tiny.
    apart = torch.linspace(-80, 80, 4001, dtype=torch.float64).to(dtype)
    rows = torch.stack([apart, torch.zeros_like(apart)], dim=1)
    columns = torch.tensor([[1, 0], [0, 1]], dtype=dtype)
    labels = torch.ones(len(rows), dtype=torch.int64)
    words = dict(references=columns, reference_labels=torch.tensor([0, 1]), temperature=1.0)
    loss = nt_xent(rows, labels, **words, normalise=False, reduction="none")
    exact = torch.logaddexp(apart.double(), torch.zeros(()))
    if dtype == torch.float64:
        exact = torch.where(apart < 0, apart.exp().log1p(), apart + (-apart).exp().log1p())
    # z passes through units of log 2 and back: an ulp of 80 in the exponent
    allowed = (8 + 3 * apart.abs().double()) * torch.finfo(dtype).eps
    assert (((loss.double() - exact) / exact).abs() <= allowed).all()


def test_without_negatives_nt_xent_is_zero_and_without_positives_all_but_one_are(device):
    x, *_ = draw(5, 1, 3, device=device)
    one, all_of = torch.zeros(5, dtype=torch.int64), torch.arange(5)
    for labels, names in ((one, ["nt_xent"]), (all_of, ["nt_xent", "sup_con"])):
        for name in names:
            op = ALL_PAIRS[name][0]
            at = labels.to(device)
            assert op(x, at).item() == 0
            assert not op(x, at, reduction="none").any()
            assert not gradient(lambda z, f=op, ids=at: f(z, ids), x)[0].any()
    anchors = torch.arange(5, device=device)
    assert angular(x, anchors, anchors.roll(1), one.to(device)).item() == 0
    assert not gradient(lambda z: angular(z, anchors, anchors, one.to(device)), x)[0].any()


def test_a_zero_row_has_a_zero_gradient(device):
    x, labels, _ = draw(8, 3, 4, device=device)
    x[2] = 0
    for name in ALL_PAIRS:
        assert_as_accurate(*both_of(name, labels, None, ""), x)
        moved = gradient(lambda z, f=ALL_PAIRS[name][0]: f(z, labels), x)[0]
        assert moved.isfinite().all()
        assert not moved[2].any()


def test_a_row_too_long_for_its_norm_is_not_silent(device):
    x, labels, _ = draw(6, 2, 3, device=device)
    x[1] = 1e30
    assert nt_xent(x, labels).isnan()


def test_a_nan_shows_where_it_is_used_and_nowhere_else(device):
    x, labels, _ = draw(6, 3, 4, device=device)
    labels[:] = torch.tensor([0, 0, 1, 1, 2, 2])
    x[4, 1] = math.nan
    groups = torch.tensor([0, 1, 2, 3, 0, 4], device=device)  # row 0 does not see row 4
    for name in ALL_PAIRS:
        op, reference = ALL_PAIRS[name]
        found = op(x, labels, groups=groups, reduction="none")
        assert found.isnan().tolist() == [False, True, True, True, True, True]
        expected = reference(x, labels, groups=groups, reduction="none")
        torch.testing.assert_close(found, expected, equal_nan=True)
        assert op(x, labels, groups=groups).isnan()
        moved = gradient(lambda z, f=op: f(z, labels, groups=groups), x)[0]
        assert moved.isnan().any()


def test_duplicates_and_big_labels(device):
    x, labels, groups = draw(6, 2, 3, device=device, dtype=torch.float64)
    x = x.repeat(3, 1)
    labels = labels.repeat(3)
    groups = groups.repeat(3)
    for name in ALL_PAIRS:
        assert_as_accurate(*both_of(name, labels, groups, "groups"), x)
        small = labels.unique(return_inverse=True)[1]
        op = ALL_PAIRS[name][0]
        torch.testing.assert_close(op(x, labels), op(x, small), rtol=0, atol=0)


def test_anchors_do_not_mix(device):
    x, labels, _ = draw(23, 6, 7, device=device)
    for op, _ in ALL_PAIRS.values():
        together = op(x, labels, reduction="none")
        places = torch.arange(23, device=device)
        for i in (0, 11, 22):
            words = dict(references=x, reference_labels=labels, places=places[i : i + 1])
            alone = op(x[i : i + 1], labels[i : i + 1], reduction="none", **words)
            torch.testing.assert_close(alone, together[i : i + 1], rtol=3e-6, atol=3e-6)


NUMBERS = torch.tensor([2.0, 30.0, 0.4], dtype=torch.float64)  # of multi_similarity


def raw(x, labels, *, kind, columns=None, column_labels=None, groups=None, height=None, keep=False):
    """Forward and backward of the private op: sums, counts, gradients."""
    numbers = labels.unique(return_inverse=True)[1].int()
    places = torch.arange(len(x), device=x.device)
    if columns is not None:
        places = torch.full_like(places, -1)
    scale = torch.tensor(5.0, dtype=x.dtype, device=x.device)
    tail = (kind, NUMBERS.to(x.device), height)
    args = (x, columns, scale, numbers, column_labels, groups, groups, places, *tail)
    sums, counts, first, second, kept = torch.ops.ecgfast.info_nce(*args, keep=keep)
    grad = torch.linspace(-1, 2, len(x), dtype=x.dtype, device=x.device)
    one_side = (grad, first, second, None, None, None, kept)
    backward = torch.ops.ecgfast.info_nce_backward(*one_side, *args)
    again = torch.ops.ecgfast.info_nce_backward(*one_side, *args)
    assert all(map(torch.equal, backward, again))
    return sums, counts, *backward


@pytest.mark.parametrize("kind", ALL_PAIRS)
def test_products_that_were_kept_are_those_made_again(device, kind):
    x, labels, groups = draw(37, 11, 5, device=device)
    y, numbers = x[5:30].clone(), labels.unique(return_inverse=True)[1].int()[5:30]
    for words in ({"groups": groups.int()}, {"columns": y, "column_labels": numbers}):
        again = raw(x, labels, kind=kind, height=len(x), **words)
        kept = raw(x, labels, kind=kind, keep=True, **words)
        assert all(map(torch.equal, kept, again))


def test_many_products_are_not_kept():
    x = torch.randn(2049, 1)
    numbers = torch.arange(len(x))
    words = (torch.tensor(1.0), numbers.int(), None, None, None, numbers, "sup_con", None)
    assert torch.ops.ecgfast.info_nce(
        x[:2048],
        None,
        *(w[:2048] if isinstance(w, torch.Tensor) and w.dim() else w for w in words),
        keep=True,
    )[4].shape == (2048, 2048)
    assert torch.ops.ecgfast.info_nce(x, None, *words, keep=True)[4].shape == (0, 0)


@pytest.mark.parametrize("kind", ALL_PAIRS)
def test_height_of_the_strips_does_not_show(device, kind):
    x, labels, _ = draw(37, 9, 5, device=device, dtype=torch.float64)
    whole = raw(x, labels, kind=kind)
    for height in (1, 5, 36, 64):
        torch.testing.assert_close(raw(x, labels, kind=kind, height=height), whole)


def test_thread_count_does_not_show():
    x, labels, _ = draw(700, 90, 8)  # an inner size that no GEMM splits among threads
    before = torch.get_num_threads()
    results = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        results.append([raw(x, labels, kind=kind) for kind in ALL_PAIRS])
    torch.set_num_threads(before)
    for one, five in zip(*results, strict=True):
        torch.testing.assert_close(one[:2], five[:2], rtol=0, atol=0)
        torch.testing.assert_close(one[2:], five[2:], rtol=1e-5, atol=1e-5)  # torch's product


def test_runs_do_not_show(device):
    x, labels, groups = draw(90, 20, 12, device=device)
    anchors, positives, _ = pairs_of(90, 100, device)

    def all_of():
        out = []
        for op, _ in ALL_PAIRS.values():
            out += [op(x, labels), *gradient(lambda z, f=op: f(z, labels, groups=groups), x)]
        out += [*gradient(lambda q, k: info_nce(q, k), x, x.flip(0))]
        return [*out, *gradient(lambda z: angular(z, anchors, positives, labels), x)]

    first = all_of()
    for _ in range(5 if torch.cuda.is_available() else 3):
        torch.testing.assert_close(all_of(), first, rtol=0, atol=0)


def test_twenty_runs_give_the_same_bits():
    x, labels, _ = draw(600, 200, 32)

    def step():
        return [nt_xent(x, labels), *gradient(lambda z: nt_xent(z, labels), x)]

    first = step()
    for _ in range(19):
        torch.testing.assert_close(step(), first, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, 3:-1],  # a crop
        lambda x: x[::2],  # some rows
        lambda x: x[:, ::2],  # some columns
        lambda x: x.T.contiguous().T,  # columns first
        lambda x: x[:1].expand(8, -1),  # one row, many times
    ],
)
@pytest.mark.parametrize("normalise", [True, False])
def test_takes_any_strides(device, change, normalise):
    x, labels, groups = draw(16, 3, 11, device=device, dtype=torch.float64)
    x = change(x)
    ids = labels.repeat_interleave(2)[::2][: len(x)]
    for name in ALL_PAIRS:
        words = dict(normalise=normalise) | mild(name, torch.float64)
        functions = both_of(name, ids, groups[: len(x)], "groups", **words)
        torch.testing.assert_close(*(f(x) for f in functions))
        torch.testing.assert_close(*(gradient(f, x) for f in functions))


def test_empty(device):
    for n in (0, 1):
        x = torch.ones(n, 4, device=device)
        labels = torch.zeros(n, dtype=torch.int64, device=device)
        for op, _ in ALL_PAIRS.values():
            assert op(x, labels).item() == 0
            assert op(x, labels, reduction="none").shape == (n,)
            assert not gradient(lambda z, f=op, ids=labels: f(z, ids), x)[0].any()
        assert info_nce(x, x).item() == 0
        nobody = labels[:0]
        assert angular(x, nobody, nobody, labels).item() == 0
        assert not gradient(lambda z, i=nobody, ids=labels: angular(z, i, i, ids), x)[0].any()
    x, labels, _ = draw(3, 2, 4, device=device)
    for op, _ in ALL_PAIRS.values():
        nothing = dict(references=x[:0], reference_labels=labels[:0])
        assert not op(x, labels, **nothing, reduction="none").any()
        assert not gradient(lambda z, f=op, w=nothing: f(z, labels, **w), x)[0].any()


def test_terms_are_what_the_loss_reduces(device):
    x, labels, _ = draw(12, 4, 5, device=device)
    sums, counts = nt_xent_terms(x, labels)
    same = (labels[:, None] == labels).sum(dim=1) - 1
    torch.testing.assert_close(counts, same)
    torch.testing.assert_close(nt_xent(x, labels), sums.sum() / counts.sum())


def test_torch_knows_the_op(device):
    x, labels, groups = draw(6, 3, 5, device=device)
    op, backward = torch.ops.ecgfast.info_nce, torch.ops.ecgfast.info_nce_backward
    numbers = labels.unique(return_inverse=True)[1].int()
    scale, places = torch.tensor(5.0, device=device), torch.arange(6, device=device)
    for rows in (x, x.T.contiguous().T, x.half()):
        for kind in (*ALL_PAIRS, "negatives"):
            tail = (kind, NUMBERS.to(device))
            alone = (rows, None, scale, numbers, None, groups.int(), None, places, *tail)
            torch.library.opcheck(op.default, alone)
            sums, _, first, second, kept = op(*alone, keep=True)
            torch.library.opcheck(op.default, alone, {"keep": True})
            one_side = (sums, first, second, None, None, None, kept)
            torch.library.opcheck(backward.default, (*one_side, *alone))
    two = (x, x[:4], scale, numbers, numbers[:4], None, None, places, "sup_con", None)
    sums, _, first, second, kept = op(*two)
    theirs = (sums[:4].clone(), first[:4].clone(), second[:4].clone())
    torch.library.opcheck(backward.default, (sums, first, second, *theirs, kept, *two))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def objective(x, y, labels, anchors, valid):
        loss = nt_xent(x, labels) + sup_con(x, labels, references=y, reference_labels=labels)
        loss = loss + multi_similarity(x, labels).square() + info_nce(x * 2, y)
        return loss + angular(x, anchors, anchors.roll(1), labels, valid=valid)

    compiled = torch.compile(objective, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (8, 9):
        x, labels, _ = draw(n, 3, 5, device=device)
        y = draw(n, 3, 5, device=device, seed=1)[0]
        rows = (labels, *pairs_of(n, 7, device)[1:])
        x.requires_grad_()
        losses = [f(x, y, *rows) for f in (objective, compiled)]
        torch.testing.assert_close(*losses)
        gradients = [torch.autograd.grad(loss, x)[0] for loss in losses]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    x, labels, _ = draw(9, 3, 20, device=device)
    rows = pairs_of(9, 7, device)[:2]
    losses = [lambda z, f=op: f(z, labels) for op, _ in ALL_PAIRS.values()]
    losses += [lambda z: info_nce(z, z.flip(0)), lambda z: angular(z, *rows, labels)]
    for loss in losses:
        outside = [loss(x), *gradient(loss, x)]
        with torch.autocast(device.type, dtype=dtype):
            inside = [loss(x), *gradient(loss, x)]
        torch.testing.assert_close(inside, outside, rtol=0, atol=0)


X, IDS = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nt_xent(X[0], IDS), ValueError, r"embeddings must be \(rows, D\)"),
        (lambda: nt_xent(X.long(), IDS), TypeError, "float32 or float64, got torch.int64"),
        (lambda: nt_xent(X, IDS[:3]), ValueError, r"labels must be \(4,\), got \(3,\)"),
        (lambda: nt_xent(X, IDS, temperature=0), ValueError, "temperature must be over 0"),
        (lambda: sup_con(X, IDS, temperature=math.nan), ValueError, "over 0 and finite, got nan"),
        (lambda: nt_xent(X, IDS, reduction="max"), ValueError, "'mean', 'sum' or 'none'"),
        (lambda: sup_con(X, IDS, reduction="max"), ValueError, "'mean', 'sum' or 'none'"),
        (lambda: multi_similarity(X, IDS, alpha=0), ValueError, "alpha must be over 0"),
        (lambda: multi_similarity(X, IDS, beta=math.inf), ValueError, "beta must be over 0"),
        (lambda: multi_similarity(X, IDS, base=math.nan), ValueError, "base must be finite"),
        (lambda: info_nce(X, X[:3]), ValueError, "4 queries and 3 keys: say by labels"),
        (lambda: info_nce(X, X[:, :2]), ValueError, "queries have 3 columns, keys 2"),
        (lambda: info_nce(X, X.double()), ValueError, "keys must be torch.float32"),
        (lambda: info_nce(X[0], X), ValueError, r"queries must be \(rows, D\)"),
        (lambda: info_nce(X, X, key_labels=IDS), ValueError, "key_labels are given, but no labels"),
        (lambda: info_nce(X, X, key_groups=IDS), ValueError, "key_groups are given, but no groups"),
        (lambda: info_nce(X, X, logit_scale=math.inf), ValueError, "logit_scale must be finite"),
        (lambda: info_nce(X, X, logit_scale=torch.ones(1)), ValueError, "logit_scale must be a"),
        (
            lambda: info_nce(X, X[:3], labels=IDS, key_labels=IDS[:3], reduction="none"),
            ValueError,
            "take symmetric=False",
        ),
        (lambda: angular(X, IDS, IDS, IDS, alpha=90), ValueError, "between 0 and 90 degrees"),
        (lambda: angular(X, IDS[None], IDS, IDS), ValueError, r"anchors must be \(K,\)"),
        (lambda: angular(X, IDS, IDS[:2], IDS), ValueError, r"positives must be \(4,\)"),
        (lambda: angular(X, IDS, IDS.int(), IDS), TypeError, "positives must be torch.int64"),
        (lambda: angular(X, IDS, IDS, IDS, valid=IDS), TypeError, "valid must be torch.bool"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_index_outside_is_refused_or_gives_nan(device):
    x, labels, _ = draw(5, 2, 3, device=device)
    anchors, positives, _ = pairs_of(5, 6, device)
    anchors[4], positives[2] = 2**40, -1
    if device.type == "cuda":  # where nobody waits for the answer
        found = angular(x, anchors, positives, labels, reduction="none")
        assert found.isnan().tolist() == [False, False, True, False, True, False]
        return
    with pytest.raises(IndexError, match=r"positives\[2\] must be in \[0, 5\), got -1; 2 of 6"):
        angular(x, anchors, positives, labels)
    valid = torch.tensor([True, True, False, True, False, True], device=device)
    kept = angular(x, anchors[valid], positives[valid], labels)
    torch.testing.assert_close(angular(x, anchors, positives, labels, valid=valid), kept)


def test_what_is_not_valid_is_not_looked_at(device):
    x, labels, _ = draw(5, 5, 3, device=device)
    anchors = torch.tensor([-1, 99, 2**40], device=device)
    nothing = torch.zeros(3, dtype=torch.bool, device=device)
    loss = lambda z: angular(z, anchors, anchors, labels, valid=nothing)  # noqa: E731
    assert loss(x).item() == 0
    assert not gradient(loss, x)[0].any()
    assert loss(x * math.nan).item() == 0


def test_border_guards_memory():
    def view(tensor, **lies):
        codes = {torch.float32: 2, torch.float64: 3, torch.int32: 6, torch.int64: 7}
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype=codes[tensor.dtype], device=-1) | lies
        return tuple(facts.values())

    rows, columns = torch.zeros(3, dtype=torch.int32), torch.zeros(5, dtype=torch.int32)
    strip = dict(products=torch.ones(3, 5), scale=torch.tensor(1.0), places=torch.zeros(3).long())
    strip |= dict(row_labels=rows, column_labels=columns, row_groups=rows, column_groups=columns)
    strip |= dict(numbers=NUMBERS)
    numbers = dict(loss=torch.empty(3), counts=torch.empty(3).long())
    numbers |= dict(first=torch.empty(3), second=torch.empty(3))
    anchors = dict(weight=torch.ones(3), first=torch.ones(3), second=torch.ones(3))
    others = {f"column_{name}": torch.ones(5) for name in anchors}
    dots = dict(dots=torch.empty(3).double())
    place = (-1, 0, 1)

    def forward(views, kind=2):
        ids, (of, *rest) = views[:7], views[7:]
        _C.info_nce_forward(*ids, kind, of, *rest, place)

    def backward(views, kind=2):
        ids, (of, *rest) = views[:7], views[7:]
        _C.info_nce_backward(*ids, kind, of, tuple(rest[:3]), tuple(rest[3:6]), rest[6], place)

    everywhere = [dict(device=0), dict(dtype=4), dict(shape=(9,), stride=(1,)), dict(data=0)]
    for call, tensors in (
        (forward, strip | numbers),
        (backward, strip | anchors | others | dots),
    ):
        call([*map(view, tensors.values())])
        told = [(name, lie) for name in tensors for lie in everywhere]
        told += [("products", dict(stride=(1, 3))), ("places", dict(stride=(2,)))]
        told += [("row_labels", dict(stride=(2,))), ("first", dict(stride=(2,)))]
        for name, lie in told:
            views = [view(t, **(lie if n == name else {})) for n, t in tensors.items()]
            with pytest.raises(ValueError, match=r"must be|wrong dtype|no memory|without a kernel"):
                call(views)
        for kind in (-1, 4):
            with pytest.raises(ValueError, match="kind must be"):
                call([*map(view, tensors.values())], kind)


def most_alive(function):
    """Bytes of tensors alive at once on the CPU, beyond those before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_memory_grows_with_a_strip_and_not_with_all_pairs(name):
    n, d = 3000, 16
    x, labels, _ = draw(n, 1000, d)
    x.requires_grad_()
    peak = most_alive(lambda: torch.autograd.grad(ALL_PAIRS[name][0](x, labels), x))
    # a strip of 256 rows, a few copies of the embeddings, numbers of each row
    assert peak <= 4 * (256 * n + 8 * n * d + 40 * n)
    assert peak < 4 * n * n / 8
