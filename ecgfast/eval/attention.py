"""Mean attention maps of groups of records, and how far the groups differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import LEAST_PATIENTS, MOST_UNDEFINED, Floats, replicate

LEAST_RECORDS = 6  # two of each third


@dataclass(frozen=True, kw_only=True)
class GroupMaps:
    """Mean maps of all records, of the low and the high risk group, and the groups' difference.

    Attributes:
        mean: ``(R, C)`` of all records.
        low: Of the third of the records with the lowest scores; None without scores.
        high: Of the third with the highest.
        difference: high - low.
        apart: ``(R, C)``, cells whose own interval leaves out 0; None without intervals.
        sure: Those whose simultaneous interval, which holds for all cells at once, leaves out 0.
        records: How many are in mean, low and high.
        patients: The same of patients.
        level: Of confidence.
        draws: Of patients.
        reason: Why there are no groups or no intervals.
    """

    mean: Floats
    low: Floats | None = None
    high: Floats | None = None
    difference: Floats | None = None
    apart: NDArray[np.bool_] | None = None
    sure: NDArray[np.bool_] | None = None
    records: tuple[int, int, int] = (0, 0, 0)
    patients: tuple[int, int, int] = (0, 0, 0)
    level: float = 0.95
    draws: int = 0
    reason: str | None = None


def group_maps(
    maps: ArrayLike,
    patient: ArrayLike,
    score: ArrayLike | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> GroupMaps:
    r"""Mean maps by risk, and which cells of the difference are more than chance.

    The low and the high group are the thirds of the records with the lowest and the highest score;
    equal scores go by their place. Patients are drawn with all of their records, in both groups at
    once, while the groups stay those of the sample. A cell's own interval is the percentile one: of
    144 cells that do not differ it leaves out 0 in about 7. The simultaneous one of cell c,

    .. math:: d_c \pm q\, s_c, \qquad q = Q_{level}\bigl(\max_c |d^*_c - d_c| / s_c\bigr)

    with :math:`s_c` the standard deviation of the draws :math:`d^*_c`, leaves out 0 anywhere in
    about 5 % of such comparisons.

    Args:
        maps: ``(N, R, C)``, finite.
        patient: ``(N,)`` ids.
        score: ``(N,)``, finite, a higher one for a higher risk; None makes no groups.
        draws: Of patients.
        seed: Of the draws.
        level: Of confidence.

    Raises:
        ValueError: Shapes do not match, there are no records, or something is not finite.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> maps, score = draw.random((60, 2, 2)), np.arange(60.0)
        >>> maps[40:, 0, 1] += 1
        >>> group_maps(maps, np.arange(60), score, draws=200).sure.tolist()
        [[False, True], [False, False]]
    """
    x, ids = np.asarray(maps, np.float64), np.asarray(patient)
    if x.ndim != 3 or ids.shape != x.shape[:1]:
        raise ValueError(f"maps must be (N, R, C) and patient (N,), got {x.shape}, {ids.shape}")
    if not len(x):
        raise ValueError("no maps to average")
    _finite("maps", x)
    everyone = {"mean": x.mean(axis=0), "level": level}
    number = (len(x), _count(ids))
    if score is None:
        return GroupMaps(
            **everyone,
            records=(number[0], 0, 0),
            patients=(number[1], 0, 0),
            reason="this run gives no score to group by",
        )
    scores = np.asarray(score, np.float64)
    if scores.shape != ids.shape:
        raise ValueError(f"score must be ({len(x)},), got {scores.shape}")
    _finite("scores", scores)
    if len(x) < LEAST_RECORDS:
        return GroupMaps(
            **everyone,
            records=(number[0], 0, 0),
            patients=(number[1], 0, 0),
            reason=f"groups need {LEAST_RECORDS} records, {len(x)} here",
        )
    order, third = np.argsort(scores, kind="stable"), len(x) // 3
    low, high = np.sort(order[:third]), np.sort(order[-third:])
    means = [x[some].mean(axis=0) for some in (low, high)]
    found: dict[str, Any] = {
        **everyone,
        "low": means[0],
        "high": means[1],
        "difference": means[1] - means[0],
        "records": (number[0], len(low), len(high)),
        "patients": (number[1], _count(ids[low]), _count(ids[high])),
    }
    fewest = min(found["patients"][1:])
    if fewest < LEAST_PATIENTS:
        why = f"intervals need {LEAST_PATIENTS} patients in each group, {fewest} here"
        return GroupMaps(**found, reason=why)
    both = np.concatenate([low, high])
    sides = np.arange(len(both)) < len(low)
    flat = x[both].reshape(len(both), -1)

    def statistic(weights: Floats) -> dict[str, Floats]:
        mean = []
        for side in (sides, ~sides):
            mine = weights[:, side]
            with np.errstate(invalid="ignore"):  # nobody of a group was drawn
                mean.append(mine @ flat[side] / mine.sum(axis=1, keepdims=True))
        return {"difference": mean[1] - mean[0]}

    values = replicate(statistic, ids[both], draws=draws, seed=seed)["difference"]
    defined = np.isfinite(values).all(axis=1)
    if (~defined).sum() > MOST_UNDEFINED * draws:
        why = f"a group is empty in {int((~defined).sum())} of {draws} draws"
        return GroupMaps(**found, reason=why)
    values, shape = values[defined], x.shape[1:]
    estimate = found["difference"].reshape(-1)
    lo, hi = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    spread = values.std(axis=0)
    moves = np.where(spread > 0, spread, np.inf)  # a cell that never moves is never sure
    most = np.quantile((np.abs(values - estimate) / moves).max(axis=1), level)
    return GroupMaps(
        **found,
        apart=(((lo > 0) | (hi < 0)) & (spread > 0)).reshape(shape),
        sure=(np.abs(estimate) > most * moves).reshape(shape),
        draws=int(defined.sum()),
    )


def _finite(name: str, values: Floats) -> None:
    wrong = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if wrong.any():
        raise ValueError(
            f"{name} of {int(wrong.sum())} of {len(values)} records are not finite (first: row "
            f"{int(wrong.argmax())}); leave these records out"
        )


def _count(ids: NDArray[Any]) -> int:
    return len(np.unique(ids))
