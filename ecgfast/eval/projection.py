"""Embeddings on a plane, to look at."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ecgfast.eval.bootstrap import Floats


def project(
    embeddings: ArrayLike, *, method: Literal["pca", "tsne"] = "pca", seed: int = 0
) -> tuple[Floats, tuple[str, str]]:
    """Two coordinates for each embedding, and what to write on the axes.

    Distances on a t-SNE map mean little beyond who is near whom; a PCA map keeps the directions in
    which the embeddings vary most.

    Args:
        embeddings: ``(N, D)``, three records at least, D at least 2.
        method: pca or tsne.
        seed: Of t-SNE.

    Returns:
        ``(N, 2)`` coordinates and the names of the axes.

    Raises:
        ValueError: If there are too few records, or all are the same point.
    """
    x = np.asarray(embeddings, np.float64)
    if x.ndim != 2 or len(x) < 3 or x.shape[1] < 2:
        raise ValueError(f"a map needs 3 embeddings of 2 numbers at least, got {x.shape}")
    spread = np.ptp(x, axis=0).max()
    if not np.isfinite(spread) or spread == 0:
        raise ValueError("all embeddings are the same point" if spread == 0 else "not finite")
    if method == "tsne":
        perplexity = min(30.0, (len(x) - 1) / 3)
        map_ = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x)
        return map_.astype(np.float64), ("t-SNE 1", "t-SNE 2")
    pca = PCA(n_components=2, svd_solver="full").fit(x)
    share = [f"{100 * s:.0f} % of variance" for s in pca.explained_variance_ratio_]
    return pca.transform(x), (f"PC 1 ({share[0]})", f"PC 2 ({share[1]})")
