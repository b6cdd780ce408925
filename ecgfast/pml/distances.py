"""Distances of pairs, under the names of pytorch-metric-learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.ops import pair_distance, pairwise_distance
from ecgfast.pml._tuples import refuse_statistics


class BaseDistance(nn.Module):
    """How far, or how alike, rows of embeddings are.

    A subclass gives ``compute_mat`` and ``pairwise_distance``; both see rows that are normalised
    already, if they are to be.

    Args:
        normalize_embeddings: Divide every row by its p-norm first; a zero row stays zero.
        p: Of that norm, and of the distance where it has one.
        power: To which distances are raised.
        is_inverted: Larger is nearer: a similarity.
        collect_stats: Statistics are not collected here: None or False.
    """

    def __init__(
        self,
        normalize_embeddings: bool = True,
        p: float = 2,
        power: float = 1,
        is_inverted: bool = False,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__()
        refuse_statistics(collect_stats)
        self.normalize_embeddings = normalize_embeddings
        self.p = p
        self.power = power
        self.is_inverted = is_inverted

    def forward(self, query_emb: Tensor, ref_emb: Tensor | None = None) -> Tensor:
        """The matrix ``(N, M)`` of rows ``(N, D)`` and ``(M, D)``, or of the rows with themselves.

        Half embeddings are widened: the matrix is float32, or float64 for float64.
        """
        for name, rows in (("query_emb", query_emb), ("ref_emb", ref_emb)):
            if rows is not None and rows.dim() != 2:
                raise ValueError(f"{name} must be (rows, D), got {tuple(rows.shape)}")
        with torch.autocast(query_emb.device.type, enabled=False):
            query = self.maybe_normalize(wide(query_emb))
            itself = ref_emb is None or ref_emb is query_emb
            ref = query if ref_emb is None or itself else self.maybe_normalize(wide(ref_emb))
            mat = self.compute_mat(query, ref)
            return mat if self.power == 1 else mat**self.power

    def listed(self, query_emb: Tensor, ref_emb: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Entries ``(K,)`` of the matrix at ``rows`` and ``columns``, each ``(K,)``.

        Few pairs are computed one by one; many are read from the matrix, which is then no larger
        than the lists are.
        """
        if 4 * len(rows) >= len(query_emb) * len(ref_emb):
            return self(query_emb, ref_emb)[rows, columns]
        with torch.autocast(query_emb.device.type, enabled=False):
            query = self.maybe_normalize(wide(query_emb))
            same = ref_emb is query_emb
            ref = query if same else self.maybe_normalize(wide(ref_emb))
            metric = self._metric()
            if metric is None:
                values = self.pairwise_distance(query[rows], ref[columns])
            else:
                values = pair_distance(query, rows, columns, None if same else ref, metric=metric)
            return values if self.power == 1 else values**self.power

    def _metric(self) -> str | None:
        """The metric of ``pair_distance`` that this is, if it is one: no rows are gathered then."""
        return None

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """All pairs, ``(N, M)``, before the power."""
        raise NotImplementedError

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Row by row, ``(K,)``, before the power."""
        raise NotImplementedError

    def smallest_dist(self, x: Tensor, y: Tensor) -> Tensor:
        """The nearer of two, element by element."""
        return torch.maximum(x, y) if self.is_inverted else torch.minimum(x, y)

    def largest_dist(self, x: Tensor, y: Tensor) -> Tensor:
        """The farther of two, element by element."""
        return torch.minimum(x, y) if self.is_inverted else torch.maximum(x, y)

    def margin(self, x: Tensor | float, y: Tensor | float) -> Tensor:
        """By how much x is farther than y."""
        return y - x if self.is_inverted else x - y  # type: ignore[return-value]

    def normalize(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """Rows divided by their p-norm."""
        return nn.functional.normalize(embeddings, p=self.p, dim=dim)

    def maybe_normalize(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """Rows as the distance takes them."""
        return self.normalize(embeddings, dim) if self.normalize_embeddings else embeddings

    def get_norm(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """The p-norm of rows."""
        return torch.linalg.vector_norm(embeddings, ord=self.p, dim=dim)

    def extra_repr(self) -> str:
        """The hyper-parameters."""
        return (
            f"normalize_embeddings={self.normalize_embeddings}, p={self.p}, power={self.power},"
            f" is_inverted={self.is_inverted}"
        )


class LpDistance(BaseDistance):
    """The p-norm of the difference of two rows, raised to ``power``.

    Differences are taken before sums, so near rows lose no digits and equal rows are at 0 exactly,
    with gradient 0: in ``torch.cdist`` neither holds. A half is computed in float32.
    """

    def __init__(
        self,
        normalize_embeddings: bool = True,
        p: float = 2,
        power: float = 1,
        is_inverted: bool = False,
        collect_stats: bool | None = None,
    ) -> None:
        if is_inverted:
            raise ValueError("LpDistance is a distance: is_inverted must be False")
        super().__init__(normalize_embeddings, p, power, is_inverted, collect_stats)

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """All pairs, ``(N, M)``."""
        metric = "euclidean" if self.p == 2 else "l1"
        if self.p not in (1, 2) or not len(query_emb) or not len(ref_emb):
            return torch.cdist(query_emb, ref_emb, p=self.p)
        return pairwise_distance(
            query_emb, None if ref_emb is query_emb else ref_emb, metric=metric
        )

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Row by row, ``(K,)``."""
        return torch.linalg.vector_norm(query_emb - ref_emb, ord=self.p, dim=1)

    def _metric(self) -> str | None:
        own = type(self).pairwise_distance is LpDistance.pairwise_distance
        return "euclidean" if own and self.p == 2 else None


class DotProductSimilarity(BaseDistance):
    """The scalar product of two rows, by default of rows at length 1."""

    def __init__(
        self,
        normalize_embeddings: bool = True,
        p: float = 2,
        power: float = 1,
        is_inverted: bool = True,
        collect_stats: bool | None = None,
    ) -> None:
        if not is_inverted:
            raise ValueError(f"{type(self).__name__} is a similarity: is_inverted must be True")
        super().__init__(normalize_embeddings, p, power, is_inverted, collect_stats)

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """All pairs, ``(N, M)``."""
        return query_emb @ ref_emb.mT

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Row by row, ``(K,)``."""
        return (query_emb * ref_emb).sum(dim=1)

    def _metric(self) -> str | None:
        own = type(self).pairwise_distance is DotProductSimilarity.pairwise_distance
        return "dot" if own else None


class CosineSimilarity(DotProductSimilarity):
    """The cosine of two rows; a zero row has cosine 0 with all."""

    def __init__(
        self,
        p: float = 2,
        power: float = 1,
        is_inverted: bool = True,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(True, p, power, is_inverted, collect_stats)


def hinge_words(distance: BaseDistance) -> dict[str, Any] | None:
    """The metric of the ops on all distances that a distance is; None: it is none of them.

    A similarity is there 1 minus the cosine, so that thresholds are 1 minus its own.
    """
    if type(distance) is LpDistance and distance.p == 2 and distance.power in (1, 2):
        metric = "euclidean" if distance.power == 1 else "sqeuclidean"
        return {"metric": metric, "normalise": distance.normalize_embeddings}
    words = similarity_words(distance)
    return {"metric": "cosine"} if words == {"normalise": True} else None


def order_words(distance: BaseDistance) -> dict[str, Any] | None:
    """The metric of ``batch_hard`` in whose order a distance is; None: in that of none."""
    if type(distance) is LpDistance and distance.p == 2 and distance.power > 0:
        return {"metric": "euclidean", "normalise": distance.normalize_embeddings}
    return {"metric": "cosine"} if similarity_words(distance) == {"normalise": True} else None


def similarity_words(distance: BaseDistance) -> dict[str, Any] | None:
    """How the ops on all products normalise, if the distance is a product; else None."""
    if type(distance) not in (DotProductSimilarity, CosineSimilarity) or distance.power != 1:
        return None
    if distance.normalize_embeddings and distance.p != 2:
        return None
    return {"normalise": distance.normalize_embeddings}


def wide(rows: Tensor) -> Tensor:
    """Rows in the dtype of sums: a half as float32."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
