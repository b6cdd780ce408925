"""The nearest and the farthest partners of each row, exactly; never N x N."""

from __future__ import annotations

import torch
from torch import Tensor

from ecgfast import _C
from ecgfast.ops import _pairs, _strips
from ecgfast.ops._extremes import (
    NEGATIVES,
    POSITIVES,
    Mined,
    check_distances,
    checked_labels,
    checked_pairs,
    sides,
)
from ecgfast.ops._extremes import batch_hard_reference as batch_hard_reference
from ecgfast.ops._extremes import label_distance_reference as label_distance_reference
from ecgfast.ops._extremes import nearest_farthest_reference as nearest_farthest_reference
from ecgfast.ops._native import place, ready, register, sum_dtype, view


@torch.no_grad()
def batch_hard(
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
    positive: str = "hardest",
    negative: str = "hardest",
) -> Mined:
    r"""Finds the hardest positive and the hardest negative of every anchor, or easier ones.

    .. math:: p_i = \arg\max_{j \ne i,\, y_j = y_i} d_{ij}, \quad
              n_i = \arg\min_{y_j \ne y_i} d_{ij}

    Batch-hard mining (Hermans, Beyer, Leibe: In defense of the triplet loss for person
    re-identification, 2017). With ``negative="semihard"`` the negative is the nearest that is
    farther than the chosen positive, the deterministic form of FaceNet's (Schroff, Kalenichenko,
    Philbin, 2015); where all negatives are nearer there is none.

    The answer is what differences say, :math:`\sum_d (x_{id} - y_{jd})^2` in the dtype of sums: a
    matrix product only rules out what cannot be it, by a bound on its rounding, and what is left,
    mostly one or two rows, is measured. So near rows far from the origin are told apart, equal rows
    tie exactly, ties go to the lowest index, and neither the number of threads nor the height of
    the strips shows. The price: where thousands of rows are near ties, as in a collapsed batch, all
    of them are measured. Memory is one strip of products, O(N) and, to normalise, a copy of the
    rows. Autocast does not touch it, and no device is waited for.

    A row with a NaN, an infinity, or a length whose square overflows is nobody's partner and not
    valid itself; so is a zero row with ``metric="cosine"``: it has no direction.

    Args:
        embeddings: Anchors ``(N, D)``, any float dtype and strides.
        labels: ``(N,)``, any integers. Equal ones are positives of each other.
        references: ``(M, D)``, where partners are looked for; None: among the anchors.
        reference_labels: ``(M,)``, with references.
        groups: ``(N,)`` integers: rows of a group (a patient) are never negatives of each other.
        reference_groups: ``(M,)``, with groups and references.
        places: ``(N,)`` int64: which reference is the anchor itself, -1 for none.
        metric: ``"euclidean"`` (in the order of its square) or ``"cosine"``.
        normalise: Brings the rows to length 1 first, as cosine always does; a zero row stays zero.
        positive: ``"hardest"``, the farthest, or ``"easiest"``, the nearest.
        negative: ``"hardest"``, the nearest, ``"easiest"``, the farthest, or ``"semihard"``.

    Returns:
        Positives, negatives and which are valid, ``(N,)`` each. Not differentiable.

    Raises:
        ValueError: If a shape, a device or a word is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> batch_hard(line, torch.tensor([0, 0, 1, 1])).negatives
        tensor([2, 2, 1, 1])
    """
    pairs = checked_pairs(
        embeddings,
        labels,
        (references, reference_labels, groups, reference_groups, places),
        (metric, positive, negative),
    )
    ids = (pairs.row_labels, pairs.column_labels, pairs.row_groups, pairs.column_groups)
    columns = None if pairs.same else pairs.columns.detach()
    words = (metric, normalise, positive, negative)
    return Mined(*_hard(pairs.rows.detach(), columns, *ids, pairs.places, *words, None))


@torch.no_grad()
def label_distance(
    values: Tensor,
    *,
    reference_values: Tensor | None = None,
    groups: Tensor | None = None,
    reference_groups: Tensor | None = None,
    places: Tensor | None = None,
    max_gap: float | None = None,
    groups_apart: bool = False,
) -> Mined:
    r"""Finds the record of the nearest label and the record of the farthest, for every record.

    .. math:: p_i = \arg\min_{j \ne i} |t_i - t_j|, \quad n_i = \arg\max_{j \ne i} |t_i - t_j|

    Mining for continuous targets, as a pressure in mmHg (Jeong, Stultz, Ghassemi: Deep metric
    learning for the hemodynamics inference with electrocardiogram signals, MLHC 2023). Ties go to
    the lowest index. A record is not valid if its label is missing, if no partner is left, if the
    nearest label is more than ``max_gap`` away, or if the farthest label is not strictly farther
    than the nearest. Time O(N M), memory O(N); no device is waited for.

    Args:
        values: Labels ``(N,)``, floats or integers; NaN where missing, infinities are too.
        reference_values: ``(M,)`` of the same dtype, where partners are looked for; None: among
            the values.
        groups: ``(N,)`` integers: records of a group (a patient) are never negatives of each other.
        reference_groups: ``(M,)``, with groups and reference values.
        places: ``(N,)`` int64: which reference is the record itself, -1 for none.
        max_gap: How far the positive's label may lie, in the unit of the labels; None: anywhere.
        groups_apart: Records of a group are not positives of each other either.

    Returns:
        Positives, negatives and which are valid, ``(N,)`` each.

    Raises:
        ValueError: If a shape, a device or ``max_gap`` is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> mined = label_distance(torch.tensor([12.0, 14.0, 30.0, torch.nan]), max_gap=5)
        >>> mined.positives, mined.negatives, mined.valid
        (tensor([1, 0, 2, 3]), tensor([2, 2, 2, 3]), tensor([ True,  True, False, False]))
    """
    rows, columns, row_groups, column_groups, places, max_gap = checked_labels(
        values, reference_values, groups, reference_groups, places, max_gap, groups_apart
    )
    ids = (row_groups, column_groups, places)
    return Mined(*_labels(rows, columns, *ids, max_gap, groups_apart))


@torch.no_grad()
def nearest_farthest(
    distances: Tensor,
    *,
    eligible: Tensor | None = None,
    places: Tensor | None = None,
    k_far: int = 2,
) -> tuple[Tensor, Tensor]:
    """Finds the nearest column and the ``k_far`` farthest, in order, of every row of distances.

    Rows may be a strip of a larger matrix. Ties go to the lowest index, on both sides. A NaN is no
    distance, infinities are. Time O(R M K), no sort, and no copy of the distances.

    Args:
        distances: ``(R, M)``, any float dtype and strides.
        eligible: ``(M,)`` bool, the columns that may be found; None: all.
        places: ``(R,)`` int64, the column that is the row itself and is not found; -1 for none,
            None for none of all.
        k_far: How many of the farthest.

    Returns:
        Nearest ``(R,)`` and farthest ``(R, k_far)``, int64; -1 where there is none.

    Raises:
        ValueError: If a shape, a device or ``k_far`` is not as above.
        TypeError: If a dtype is not as above.

    Example:
        >>> nearest_farthest(torch.tensor([[5.0, 1.0, 9.0, 5.0]]), k_far=3)
        (tensor([1]), tensor([[2, 0, 3]]))
    """
    check_distances(distances, eligible, places, k_far)
    if eligible is None:
        eligible = distances.new_ones(distances.shape[1], dtype=torch.bool)
    places = _pairs.where(places, distances, same=False)
    found: tuple[Tensor, Tensor] = _rows(distances.detach(), eligible, places, k_far)
    return found


def _slack(x: Tensor) -> float:
    """What rounding may do to a product of two rows, in parts of the mean of their squares."""
    slack = (x.shape[1] + 16) * torch.finfo(sum_dtype(x)).eps
    if sum_dtype(x) == torch.float64:
        return slack
    if x.is_cuda:  # TF32, or halves in some order
        return slack + 2**-9
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:
        rounded = torch.get_float32_matmul_precision() != "highest"
    else:
        rounded = matmul.fp32_precision in ("tf32", "bf16")
    return slack + 2**-7 if rounded else slack


def _mined_like(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    indices = [x.new_empty(len(x), dtype=torch.int64) for _ in range(2)]
    return indices[0], indices[1], x.new_empty(len(x), dtype=torch.bool)


def _hard_like(
    rows: Tensor,
    columns: Tensor | None,
    row_labels: Tensor,
    column_labels: Tensor,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    metric: str,
    normalise: bool,
    positive: str,
    negative: str,
    height: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _mined_like(rows)


@register(
    "mine_extreme_pairs(Tensor rows, Tensor? columns, Tensor row_labels, Tensor column_labels,"
    " Tensor? row_groups, Tensor? column_groups, Tensor places, str metric, bool normalise,"
    " str positive, str negative, int? height) -> (Tensor, Tensor, Tensor)",
    _hard_like,
)
def _hard(
    rows: Tensor,
    columns: Tensor | None,
    row_labels: Tensor,
    column_labels: Tensor,
    row_groups: Tensor | None,
    column_groups: Tensor | None,
    places: Tensor,
    metric: str,
    normalise: bool,
    positive: str,
    negative: str,
    height: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    found = _mined_like(rows)
    rows, row_halves = sides(ready(rows), metric, normalise)
    own = (rows, row_halves)
    columns, column_halves = own if columns is None else sides(ready(columns), metric, normalise)
    ids = [row_labels, row_labels if row_groups is None else row_groups, places]
    ids = [each.contiguous() for each in ids]
    column_ids = [column_labels, column_labels if column_groups is None else column_groups]
    column_views = [view(each.contiguous()) for each in column_ids]
    outputs = (found[0], found[1], found[2].view(torch.uint8))
    slack = _slack(rows)
    for part, strip in _strips.products(rows, columns, height=height):
        labels, groups, own_places = (view(each[part]) for each in ids)
        _C.mine_extreme_pairs(
            view(strip),
            view(rows[part]),
            view(columns),
            view(row_halves[part]),
            view(column_halves),
            labels,
            column_views[0],
            groups,
            column_views[1],
            own_places,
            *(view(each[part]) for each in outputs),
            slack,
            POSITIVES.index(positive),
            NEGATIVES.index(negative),
            place(rows),
        )
    return found


def _labels_like(
    rows: Tensor,
    columns: Tensor,
    row_groups: Tensor,
    column_groups: Tensor,
    places: Tensor,
    max_gap: float,
    groups_apart: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _mined_like(rows)


@register(
    "mine_extreme_labels(Tensor rows, Tensor columns, Tensor row_groups, Tensor column_groups,"
    " Tensor places, float max_gap, bool groups_apart) -> (Tensor, Tensor, Tensor)",
    _labels_like,
)
def _labels(
    rows: Tensor,
    columns: Tensor,
    row_groups: Tensor,
    column_groups: Tensor,
    places: Tensor,
    max_gap: float,
    groups_apart: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    positives, negatives, valid = found = _mined_like(rows)
    inputs = [each.contiguous() for each in (rows, columns, row_groups, column_groups, places)]
    outputs = (positives, negatives, valid.view(torch.uint8))
    views = (*map(view, inputs), *map(view, outputs))
    _C.mine_extreme_labels(*views, max_gap, groups_apart, place(rows))
    return found


def _rows_like(
    distances: Tensor, eligible: Tensor, places: Tensor, k_far: int
) -> tuple[Tensor, Tensor]:
    return (
        distances.new_empty(len(distances), dtype=torch.int64),
        distances.new_empty((len(distances), k_far), dtype=torch.int64),
    )


@register(
    "mine_extreme_rows(Tensor distances, Tensor eligible, Tensor places, int k_far)"
    " -> (Tensor, Tensor)",
    _rows_like,
)
def _rows(distances: Tensor, eligible: Tensor, places: Tensor, k_far: int) -> tuple[Tensor, Tensor]:
    nearest, farthest = found = _rows_like(distances, eligible, places, k_far)
    distances = ready(distances.to(sum_dtype(distances)))
    mask = eligible.contiguous().view(torch.uint8)
    views = map(view, (distances, mask, places.contiguous(), nearest, farthest))
    _C.mine_extreme_rows(*views, place(distances))
    return found
