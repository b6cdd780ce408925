"""batch_hard, label_distance and nearest_farthest against their references; edges; torch."""

from __future__ import annotations

import itertools

import pytest
import torch

from ecgfast import _C
from ecgfast.ops.mine_extreme import (
    batch_hard,
    batch_hard_reference,
    label_distance,
    label_distance_reference,
    nearest_farthest,
    nearest_farthest_reference,
)

# (N, D, classes): one record, a pair, odd, larger; references are more than threads of a block and
# than a stretch of columns
SHAPES = [(1, 1, 1), (2, 3, 1), (7, 5, 3), (40, 33, 12)]
MORE = 270
RULES = list(itertools.product(("hardest", "easiest"), ("hardest", "easiest", "semihard")))


def draw(n, d, classes, *, device="cpu", dtype=torch.float32, seed=0):
    """Embeddings (N, D) and labels (N,) beyond 2^31, some of them negative."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, d, generator=generator, dtype=torch.float64)
    labels = (torch.randint(classes, (n,), generator=generator) - 1) * 2**40
    return embeddings.to(device=device, dtype=dtype), labels.to(device)


def sets(n, d, classes, *, device, dtype=torch.float32):
    """Anchors and labels, and words of references that hold every third anchor."""
    embeddings, labels = draw(n, d, classes, device=device, dtype=dtype)
    references, reference_labels = draw(n + MORE, d, classes, device=device, dtype=dtype, seed=1)
    places = torch.full((n,), -1, device=device)
    places[::3] = torch.arange(n, device=device)[::3].flip(0)
    held = places >= 0
    references[places[held]] = embeddings[held]
    reference_labels[places[held]] = labels[held]
    words = dict(references=references, reference_labels=reference_labels, places=places)
    return embeddings, labels, words


def assert_same(found, expected):
    for name, a, b in zip(expected._fields, found, expected, strict=True):
        assert torch.equal(a, b), f"{name} differ at {(a != b).nonzero().flatten().tolist()[:9]}"


def assert_matches(embeddings, labels, **words):
    """Same indices, or such as the rounding of direct distances cannot tell apart."""
    found = batch_hard(embeddings, labels, **words)
    expected = batch_hard_reference(embeddings, labels, **words)
    assert torch.equal(found.valid, expected.valid)
    anchors = embeddings.double()
    references = words.get("references", embeddings).double()
    if words.get("normalise") or words.get("metric") == "cosine":
        anchors, references = (torch.nn.functional.normalize(x) for x in (anchors, references))
    rounding = 2 * (embeddings.shape[1] + 4) * torch.finfo(embeddings.dtype).eps
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert torch.equal(a[~found.valid], b[~found.valid])
        other = (a != b).nonzero().flatten()

        def reached(indices, other=other):
            return (anchors[other] - references[indices[other]]).square().sum(dim=1)

        alike = (reached(a) - reached(b)).abs() <= rounding * reached(a)
        if words.get("negative") == "semihard":  # is it beyond the positive?
            nearer = torch.minimum(reached(a), reached(b))
            alike |= (nearer - reached(found.positives)).abs() <= rounding * nearer
        assert alike.all(), f"anchors {other[~alike].tolist()[:9]}"
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rule", RULES, ids="-".join)
def test_matches_reference(device, dtype, shape, rule):
    words = dict(positive=rule[0], negative=rule[1])
    embeddings, labels = draw(*shape, device=device, dtype=dtype)
    assert_matches(embeddings, labels, **words)
    groups = torch.arange(shape[0], device=device) % 4
    assert_matches(embeddings, labels, groups=groups, metric="cosine", **words)
    embeddings, labels, others = sets(*shape, device=device, dtype=dtype)
    others |= dict(groups=groups, reference_groups=torch.arange(shape[0] + MORE, device=device) % 4)
    assert_matches(embeddings, labels, normalise=True, **others, **words)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matches_reference_in_half(device, dtype):
    embeddings, labels = draw(40, 64, 9, device=device, dtype=dtype)
    for (positive, negative), metric in zip(RULES, 3 * ("euclidean", "cosine"), strict=True):
        words = dict(positive=positive, negative=negative, metric=metric)
        assert_same(
            batch_hard(embeddings, labels, **words),
            batch_hard_reference(embeddings.float(), labels, **words),
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_instruction_set_matches_reference(isa, dtype, shape):
    embeddings, labels, others = sets(*shape, device="cpu", dtype=dtype)
    groups = torch.arange(shape[0]) % 4
    for positive, negative in RULES:
        words = dict(positive=positive, negative=negative)
        assert_matches(embeddings, labels, groups=groups, **words)
        assert_matches(embeddings, labels, **others, **words)
    assert_labels_match(embeddings[:, 0], groups=groups, groups_apart=True)
    assert_rows_match(embeddings @ others["references"].T, k_far=3)


def test_more_rows_than_a_strip(device):
    embeddings, labels = draw(260, 9, 130, device=device)
    assert_matches(embeddings, labels, negative="semihard")


def test_by_hand(device):
    line = torch.tensor([0.0, 1.0, 3.0, 7.0], device=device)[:, None]
    labels = torch.tensor([5, 5, -1, -1], device=device)
    mined = batch_hard(line, labels)
    assert mined.positives.tolist() == [1, 0, 3, 2]
    assert mined.negatives.tolist() == [2, 2, 1, 1]
    assert mined.valid.all()
    semihard = batch_hard(line, labels, negative="semihard")  # 2 has none beyond 3, at distance 4
    assert semihard.negatives.tolist() == [2, 2, 2, 1]
    assert semihard.valid.tolist() == [True, True, False, True]
    groups = torch.tensor([0, 1, 1, 2], device=device)  # 1 and 2 are of one patient
    assert batch_hard(line, labels, groups=groups).negatives.tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("rule", RULES, ids="-".join)
def test_ties_go_to_the_lowest_index(device, rule):
    # copies of three rows, of a width and a number that leave a rest in any tile of a product
    copies, _ = draw(3, 17, 1, device=device)
    embeddings = copies.repeat(25, 1)[:73]
    labels = torch.arange(73, device=device) % 5
    for words in ({}, dict(normalise=True)):
        mined = assert_matches(embeddings, labels, positive=rule[0], negative=rule[1], **words)
        itself = torch.arange(73, device=device)
        for chosen, alike in ((mined.positives, True), (mined.negatives, False)):
            # nobody with a lower index is the same row in the same role
            same = (embeddings[chosen][:, None] == embeddings).all(dim=2)
            same &= ((labels[:, None] == labels) == alike) & (itself[:, None] != itself)
            lowest = same.int().argmax(dim=1)
            assert torch.equal(lowest[mined.valid], chosen[mined.valid])


def test_a_collapsed_batch_is_all_ties(device):
    embeddings, labels = (
        torch.full((40, 19), 0.1, device=device),
        torch.arange(40, device=device) // 4,
    )
    mined = assert_matches(embeddings, labels)
    first = torch.arange(40, device=device) // 4 * 4
    assert torch.equal(mined.positives, first + (first == torch.arange(40, device=device)).long())
    assert mined.negatives.tolist() == [4] * 4 + [0] * 36
    assert not batch_hard(embeddings, labels, negative="semihard").valid.any()


def test_near_rows_far_from_the_origin_are_told_apart(device):
    embeddings, labels = draw(40, 40, 9, device=device)
    embeddings = 1000 + 1e-2 * embeddings  # products lose all digits of the distances
    for positive, negative in RULES:
        assert_matches(embeddings, labels, positive=positive, negative=negative)


def test_rows_of_very_different_lengths(device):
    embeddings, labels = draw(50, 8, 9, device=device)
    embeddings *= 10.0 ** torch.linspace(-8, 8, 50, device=device)[:, None]
    for positive, negative in RULES:
        assert_matches(embeddings, labels, positive=positive, negative=negative)
        assert_matches(embeddings, labels, positive=positive, negative=negative, metric="cosine")


@pytest.mark.parametrize("height", [1, 7, 1000])
def test_strips_do_not_show(device, height):
    embeddings, labels = draw(50, 70, 12, device=device)
    numbers = labels.unique(return_inverse=True)[1].int()
    itself, words = torch.arange(50, device=device), ("euclidean", True, "hardest", "semihard")
    op = torch.ops.ecgfast.mine_extreme_pairs
    found = op(embeddings, None, numbers, numbers, None, None, itself, *words, height)
    expected = batch_hard(embeddings, labels, normalise=True, negative="semihard")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_thread_count_does_not_show():
    embeddings, labels = draw(700, 128, 90)
    before, results = torch.get_num_threads(), []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        results.append(
            [
                *batch_hard(embeddings, labels),
                *label_distance(embeddings[:, 0], groups=labels),
                *nearest_farthest(embeddings @ embeddings.T),
            ]
        )
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_runs_do_not_show(device):
    embeddings, labels = draw(40, 64, 9, device=device)
    first = batch_hard(embeddings, labels)
    for _ in range(20):
        assert_same(batch_hard(embeddings, labels), first)


def test_other_anchors_do_not_show(device):
    embeddings, labels, words = sets(12, 9, 8, device=device)
    together = batch_hard(embeddings, labels, **words)
    places = words.pop("places")
    for i in range(12):
        part = slice(i, i + 1)
        alone = batch_hard(embeddings[part], labels[part], places=places[part], **words)
        assert [each.item() for each in alone] == [each[i].item() for each in together]


def test_labels_decide_who_is_left(device):
    embeddings, _ = draw(6, 4, 1, device=device)
    itself = torch.arange(6, device=device)
    for labels in (torch.zeros_like(itself), itself):  # no negatives; no positives
        mined = assert_matches(embeddings, labels)
        assert not mined.valid.any()
        assert torch.equal(mined.positives, itself)
        assert torch.equal(mined.negatives, itself)
    mined = assert_matches(embeddings, itself // 2, groups=torch.zeros_like(itself))
    assert not mined.valid.any()  # all of one patient: no negatives


def test_what_is_not_valid_among_references_points_at_its_place(device):
    embeddings, labels, words = sets(9, 4, 2, device=device)
    words["reference_labels"] = torch.full_like(words["reference_labels"], 77)
    mined = batch_hard(embeddings, labels, **words)
    assert not mined.valid.any()
    assert torch.equal(mined.positives, words["places"].clamp(min=0))
    assert torch.equal(mined.negatives, words["places"].clamp(min=0))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38], ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_broken_row_is_nobodys_partner(device, value, metric):
    embeddings, labels = draw(40, 6, 5, device=device)
    embeddings[3, 2] = value
    for positive, negative in RULES:
        words = dict(positive=positive, negative=negative, metric=metric)
        mined = assert_matches(embeddings, labels, **words)
        if value == 3e38 and metric == "cosine":  # it still has a direction
            continue
        assert [each[3].item() for each in mined] == [3, 3, False]
        others = torch.arange(40, device=device) != 3
        rest = batch_hard(embeddings[others], labels[others], **words)
        for with_it, without in zip(mined, rest, strict=True):
            index = without if with_it.dtype == torch.bool else without + (without >= 3).long()
            assert torch.equal(with_it[others], index)


def test_a_zero_row_has_a_length_but_no_direction(device):
    embeddings, labels = draw(30, 6, 5, device=device)
    embeddings[4] = 0
    assert assert_matches(embeddings, labels).valid[4]
    assert assert_matches(embeddings, labels, normalise=True).valid[4]
    mined = assert_matches(embeddings, labels, metric="cosine")
    assert not mined.valid[4]
    assert 4 not in mined.positives[mined.valid]
    assert 4 not in mined.negatives[mined.valid]


@pytest.mark.parametrize("shape", [(0, 4, 1), (1, 4, 1)], ids=str)
def test_nobody(device, shape):
    embeddings, labels = draw(*shape, device=device)
    assert [len(each) for each in batch_hard(embeddings, labels)] == [shape[0]] * 3
    assert not assert_matches(embeddings, labels).valid.any()
    nobody = dict(references=embeddings[:0], reference_labels=labels[:0])
    assert not assert_matches(embeddings, labels, **nobody).valid.any()
    assert not label_distance(embeddings[:, 0]).valid.any()
    nearest, farthest = nearest_farthest(embeddings[:, :0], k_far=2)
    assert nearest.tolist() == [-1] * shape[0]
    assert farthest.tolist() == [[-1, -1]] * shape[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, 3:-1],  # a crop
        lambda x: x[:, ::2],  # some columns
        lambda x: x.T.contiguous().T,  # columns first
        lambda x: x[:1].expand(len(x), -1),  # one row, many times
    ],
)
def test_takes_any_strides(device, change):
    embeddings, labels = draw(40, 21, 6, device=device)
    labels = labels.repeat_interleave(2)[::2]
    strided = batch_hard(change(embeddings), labels, groups=labels // 3)
    dense = batch_hard(change(embeddings).contiguous(), labels.contiguous(), groups=labels // 3)
    assert_same(strided, dense)
    assert_rows_match(change(embeddings), k_far=3)
    assert_labels_match(change(embeddings)[:, 1], groups=labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    embeddings, labels = draw(60, 40, 10, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = batch_hard(embeddings, labels, metric="cosine")
    assert_same(inside, batch_hard(embeddings, labels, metric="cosine"))


def test_products_of_few_bits_change_nothing():
    embeddings, labels = draw(300, 64, 30)
    exact = batch_hard(embeddings, labels, negative="semihard")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # where the processor can: bfloat16
    try:
        assert_same(batch_hard(embeddings, labels, negative="semihard"), exact)
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_is_a_strip():
    n, d = 4096, 32
    embeddings, labels = draw(n, d, 100)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        batch_hard(embeddings, labels, normalise=True)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    strip, rows, numbers = 256 * n * 4, n * d * 4, n * 8
    assert strip < peak < strip + 3 * rows + 12 * numbers  # rows: at length 1, and in float64


def assert_labels_match(values, **words):
    found = label_distance(values, **words)
    assert_same(found, label_distance_reference(values, **words))
    return found


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.int64], ids=str
)
@pytest.mark.parametrize("levels", [5, 10**6])  # full of ties, and almost without
def test_label_distance_matches_reference(device, n, dtype, levels):
    generator = torch.Generator().manual_seed(n)
    values = torch.randint(levels, (n + MORE,), generator=generator) * 0.01
    values = values.to(device=device, dtype=dtype)
    if dtype.is_floating_point:
        values[::7] = torch.nan
        values[3 % n] = torch.inf
    groups = torch.randint(1 + n // 3, (n + MORE,), generator=generator).to(device)
    own = groups[:n]
    for max_gap in (None, 0.05):
        assert_labels_match(values[:n], max_gap=max_gap)
        for apart in (False, True):
            words = dict(max_gap=max_gap, groups_apart=apart)
            assert_labels_match(values[:n], groups=own, **words)
            references = dict(reference_values=values, reference_groups=groups)
            references |= dict(places=torch.arange(n, device=device) - n // 2 * 2 % 3)
            assert_labels_match(values[:n], groups=own, **references, **words)


def test_label_distance_by_hand(device):
    pressures = torch.tensor([12.0, 14.0, 30.0, torch.nan, 13.0, 30.5], device=device)
    mined = label_distance(pressures, max_gap=1.0)
    assert mined.valid.tolist() == [True, True, True, False, True, True]
    assert mined.positives.tolist() == [4, 4, 5, 3, 0, 2]
    assert mined.negatives.tolist() == [5, 5, 0, 3, 5, 0]
    near = label_distance(pressures, max_gap=0.5)
    assert near.valid.tolist() == [False, False, True, False, False, True]
    patients = torch.tensor([0, 1, 2, 3, 0, 0], device=device)
    mined = label_distance(pressures, groups=patients)
    assert mined.positives.tolist() == [4, 4, 5, 3, 0, 2]
    assert mined.negatives.tolist() == [2, 5, 0, 3, 2, 1]
    mined = label_distance(pressures, groups=patients, groups_apart=True)
    assert mined.positives.tolist() == [1, 4, 5, 3, 1, 2]


def test_equal_labels_repel_nobody(device):
    assert not label_distance(torch.full((5,), 7.0, device=device)).valid.any()
    assert not label_distance(torch.tensor([1.0, 2.0], device=device)).valid.any()  # p would be n


def assert_rows_match(distances, **words):
    found = nearest_farthest(distances, **words)
    expected = nearest_farthest_reference(distances, **words)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (9, 300)], ids=str)
@pytest.mark.parametrize("levels", [3, 10**6])
def test_nearest_farthest_matches_reference(device, dtype, shape, levels):
    generator = torch.Generator().manual_seed(shape[1])
    distances = torch.randint(levels, shape, generator=generator).to(device=device, dtype=dtype)
    distances[0, ::2], distances[-1, ::3] = torch.inf, -torch.inf
    distances[:, shape[1] // 2] = torch.nan
    eligible = (torch.rand(shape[1], generator=generator) > 0.3).to(device)
    places = torch.arange(shape[0], device=device) - 1
    for k_far in (0, 1, 2, 9):
        assert_rows_match(distances, k_far=k_far)
        assert_rows_match(distances, eligible=eligible, places=places, k_far=k_far)


def test_torch_knows_the_ops(device):
    embeddings, labels, words = sets(6, 8, 3, device=device)
    ids = labels.int()
    other_ids, places = words["reference_labels"].int(), words["places"]
    rules = ("cosine", False, "hardest", "semihard", 4)
    op = torch.ops.ecgfast.mine_extreme_pairs.default
    for x in (embeddings, embeddings.T.contiguous().T, embeddings.half()):
        torch.library.opcheck(op, (x, None, ids, ids, ids, ids, places, *rules))
        y = words["references"].to(x.dtype)
        torch.library.opcheck(op, (x, y, ids, other_ids, None, None, places, *rules))
    values = embeddings[:, 0]
    op = torch.ops.ecgfast.mine_extreme_labels.default
    torch.library.opcheck(op, (values, values, ids, ids, places, 0.5, False))
    eligible = torch.ones(8, dtype=torch.bool, device=device)
    op = torch.ops.ecgfast.mine_extreme_rows.default
    for x in (embeddings, embeddings.half(), embeddings.T.contiguous().T):
        torch.library.opcheck(op, (x, eligible, places, 3))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, dynamic):
    def mine(x, labels):
        hard = batch_hard(x * 2, labels, groups=labels // 2, negative="semihard")
        near = label_distance(x[:, 0], groups=labels, max_gap=0.5)
        rows = nearest_farthest(x @ x.T, places=torch.arange(len(x), device=x.device))
        return *hard, *near, *rows

    compiled = torch.compile(mine, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in ((9, 8, 3), (14, 6, 4)):
        embeddings, labels = draw(*shape, device=device)
        embeddings.requires_grad_()
        found, expected = compiled(embeddings, labels), mine(embeddings, labels)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert not any(each.requires_grad for each in found)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(metric="l1"), ValueError, "metric must be one of euclidean, cosine, got 'l1'"),
        (dict(positive="semihard"), ValueError, "positive must be one of hardest, easiest, got"),
        (dict(negative="all"), ValueError, "hardest, easiest, semihard, got 'all'"),
        (dict(labels=torch.arange(4)), ValueError, r"labels must be \(5,\), got \(4,\)"),
        (dict(labels=torch.rand(5)), TypeError, "mined with label_distance"),
        (dict(embeddings=torch.zeros(5)), ValueError, r"embeddings must be \(rows, D\)"),
        (dict(places=torch.arange(5)), ValueError, "there are no references"),
    ],
)
def test_batch_hard_refuses(change, error, message):
    words = dict(embeddings=torch.zeros(5, 2), labels=torch.arange(5)) | change
    with pytest.raises(error, match=message):
        batch_hard(words.pop("embeddings"), words.pop("labels"), **words)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(values=torch.zeros(5, 1)), ValueError, r"one label a row, got \(5, 1\)"),
        (dict(values=torch.zeros(5) > 0), TypeError, "floats or integers, got torch.bool"),
        (dict(max_gap=-1.0), ValueError, "max_gap must be at least 0, got -1.0"),
        (dict(max_gap=float("nan")), ValueError, "max_gap must be at least 0, got nan"),
        (dict(groups_apart=True), ValueError, "groups_apart needs groups"),
        (dict(groups=torch.arange(4)), ValueError, r"groups must be \(5,\), got \(4,\)"),
        (dict(groups=torch.rand(5)), TypeError, "groups must be integers"),
        (dict(reference_groups=torch.arange(5)), ValueError, "reference_groups must be given"),
        (dict(reference_values=torch.zeros(5).double()), ValueError, "must be torch.float32"),
        (dict(places=torch.arange(5)), ValueError, "there are no references"),
    ],
)
def test_label_distance_refuses(change, error, message):
    words = dict(values=torch.zeros(5)) | change
    with pytest.raises(error, match=message):
        label_distance(words.pop("values"), **words)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(distances=torch.zeros(5)), ValueError, r"distances must be \(R, M\), got \(5,\)"),
        (dict(distances=torch.ones(5, 5) > 0), TypeError, "float dtype, got torch.bool"),
        (dict(k_far=-1), ValueError, "k_far must be at least 0, got -1"),
        (dict(eligible=torch.ones(5)), ValueError, r"eligible must be \(5,\) bool, got \(5,\)"),
        (dict(eligible=torch.ones(4) > 0), ValueError, r"bool, got \(4,\)"),
        (dict(places=torch.arange(4)), ValueError, r"places must be \(5,\) int64, got \(4,\)"),
    ],
)
def test_nearest_farthest_refuses(change, error, message):
    words = dict(distances=torch.zeros(5, 5)) | change
    with pytest.raises(error, match=message):
        nearest_farthest(words.pop("distances"), **words)


def test_border_guards_memory():
    codes = {torch.float32: 2, torch.uint8: 4, torch.int32: 6, torch.int64: 7}

    def view(tensor, **lies):
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype=codes[tensor.dtype], device=-1) | lies
        return tuple(facts.values())

    ids, indices = torch.arange(4, dtype=torch.int32), torch.arange(4)
    mask = torch.ones(4, dtype=torch.uint8)
    outputs = dict(places=indices, positives=indices.clone(), negatives=indices.clone())
    outputs |= dict(valid=mask.clone())
    pairs = dict(products=torch.zeros(4, 4), rows=torch.zeros(4, 3), columns=torch.zeros(4, 3))
    pairs |= dict(row_halves=torch.zeros(4), column_halves=torch.zeros(4), labels=ids, others=ids)
    pairs |= dict(groups=ids, other_groups=ids) | outputs
    labels = dict(values=torch.zeros(4), others=torch.zeros(4), groups=ids, other_groups=ids)
    labels |= outputs
    rows = dict(distances=torch.zeros(4, 4), eligible=mask, places=indices)
    rows |= dict(nearest=indices.clone(), farthest=torch.zeros(4, 2, dtype=torch.int64))
    here = (-1, 0, 1)
    lies = [dict(device=0), dict(dtype=1), dict(data=0), dict(shape=(7,), stride=(1,))]
    lies += [dict(shape=(4, 9), stride=(9, 2)), dict(shape=(5,), stride=(2,))]
    for call, tensors, rest in [
        (_C.mine_extreme_pairs, pairs, (1e-5, 0, 0, here)),
        (_C.mine_extreme_labels, labels, (1.0, False, here)),
        (_C.mine_extreme_rows, rows, (here,)),
    ]:
        call(*map(view, tensors.values()), *rest)
        for name, lie in itertools.product(tensors, lies):
            views = [view(t, **(lie if n == name else {})) for n, t in tensors.items()]
            with pytest.raises(ValueError, match=r"must be|wrong dtype|no memory|without a kernel"):
                call(*views, *rest)
        with pytest.raises(TypeError):
            call(pairs["rows"], *map(view, list(tensors.values())[1:]), *rest)
    for wrong in ((2, 0), (0, 3), (-1, 0)):
        with pytest.raises(ValueError, match="no such"):
            _C.mine_extreme_pairs(*map(view, pairs.values()), 1e-5, *wrong, here)
