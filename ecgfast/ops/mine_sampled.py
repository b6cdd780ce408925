"""Positives and negatives drawn at random: by distance weights, semi-hard, soft-hard, or evenly.

Longer than most, since each of four ops says the words of all pairs in full.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecgfast import _C
from ecgfast.ops._native import View, place, ready, register, sum_dtype, view
from ecgfast.ops._pairs import Pairs, all_pairs, unit_rows
from ecgfast.ops._strips import products

_POLICIES = ("drop", "uniform", "hardest")  # as in csrc/mine_sampled/contract.h
_RULES = ("random", "semi_hard", "soft_hard")
_METRICS = ("euclidean", "sqeuclidean", "cosine")
_CHUNK = 64
_ALL = slice(None)


def distance_weighted(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    samples: int = 1,
    cutoff: float = 0.5,
    nonzero_loss_cutoff: float = 1.4,
    no_negative: str = "drop",
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Draws negatives so that all distances on the sphere are about equally frequent.

    Rows are brought to unit length. A negative at distance d is drawn with a probability in
    proportion to the inverse of the density of d among random points on the sphere in D
    dimensions (Wu, Manmatha, Smola, Krähenbühl, ICCV 2017),

    .. math:: w(d) = \left[ d^{D-2} \left(1 - d^2 / 4\right)^{(D-3)/2} \right]^{-1}

    where d is no less than ``cutoff``, and never from ``nonzero_loss_cutoff`` on. Weights span
    hundreds of powers of ten at large D; each anchor's are taken relative to its own largest, so
    that no anchor loses all of its negatives to another's. Draws are with replacement. What an
    anchor draws depends on the seed, its number and its row of distances alone. No N x M matrix is
    held. Under a cutoff of about 0.1 the weights of the nearest lose digits in float32.

    A zero row lies at sqrt(2) from all. A row with a value that is not finite is nobody's negative
    and has none.

    Args:
        embeddings: ``(N, D)``, any float dtype and strides; drawn from in float32 (float64).
        labels: ``(N,)``, any integers: others are negatives.
        references: ``(M, D)``, drawn from instead of the embeddings.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers: rows of one group are never negatives of each other.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64, with references: which is the anchor itself, -1 for none.
        samples: Negatives for each anchor, S.
        cutoff: Smaller distances count as this one; above 0.
        nonzero_loss_cutoff: Negatives from this distance on are not drawn.
        no_negative: What an anchor gets whose negatives are all too far: ``"drop"`` nothing,
            ``"uniform"`` any of its negatives, ``"hardest"`` the nearest.
        seed: ``(1,)`` int64 on the device; drawn from torch's generator if None.

    Returns:
        Indices of negatives ``(N, S)`` int64 and which are valid ``(N, S)`` bool. One that is not
        valid is the anchor itself, or 0 where the references do not hold it.

    Raises:
        ValueError: If a shape, a device or a number is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [-1.0, 0.0]])
        >>> negatives, valid = distance_weighted(z, torch.tensor([0, 1, 1, 1]), samples=3)
        >>> valid.all(dim=1), 3 in negatives[0]
        (tensor([ True,  True,  True, False]), False)
    """
    pairs = all_pairs(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )
    _check_samples(samples)
    if not 0 < cutoff < nonzero_loss_cutoff:
        raise ValueError(
            "cutoff must be above 0 and below nonzero_loss_cutoff, got"
            f" {cutoff} and {nonzero_loss_cutoff}"
        )
    if no_negative not in _POLICIES:
        raise ValueError(f"no_negative must be one of {_POLICIES}, got {no_negative!r}")
    seed = _seed(seed, embeddings)
    drawn: tuple[Tensor, Tensor] = _weighted(
        *_tensors(pairs),
        seed,
        samples,
        cutoff,
        nonzero_loss_cutoff,
        _POLICIES.index(no_negative),
    )
    return drawn


def semi_hard(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    margin: float = 0.2,
    metric: str = "euclidean",
    normalise: bool = False,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Draws a positive, and a negative a little farther than it, as SSL-DML's code does.

    The positive p is any, the negative n any with :math:`d_{ap} < d_{an} < d_{ap} + m`; where there
    is none, any. All draws are uniform. Distances come from products of rows: where two differ by
    less than the rounding of their squares, either may count as the larger. No N x M matrix is
    held. A row with a value that is not finite is nobody's partner and its triplet is not valid.

    Args:
        embeddings: ``(N, D)``, any float dtype and strides.
        labels: ``(N,)``, any integers: equal ones are positives.
        references: ``(M, D)``, drawn from instead of the embeddings.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers: rows of one group are never negatives of each other.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64, with references: which is the anchor itself, -1 for none.
        margin: m, in the unit of the metric, at least 0.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"`` (1 minus the cosine).
        normalise: Whether rows are brought to unit length before; for cosine they are.
        seed: ``(1,)`` int64 on the device; drawn from torch's generator if None.

    Returns:
        Indices of positives and negatives ``(N,)`` int64, and which are valid ``(N,)`` bool: who
        has both. One that is not valid is the anchor itself, or 0 where the references do not
        hold it.

    Raises:
        ValueError: If a shape, a device or a number is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [1.1], [5.0]])
        >>> semi_hard(line, torch.tensor([0, 0, 1, 1]))[1][:1]
        tensor([2])
    """
    pairs = all_pairs(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    return _by_distance("semi_hard", pairs, margin, metric, normalise, seed)


def soft_hard(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    metric: str = "euclidean",
    normalise: bool = False,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a positive and a negative that are in the wrong order, as SSL-DML's code does.

    The positive is any that is farther than the nearest negative, the negative any that is nearer
    than the farthest positive; where there is none, any. All draws are uniform, the two are
    independent. Otherwise as :func:`semi_hard`.

    Args:
        embeddings: ``(N, D)``, any float dtype and strides.
        labels: ``(N,)``, any integers: equal ones are positives.
        references: ``(M, D)``, drawn from instead of the embeddings.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers: rows of one group are never negatives of each other.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64, with references: which is the anchor itself, -1 for none.
        metric: ``"euclidean"``, ``"sqeuclidean"`` (the same order) or ``"cosine"``.
        normalise: Whether rows are brought to unit length before; for cosine they are.
        seed: ``(1,)`` int64 on the device; drawn from torch's generator if None.

    Returns:
        Positives, negatives and valid, as :func:`semi_hard`.

    Raises:
        ValueError: If a shape, a device or a number is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> line = torch.tensor([[0.0], [0.1], [3.0], [1.0], [5.0]])
        >>> p, n, _ = soft_hard(line, torch.tensor([0, 0, 0, 1, 1]))
        >>> p[0], n[0]
        (tensor(2), tensor(3))
    """
    pairs = all_pairs(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )
    return _by_distance("soft_hard", pairs, 0.0, metric, normalise, seed)


def random_triplets(
    embeddings: Tensor,
    labels: Tensor,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    samples: int = 1,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws any positive and any negative, uniformly and with replacement.

    No distance is computed; embeddings only say which rows are finite: the others are nobody's
    partner. (SSL-DML calls this ``npair``.)

    Args:
        embeddings: ``(N, D)``, any float dtype and strides.
        labels: ``(N,)``, any integers: equal ones are positives.
        references: ``(M, D)``, drawn from instead of the embeddings.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers: rows of one group are never negatives of each other.
        reference_groups: ``(M,)``, with references and groups.
        places: ``(N,)`` int64, with references: which is the anchor itself, -1 for none.
        samples: Pairs for each anchor, S.
        seed: ``(1,)`` int64 on the device; drawn from torch's generator if None.

    Returns:
        Indices of positives and negatives ``(N, S)`` int64, and which are valid ``(N, S)`` bool:
        who has both. One that is not valid is the anchor itself, or 0 where the references do not
        hold it.

    Raises:
        ValueError: If a shape, a device or a number is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> p, n, valid = random_triplets(torch.randn(4, 2), torch.tensor([7, 7, 9, 3]))
        >>> p[:2, 0].tolist(), valid[:, 0].tolist()
        ([1, 0], [True, True, False, False])
    """
    pairs = all_pairs(
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        groups=groups,
        reference_groups=reference_groups,
        places=places,
    )
    _check_samples(samples)
    drawn: tuple[Tensor, Tensor, Tensor] = _uniform(
        *_tensors(pairs), _seed(seed, embeddings), samples, 0, 0.0, True, False
    )
    return drawn


def _by_distance(
    rule: str, pairs: Pairs, margin: float, metric: str, normalise: bool, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    if metric not in _METRICS:
        raise ValueError(f"metric must be one of {_METRICS}, got {metric!r}")
    if metric == "cosine":  # half of the squared distance of unit rows
        normalise, margin = True, 2 * margin
    drawn = _uniform(
        *_tensors(pairs),
        _seed(seed, pairs.rows),
        1,
        _RULES.index(rule),
        margin,
        metric != "euclidean",
        normalise,
    )
    positives, negatives, valid = (tensor[:, 0] for tensor in drawn)
    return positives, negatives, valid


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")


def _seed(seed: Tensor | None, embeddings: Tensor) -> Tensor:
    if seed is None:
        return torch.randint(2**63 - 1, (1,), device=embeddings.device)
    if seed.shape != (1,) or seed.dtype != torch.int64 or seed.device != embeddings.device:
        raise ValueError(
            f"seed must be (1,) int64 on {embeddings.device} as embeddings, got"
            f" {tuple(seed.shape)} {seed.dtype} on {seed.device}"
        )
    return seed


def _tensors(pairs: Pairs) -> tuple[Tensor | None, ...]:
    """As the ops take them; no columns where they are the rows."""
    return (
        pairs.rows.detach(),
        None if pairs.same else pairs.columns.detach(),
        pairs.row_labels,
        None if pairs.same else pairs.column_labels,
        pairs.row_groups,
        None if pairs.same else pairs.column_groups,
        pairs.places,
    )


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of unit length in the dtype of sums, 0 for 0; and which were finite."""
    unit = unit_rows(ready(x))
    return unit, unit.sum(dim=1).isfinite()


def _numbers(labels: Tensor, finite: Tensor) -> Tensor:
    """Labels, and -1 for nobody's partner."""
    return torch.where(finite, labels, -1)


def _part(numbers: Tensor | None, part: slice = _ALL) -> View | None:
    return None if numbers is None else view(numbers[part])


_SIDES = (
    "Tensor x, Tensor? y, Tensor row_labels, Tensor? column_labels, Tensor? row_groups,"
    " Tensor? column_groups, Tensor places, Tensor seed, SymInt samples"
)


def _weighted_like(
    x: Tensor,
    y: Tensor | None,
    row_labels: Tensor,
    column_labels: Tensor | None,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    seed: Tensor,
    samples: int,
    cutoff: float,
    nonzero_loss_cutoff: float,
    policy: int,
    height: int | None = None,
) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty((len(x), samples), dtype=torch.int64),
        x.new_empty((len(x), samples), dtype=torch.bool),
    )


@register(
    f"mine_sampled_weighted({_SIDES}, float cutoff, float nonzero_loss_cutoff, int policy,"
    " int? height=None) -> (Tensor, Tensor)",
    _weighted_like,
)
def _weighted(
    x: Tensor,
    y: Tensor | None,
    row_labels: Tensor,
    column_labels: Tensor | None,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    seed: Tensor,
    samples: int,
    cutoff: float,
    nonzero_loss_cutoff: float,
    policy: int,
    height: int | None = None,
) -> tuple[Tensor, Tensor]:
    drawn = negatives, valid = (
        x.new_empty((len(x), samples), dtype=torch.int64),
        x.new_empty((len(x), samples), dtype=torch.bool),
    )
    rows, finite = _unit(x)
    numbers = _numbers(row_labels, finite)
    columns, column_numbers = rows, numbers
    if y is not None and column_labels is not None:
        columns, finite = _unit(y)
        column_numbers = _numbers(column_labels, finite)
    column_groups = row_groups if y is None else column_groups
    chunks = None
    for part, strip in products(rows, columns, height=height):
        if chunks is None:
            shape = (len(strip), 2, -(-len(columns) // _CHUNK))
            chunks = x.new_empty(shape, dtype=torch.float64)
        _C.mine_sampled_weighted(
            view(strip),
            view(numbers[part]),
            view(column_numbers),
            _part(row_groups, part),
            _part(column_groups),
            view(places[part]),
            view(seed),
            view(chunks[: len(strip)]),
            view(negatives[part]),
            view(valid[part].view(torch.uint8)),
            part.start,
            (3 - x.shape[1]) / 2,
            1 - nonzero_loss_cutoff**2 / 2,
            1 - cutoff**2 / 2,
            policy,
            place(x),
        )
    return drawn


def _uniform_like(
    x: Tensor,
    y: Tensor | None,
    row_labels: Tensor,
    column_labels: Tensor | None,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    seed: Tensor,
    samples: int,
    rule: int,
    margin: float,
    squared: bool,
    normalise: bool,
    height: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (len(x), samples)
    return (
        x.new_empty(shape, dtype=torch.int64),
        x.new_empty(shape, dtype=torch.int64),
        x.new_empty(shape, dtype=torch.bool),
    )


@register(
    f"mine_sampled_uniform({_SIDES}, int rule, float margin, bool squared, bool normalise,"
    " int? height=None) -> (Tensor, Tensor, Tensor)",
    _uniform_like,
)
def _uniform(
    x: Tensor,
    y: Tensor | None,
    row_labels: Tensor,
    column_labels: Tensor | None,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    seed: Tensor,
    samples: int,
    rule: int,
    margin: float,
    squared: bool,
    normalise: bool,
    height: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (len(x), samples)
    drawn = positives, negatives, valid = (
        x.new_empty(shape, dtype=torch.int64),
        x.new_empty(shape, dtype=torch.int64),
        x.new_empty(shape, dtype=torch.bool),
    )
    column_groups = row_groups if y is None else column_groups
    rows, squares, finite = _with_squares(x, rule, normalise)
    numbers = _numbers(row_labels, finite)
    columns, column_squares, column_numbers = rows, squares, numbers
    if y is not None and column_labels is not None:
        columns, column_squares, finite = _with_squares(y, rule, normalise)
        column_numbers = _numbers(column_labels, finite)
    strips = products(rows, columns, height=height) if rule else [(slice(0, len(x)), None)]
    for part, strip in strips:
        _C.mine_sampled_uniform(
            _part(strip),
            _part(squares, part),
            _part(column_squares),
            view(numbers[part]),
            view(column_numbers),
            _part(row_groups, part),
            _part(column_groups),
            view(places[part]),
            view(seed),
            view(positives[part]),
            view(negatives[part]),
            view(valid[part].view(torch.uint8)),
            part.start,
            margin,
            rule,
            squared,
            place(x),
        )
    return drawn


def _with_squares(x: Tensor, rule: int, normalise: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Rows as their products are taken, their squared lengths, and which are finite."""
    if rule == 0:  # no distances
        return x, None, torch.linalg.vector_norm(ready(x), dim=1).isfinite()
    x = _unit(x)[0] if normalise else ready(x)
    squares = x.to(sum_dtype(x)).square().sum(dim=1)
    return x, squares, squares.isfinite()
