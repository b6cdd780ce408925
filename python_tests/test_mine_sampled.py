"""mine_sampled against the distributions of its references, and draw by draw against a model."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from ecgfast import _C
from ecgfast.ops import mine_sampled as room
from ecgfast.ops._mine_sampled import (
    distance_weighted_reference,
    random_triplets_reference,
    semi_hard_reference,
    soft_hard_reference,
)
from ecgfast.ops._pairs import all_pairs, relations
from ecgfast.ops._philox import philox_reference, uniform_reference
from ecgfast.ops.mine_sampled import distance_weighted, random_triplets, semi_hard, soft_hard

OPS = [distance_weighted, semi_hard, soft_hard, random_triplets]
BATCHES = [  # kind, D
    ("spherical", 16),
    ("spherical", 64),
    ("spherical", 512),
    ("spherical", 2048),
    ("low_rank", 512),  # rank 16
    ("low_rank", 2048),  # rank 64
    ("near_duplicates", 16),
    ("near_duplicates", 64),
    ("near_duplicates", 512),
    ("near_duplicates", 2048),
]


def make(kind="spherical", d=24, n=60, *, dtype=torch.float32, device="cpu", seed=0):
    """Embeddings (N, D) and labels in classes of four. SYNTHETIC."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if kind == "low_rank":
        rank = {512: 16, 2048: 64}[d]
        x = x[:, :rank] @ torch.randn(rank, d, generator=generator, dtype=torch.float64)
    if kind == "near_duplicates":  # of another class, and several of some rows
        third = n // 3
        noise = torch.randn(third, d, generator=generator, dtype=torch.float64)
        x[-third:] = x[torch.arange(third) % (third // 2)] + 1e-4 * noise
    return x.to(device=device, dtype=dtype), torch.arange(n, device=device) // 4


def seed_of(number, device="cpu"):
    return torch.tensor([number], device=device)


def frequencies(chosen, columns):
    """How often each column was drawn, (N, M), of indices (N, S)."""
    counts = torch.zeros(len(chosen), columns, dtype=torch.float64)
    return counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float64)).numpy()


def p_value(counts, probabilities):
    """Chi-square of all rows together; bins that expect under 5 become one in each row."""
    assert counts[probabilities == 0].sum() == 0, "drawn what has no probability"
    statistic, freedom = 0.0, 0
    for count, probability in zip(counts, probabilities, strict=True):
        expected = probability * count.sum()
        large = expected >= 5
        bins = np.append(count[large], count[~large].sum())
        wanted = np.append(expected[large], expected[~large].sum())
        bins, wanted = bins[wanted > 1e-9], wanted[wanted > 1e-9]
        statistic += ((bins - wanted) ** 2 / wanted).sum()
        freedom += len(bins) - 1
    return float(chi2.sf(statistic, freedom)) if freedom > 0 else 1.0


# The distributions. Seeds are fixed, so that a test either always passes or never.


@pytest.mark.parametrize(("kind", "d"), BATCHES)
def test_distance_weighted_draws_from_its_distribution(kind, d):
    x, labels = make(kind, d)
    samples = 2000
    negatives, valid = distance_weighted(x, labels, samples=samples, seed=seed_of(d))
    truth = distance_weighted_reference(x.double(), labels)
    assert torch.equal(valid.all(dim=1), truth.any(dim=1))
    assert valid.sum() >= 1e5
    kept = valid[:, 0]
    counts = frequencies(negatives[kept], len(x))
    assert p_value(counts, truth[kept].numpy()) > 0.001


def test_the_chi_square_sees_a_wrong_exponent():
    x, labels = make("spherical", 16)
    negatives, _ = distance_weighted(x, labels, samples=2000, seed=seed_of(16))
    counts = frequencies(negatives, len(x))
    padded = torch.nn.functional.pad(x.double(), (0, 2))  # the same distances in D + 2 dimensions
    assert p_value(counts, distance_weighted_reference(padded, labels).numpy()) < 1e-9


@pytest.mark.parametrize("cutoffs", [(0.1, 2.5), (1.0, 1.2), (0.9, 1.41)], ids=str)
@pytest.mark.parametrize("d", [2, 3, 4, 20])
def test_distance_weighted_at_other_cutoffs(d, cutoffs):
    x, labels = make("spherical", d)
    words = dict(cutoff=cutoffs[0], nonzero_loss_cutoff=cutoffs[1])
    negatives, valid = distance_weighted(x, labels, samples=2000, seed=seed_of(1), **words)
    truth = distance_weighted_reference(x.double(), labels, **words)
    kept = valid[:, 0]
    assert torch.equal(kept, truth.any(dim=1))
    counts = frequencies(negatives[kept], len(x))
    assert p_value(counts, truth[kept].numpy()) > 0.001


@pytest.mark.parametrize("no_negative", ["drop", "uniform", "hardest"])
def test_policies_for_anchors_without_a_legal_negative(device, no_negative):
    x = torch.zeros(7, 8, device=device)
    x[torch.arange(7), torch.arange(7)] = 1  # all at sqrt(2) from all
    x[1, 0] = 1  # but 0 and 1
    x[4, 2] = 0.005  # and 2 and 4 a little nearer, still too far
    labels = torch.tensor([0, 1, 1, 2, 3, 4, 4], device=device)
    samples = 60
    negatives, valid = distance_weighted(
        x, labels, samples=samples, no_negative=no_negative, seed=seed_of(4, device)
    )
    truth = distance_weighted_reference(x.double(), labels, no_negative=no_negative)
    assert torch.equal(valid.all(dim=1), truth.any(dim=1))
    assert valid.all(dim=1).tolist() == [no_negative != "drop" or i in (0, 1) for i in range(7)]
    assert ((~valid.all(dim=1)).nonzero().flatten() == negatives[~valid.all(dim=1)].T).all()
    kept = valid.all(dim=1).cpu()
    counts = frequencies(negatives.cpu()[kept], 7)
    assert p_value(counts, truth.cpu()[kept].numpy()) > 0.001
    if no_negative == "hardest":
        assert (negatives[2] == 4).all()
        assert (negatives[4] == 2).all()
        assert (negatives[3] == 0).all()  # of many ties the lowest


def many(x, labels, rule, samples, seed, *, margin=0.2, squared=False, normalise=False):
    """Several samples of what the faces of semi_hard and soft_hard draw once."""
    tensors = room._tensors(all_pairs(x, labels))
    number = room._RULES.index(rule)
    return room._uniform(*tensors, seed, samples, number, margin, squared, normalise)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_semi_hard_draws_from_its_distribution(metric):
    x, labels = make(d=3, n=20)
    margin = 0.4
    cosine = metric == "cosine"
    words = dict(margin=2 * margin if cosine else margin, squared=metric != "euclidean")
    p, n, valid = many(x, labels, "semi_hard", 6000, seed_of(7), normalise=cosine, **words)
    assert valid.all()
    first, then = semi_hard_reference(x.double(), labels, margin=margin, metric=metric)
    joint = (first[..., None] * then).flatten(1)
    assert p_value(frequencies(p * 20 + n, 400), joint.numpy()) > 0.001
    one = semi_hard(x, labels, margin=margin, metric=metric, seed=seed_of(7))
    assert torch.equal(one[0], p[:, 0])
    assert torch.equal(one[1], n[:, 0])


def test_soft_hard_draws_from_its_distribution():
    x, labels = make(d=3, n=20)
    p, n, valid = many(x, labels, "soft_hard", 6000, seed_of(8))
    assert valid.all()
    first, then = soft_hard_reference(x.double(), labels)
    joint = (first[..., None] * then[:, None]).flatten(1)
    assert p_value(frequencies(p * 20 + n, 400), joint.numpy()) > 0.001
    one = soft_hard(x, labels, seed=seed_of(8))
    assert torch.equal(one[0], p[:, 0])
    assert torch.equal(one[1], n[:, 0])


def test_random_triplets_draws_from_its_distribution():
    x, labels = make(d=3, n=20)
    p, n, valid = random_triplets(x, labels, samples=6000, seed=seed_of(9))
    assert valid.all()
    first, then = random_triplets_reference(x.double(), labels)
    joint = (first[..., None] * then[:, None]).flatten(1)
    assert p_value(frequencies(p * 20 + n, 400), joint.numpy()) > 0.001


# Draw by draw: the model of the contract in numpy.


def words_of(n, samples, purpose, seed):
    counter = np.zeros((n, samples, 4), dtype=np.uint64)
    counter[..., 0] = np.arange(n)[:, None]
    counter[..., 1] = np.arange(samples)
    counter[..., 2] = purpose
    return philox_reference(counter, np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint64))


def intervals_of(x, labels):
    """Lower and upper ends of each column's share of u, of its chunk and in it: (N, M) each."""
    d = x.shape[1]
    unit = torch.nn.functional.normalize(x, dim=1)
    cosine = (unit @ unit.T).double()
    _, negative = relations(all_pairs(x, labels))
    legal = (negative & (cosine > 1 - 1.4**2 / 2)).numpy()
    c = np.minimum(cosine.numpy(), 0.875)
    logs = (3 - d) / 2 * np.log2(1 - c**2) - 0.5 * np.log2(1 - c)
    logs = np.where(legal, logs, -np.inf)
    with np.errstate(invalid="ignore"):
        weights = np.where(legal, np.exp2(logs - logs.max(axis=1, keepdims=True)), 0.0)
    rows, columns = weights.shape
    chunked = np.zeros((rows, -(-columns // 64), 64))
    chunked.reshape(rows, -1)[:, :columns] = weights
    sums = chunked.sum(axis=2)
    chunk_end = sums.cumsum(axis=1) / sums.sum(axis=1, keepdims=True)
    chunk_begin = np.concatenate([np.zeros((rows, 1)), chunk_end[:, :-1]], axis=1)
    with np.errstate(invalid="ignore"):
        end = chunked.cumsum(axis=2) / sums[..., None]
    begin = np.concatenate([np.zeros((rows, end.shape[1], 1)), end[..., :-1]], axis=2)
    return chunk_begin, chunk_end, begin, end


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("d", [5, 64, 512])
def test_distance_weighted_replays(device, dtype, d):
    x, labels = make(d=d, n=150, dtype=dtype)
    samples = 20
    number = 2**40 + 12345
    negatives, valid = distance_weighted(
        x.to(device), labels.to(device), samples=samples, seed=seed_of(number, device)
    )
    negatives, valid = negatives.cpu().numpy(), valid.cpu().numpy()
    assert valid.all()
    u = uniform_reference(words_of(150, samples, 0, number))
    chunk_begin, chunk_end, begin, end = intervals_of(x, labels)
    # the rounding of a log weight: of 1 - c^2, of its logarithm, both times (D - 3) / 2
    slack = 16 * torch.finfo(dtype).eps * (1 + abs(d - 3) / 2)
    rows = np.arange(150)[:, None]
    chunk, place = negatives // 64, negatives % 64
    assert (u[..., 0] >= chunk_begin[rows, chunk] - slack).all()
    assert (u[..., 0] <= chunk_end[rows, chunk] + slack).all()
    assert (u[..., 1] >= begin[rows, chunk, place] - slack).all()
    assert (u[..., 1] <= end[rows, chunk, place] + slack).all()


@pytest.mark.parametrize("rule", ["random", "semi_hard", "soft_hard"])
def test_uniform_draws_replay(device, rule):
    x, labels = make(d=4, n=90, dtype=torch.float64)
    number, samples = 987654321987, 7
    p, n, _ = many(x.to(device), labels.to(device), rule, samples, seed_of(number, device))
    distance = (x[:, None] - x).square().sum(dim=2).sqrt()
    positive, negative = relations(all_pairs(x, labels))
    words = words_of(90, samples, 1, number)

    def choose(members, otherwise, word):
        members = members if members.any() else otherwise
        among = members.nonzero().flatten()
        return int(among[(int(word) * len(among)) >> 32])

    for i in range(90):
        row, plus, minus = distance[i], positive[i], negative[i]
        for s in range(samples):
            near, far = plus, minus
            if rule == "soft_hard":
                near = plus & (row > row[minus].min())
                far = minus & (row < row[plus].max())
            wanted = choose(near, plus, words[i, s, 0])
            if rule == "semi_hard":
                far = minus & (row > row[wanted]) & (row < row[wanted] + 0.2)
            assert p[i, s] == wanted
            assert n[i, s] == choose(far, minus, words[i, s, 1])


def test_frozen_draws(device):
    x = 2 * torch.eye(8, dtype=torch.float64, device=device) + 1  # all legal and equally far
    labels = torch.arange(8, device=device) // 4
    seed = seed_of(2026, device)
    drawn = [op(x, labels, seed=seed) for op in OPS]
    assert [[indices.flatten().tolist() for indices in some[:-1]] for some in drawn] == FROZEN


FROZEN = [  # of each op
    [[6, 5, 6, 7, 0, 0, 3, 3]],
    [[3, 3, 0, 0, 6, 4, 7, 6], [4, 6, 5, 7, 0, 1, 0, 0]],
    [[3, 3, 0, 0, 6, 4, 7, 6], [4, 6, 5, 7, 0, 1, 0, 0]],
    [[3, 3, 0, 0, 6, 4, 7, 6], [4, 6, 5, 7, 0, 1, 0, 0]],
]


# What must not show, and what must.


def test_every_instruction_set_draws_alike(isa):
    # products, lengths and distances of these are exact, so that rounding is in weights alone
    for n in (1, 5, 64, 100, 200):
        x, labels = signs(n)
        seed = seed_of(3)
        negatives, valid = distance_weighted(x, labels, samples=9, seed=seed)
        exact = distance_weighted(x.double(), labels, samples=9, seed=seed)
        assert torch.equal(valid, exact[1])
        assert (negatives == exact[0]).double().mean() > 0.999 - 1e-9
        for op in (semi_hard, soft_hard, random_triplets):
            for found, wanted in zip(
                op(x, labels, seed=seed), op(x.double(), labels, seed=seed), strict=True
            ):
                assert torch.equal(found, wanted)


def signs(n, d=64, *, device="cpu"):
    generator = torch.Generator().manual_seed(n)
    x = torch.randint(0, 2, (n, d), generator=generator).float() * 2 - 1
    return x.to(device), torch.arange(n, device=device) // 4


def all_draws(x, labels, height=None, seed=5):
    """Of all ops, strips of any height."""
    tensors = (*room._tensors(all_pairs(x, labels)), seed_of(seed, x.device))
    drawn = [*room._weighted(*tensors, 3, 0.5, 1.4, 0, height)]
    for rule in range(3):
        drawn += room._uniform(*tensors, 3, rule, 0.2, False, False, height)
    return drawn


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("height", [1, 7, 64, 1000])
def test_strip_height_does_not_show(device, height):
    x, labels = signs(50, device=device)
    assert_same(all_draws(x, labels, height), all_draws(x, labels))


def test_thread_count_does_not_show():
    x, labels = signs(700)
    before, results = torch.get_num_threads(), []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        results.append(all_draws(x, labels))
    torch.set_num_threads(before)
    assert_same(*results)


def test_runs_do_not_show(device):
    x, labels = make(d=24, n=30, device=device)
    first = all_draws(x, labels)
    for _ in range(19):
        assert_same(all_draws(x, labels), first)


def test_number_of_samples_does_not_show(device):
    x, labels = make(n=40, device=device)
    for op in (distance_weighted, random_triplets):
        few = op(x, labels, samples=2, seed=seed_of(1, device))
        more = op(x, labels, samples=5, seed=seed_of(1, device))
        assert_same(few, [drawn[:, :2] for drawn in more])


def test_another_seed_draws_anew(device):
    x, labels = make(n=80, device=device)
    for op in OPS:
        one, other = (op(x, labels, seed=seed_of(seed, device)) for seed in (1, 1 + 2**32))
        assert (one[0] != other[0]).any()
        assert (one[-2] != other[-2]).double().mean() > 0.3


def test_manual_seed_is_enough(device):
    x, labels = make(n=60, device=device)
    for op in OPS:
        results = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            results.append(op(x, labels))
        assert_same(results[0], results[1])
        assert (results[0][0] != results[2][0]).any()


# Who may be drawn.


@pytest.mark.parametrize("op", OPS)
def test_a_row_that_is_not_finite_is_nobodys_partner(device, op):
    x, labels = make(d=6, n=24, device=device)
    x[3, 2], x[10, 0], x[17, 5] = torch.nan, torch.inf, -torch.inf
    bad = [3, 10, 17]
    for seed in range(10):
        *chosen, valid = op(x, labels, seed=seed_of(seed, device))
        assert valid.flatten().nonzero().flatten().tolist() == [
            i for i in range(24) if i not in bad
        ]
        for indices in chosen:
            assert not torch.isin(
                indices.flatten()[valid.flatten()], x.new_tensor(bad).long()
            ).any()
            assert indices[bad].flatten().tolist() == bad


@pytest.mark.parametrize("no_negative", ["uniform", "hardest"])
def test_policies_draw_no_row_that_is_not_finite(device, no_negative):
    x = torch.eye(6, device=device)
    x[0, 0] = torch.nan
    labels = torch.arange(6, device=device)
    negatives, valid = distance_weighted(x, labels, samples=20, no_negative=no_negative)
    assert valid.all(dim=1).tolist() == [False] + [True] * 5
    assert (negatives[1:] > 0).all()


def test_a_zero_row_lies_too_far_from_all(device):
    x, labels = make(d=6, n=20, device=device)
    x[5] = 0
    negatives, valid = distance_weighted(x, labels, samples=40, seed=seed_of(0, device))
    assert not valid[5].any()
    assert not (negatives[torch.arange(20) != 5] == 5).any()
    _, valid = distance_weighted(x, labels, no_negative="hardest")
    assert valid.all()
    assert all(op(x, labels)[-1].all() for op in (semi_hard, soft_hard, random_triplets))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("n", "labels"),
    [(0, []), (1, [4]), (3, [2, 2, 2]), (3, [1, 2, 3])],
    ids=["none", "one", "a single class", "all different"],
)
def test_nobody_to_draw(device, op, n, labels):
    x = torch.eye(max(n, 2), device=device)[:n] + 0.5
    labels = torch.tensor(labels, dtype=torch.int64, device=device)
    *chosen, valid = op(x, labels)
    different = op is distance_weighted and labels.unique().numel() == 3
    assert valid.tolist() == ([[True]] * 3 if different else torch.zeros_like(valid).tolist())
    for indices in chosen:
        assert indices.dtype == torch.int64
        assert different or indices.flatten().tolist() == list(range(n))


@pytest.mark.parametrize("op", OPS)
def test_labels_of_any_size(device, op):
    x, labels = make(n=30, device=device)
    big = labels * 2**40 - 2**62
    assert_same(op(x, big, seed=seed_of(1, device)), op(x, labels, seed=seed_of(1, device)))


@pytest.mark.parametrize("op", OPS)
def test_rows_of_one_group_are_never_negatives(device, op):
    x, labels = make(d=5, n=40, device=device)
    groups = torch.arange(40, device=device) % 5
    _, negative = relations(all_pairs(x, labels, groups=groups))
    rows = torch.arange(40, device=device)
    for seed in range(20):
        drawn = op(x, labels, groups=groups, seed=seed_of(seed, device))
        negatives, valid = drawn[-2].reshape(40), drawn[-1].reshape(40)
        assert valid.any()
        assert negative[rows, negatives][valid].all()


@pytest.mark.parametrize("op", OPS)
def test_references_with_the_batch_among_them_draw_the_same(device, op):
    x, labels = make(d=9, n=70, dtype=torch.float64, device=device)
    alone = op(x, labels, seed=seed_of(6, device))
    again = op(
        x,
        labels,
        references=x.clone(),
        reference_labels=labels.clone(),
        places=torch.arange(70, device=device),
        seed=seed_of(6, device),
    )
    assert_same(again, alone)


@pytest.mark.parametrize("op", OPS)
def test_references_of_another_number(device, op):
    x, labels = make(d=5, n=12, device=device)
    others, their_labels = make(d=5, n=70, device=device, seed=1)
    their_labels %= 5
    places = torch.full((12,), -1, device=device)
    places[3], others[68], their_labels[68] = 68, x[3], labels[3]
    words = dict(references=others, reference_labels=their_labels, places=places)
    positive, negative = relations(all_pairs(x, labels, **words))
    rows = torch.arange(12, device=device)
    for seed in range(5):
        *chosen, valid = op(x, labels, **words, seed=seed_of(seed, device))
        valid = valid.reshape(12)
        for indices, relation in zip(chosen[::-1], (negative, positive), strict=False):
            assert relation[rows, indices.reshape(12)][valid].all()
            assert indices.reshape(12)[~valid].eq(0).all()
        assert valid.any()
        none = op(x, labels, references=x[:0], reference_labels=labels[:0])
        assert not none[-1].any()
        assert not none[0].any()


def test_itself_is_never_drawn_whatever_its_label_there(device):
    x, labels = make(d=5, n=12, device=device)
    words = dict(
        references=x, reference_labels=labels + 100, places=torch.arange(12, device=device)
    )
    negatives, valid = distance_weighted(x, labels, samples=50, no_negative="uniform", **words)
    assert valid.all()
    assert not (negatives == torch.arange(12, device=device)[:, None]).any()


# Dtypes, strides, torch.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_in_half(device, op, dtype):
    x, labels = make(d=16, n=60, dtype=dtype, device=device)
    words = dict(seed=seed_of(2, device))
    assert_same(op(x, labels, **words), op(x.float(), labels, **words))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_autocast_leaves_it_alone(device, op, dtype):
    x, labels = make(d=16, n=60, device=device)
    words = dict(seed=seed_of(2, device))
    with torch.autocast(device.type, dtype=dtype):
        inside = op(x, labels, **words)
    assert_same(inside, op(x, labels, **words))


@pytest.mark.parametrize("op", OPS)
def test_takes_any_strides(device, op):
    x, labels = make(d=40, n=30, dtype=torch.float64, device=device)
    seed = seed_of(2, device).repeat(6)[::6]
    for change in (lambda x: x[:, 3:-1], lambda x: x[:, ::2], lambda x: x.T.contiguous().T):
        odd = change(x)
        strided = op(odd, labels.repeat_interleave(2)[::2], seed=seed)
        assert_same(strided, op(odd.contiguous(), labels, seed=seed))


@pytest.mark.parametrize("op", OPS)
def test_nothing_is_differentiable(op):
    x, labels = make(n=12)
    assert not any(drawn.requires_grad for drawn in op(x.requires_grad_(), labels))


def test_torch_knows_the_ops(device):
    x, labels = make(d=8, n=12, device=device)
    grouped = all_pairs(x, labels, groups=labels)
    apart = all_pairs(x, labels, references=x[:5], reference_labels=labels[:5])
    weighted, uniform = (
        torch.ops.ecgfast.mine_sampled_weighted,
        torch.ops.ecgfast.mine_sampled_uniform,
    )
    for pairs in (all_pairs(x, labels), grouped, apart, all_pairs(x.T.contiguous().T, labels)):
        tensors = (*room._tensors(pairs), seed_of(0, device))
        torch.library.opcheck(weighted.default, (*tensors, 2, 0.5, 1.4, 1))
        torch.library.opcheck(uniform.default, (*tensors, 1, 1, 0.2, False, True, 5))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, op, dynamic):
    def mine(x, labels, seed):
        return op(x * 2, labels, seed=seed)

    torch._dynamo.reset()
    compiled = torch.compile(mine, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (12, 20):
        x, labels = make(d=8, n=n, device=device)
        seed = seed_of(3, device)
        assert_same(compiled(x, labels, seed), mine(x, labels, seed))


def test_memory_grows_with_the_strip_and_not_with_the_square(peak_bytes):
    n, d = 2000, 8
    x, labels = make(d=d, n=n)
    for op in OPS:
        strip = 0 if op is random_triplets else 256 * n * 4
        few = (
            24 * n * 8 + 8 * n * d * 4 + strip // 4
        )  # numbers of rows, copies of x, sums of chunks
        assert peak_bytes(functools.partial(op, x, labels)) <= strip + few


@pytest.fixture
def peak_bytes():
    def measure(function):
        function()
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            outcome = function()
        del outcome
        events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        alive = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            alive += event.nbytes()
            peak = max(peak, alive)
        return peak

    return measure


# What is refused.


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(embeddings=torch.zeros(6)), ValueError, r"embeddings must be \(rows, D\)"),
        (dict(labels=torch.zeros(4)), ValueError, r"labels must be \(6,\), got \(4,\)"),
        (dict(labels=torch.zeros(6)), TypeError, "labels must be integers"),
        (dict(seed=torch.zeros(1)), ValueError, r"seed must be \(1,\) int64 on cpu"),
        (dict(seed=torch.tensor(1)), ValueError, r"seed must be \(1,\) int64 on cpu.*got \(\)"),
        (dict(references=torch.zeros(3, 2)), ValueError, "reference_labels must be given"),
    ],
)
def test_refuses(op, change, error, message):
    arguments = dict(embeddings=torch.zeros(6, 2), labels=torch.arange(6)) | change
    with pytest.raises(error, match=message):
        op(**arguments)


@pytest.mark.parametrize(
    ("op", "words", "message"),
    [
        (distance_weighted, dict(samples=0), "samples must be at least 1, got 0"),
        (random_triplets, dict(samples=-1), "samples must be at least 1, got -1"),
        (distance_weighted, dict(cutoff=0.0), "cutoff must be above 0 and below nonzero_loss"),
        (distance_weighted, dict(cutoff=1.5), "got 1.5 and 1.4"),
        (distance_weighted, dict(cutoff=float("nan")), "cutoff must be above 0"),
        (distance_weighted, dict(no_negative="skip"), "'drop', 'uniform', 'hardest'"),
        (semi_hard, dict(margin=-1.0), "margin must be at least 0, got -1.0"),
        (semi_hard, dict(metric="l1"), "metric must be one of"),
        (soft_hard, dict(metric="l1"), "metric must be one of"),
    ],
)
def test_refuses_words(op, words, message):
    with pytest.raises(ValueError, match=message):
        op(torch.zeros(6, 2), torch.arange(6), **words)


def test_border_guards_memory():
    def view(tensor, **lies):
        dtype = {torch.float32: 2, torch.float64: 3, torch.uint8: 4, torch.int32: 6, torch.int64: 7}
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        facts |= dict(dtype=dtype[tensor.dtype], device=-1) | lies
        return tuple(facts.values())

    numbers = torch.arange(5, dtype=torch.int32)
    longs, byte = torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2, dtype=torch.uint8)
    sides = dict(rows=numbers, columns=numbers, row_groups=numbers, column_groups=numbers)
    sides |= dict(places=torch.arange(5), seed=torch.tensor([1]))
    weighted = dict(strip=torch.zeros(5, 5)) | sides
    weighted |= dict(chunks=torch.zeros(5, 2, 1, dtype=torch.float64), negatives=longs, valid=byte)
    uniform = dict(strip=torch.zeros(5, 5), row_squares=torch.zeros(5))
    uniform |= dict(column_squares=torch.zeros(5)) | sides
    uniform |= dict(positives=longs.clone(), negatives=longs, valid=byte)
    everywhere = [dict(device=0), dict(dtype=5), dict(shape=(7,), stride=(1,)), dict(data=0)]
    here = (-1, 0, 1)
    for call, tensors, rest, wrong in [
        (_C.mine_sampled_weighted, weighted, (0, 1.0, 0.02, 0.875, 0, here), (0, 1.0, 0.0, 0.0, 3)),
        (_C.mine_sampled_uniform, uniform, (0, 0.2, 1, False, here), (0, 0.2, 3, False)),
    ]:
        call(*map(view, tensors.values()), *rest)
        told = [(name, lie) for name in tensors for lie in everywhere]
        told += [("strip", dict(stride=(1, 5))), ("valid", dict(stride=(1, 5)))]
        told += [("rows", dict(stride=(2,))), ("negatives", dict(stride=(4, 2)))]
        for name, lie in told:
            views = [view(t, **(lie if n == name else {})) for n, t in tensors.items()]
            with pytest.raises(ValueError, match=r"must be|wrong dtype|no memory|without a kernel"):
                call(*views, *rest)
        views = dict(zip(tensors, map(view, tensors.values()), strict=True))
        with pytest.raises(ValueError, match="must be 0, 1 or 2"):
            call(*views.values(), *wrong, here)
        with pytest.raises(ValueError, match="one side alone"):
            call(*(views | dict(row_groups=None)).values(), *rest)
    views = dict(zip(uniform, map(view, uniform.values()), strict=True)) | dict(strip=None)
    with pytest.raises(ValueError, match="needs distances"):
        _C.mine_sampled_uniform(*views.values(), 0, 0.2, 1, False, here)
