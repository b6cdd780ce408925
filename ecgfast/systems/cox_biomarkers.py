"""A penalised Cox model on columns of numbers, ECG biomarkers above all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ecgfast.data.tables import frame
from ecgfast.ops import cox_loss

Floats = NDArray[np.float64]
Table = Mapping[str, ArrayLike]
PENALTIES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
FOLDS = 5
TIME, EVENT = "time of the fit", "event of the fit"  # no column of a table has such a name


@dataclass(frozen=True)
class CoxModel:
    """Proportional hazards on standardised columns.

    Attributes:
        columns: Their names, in order.
        median: Of each in training: what a missing value is taken for.
        mean: Of each in training, after that.
        sd: Likewise.
        beta: Log hazard ratio of one standard deviation.
        penalty: Which of those tried was taken.
        tried: Mean held-out log likelihood a record of each penalty; empty for a given one.
        missing: How many training values of each column were missing.
    """

    columns: tuple[str, ...]
    median: Floats
    mean: Floats
    sd: Floats
    beta: Floats
    penalty: float
    tried: dict[float, float]
    missing: NDArray[np.int64]

    def log_hazard(self, table: Table) -> Floats:
        """Log hazards of records against the mean training record, ``(N,)``; higher is earlier.

        Raises:
            ValueError: A column is not there, or infinite.
        """
        values = _matrix(table, self.columns)
        filled = np.where(np.isnan(values), self.median, values)
        hazard: Floats = (filled - self.mean) / self.sd @ self.beta
        return hazard


def fit_cox(
    table: Table,
    time: ArrayLike,
    event: ArrayLike,
    *,
    columns: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    penalties: Sequence[float] = PENALTIES,
    folds: int = FOLDS,
    seed: int = 0,
) -> CoxModel:
    """Fits Cox's model (lifelines, Efron's ties) with a ridge penalty that the table chooses.

    Missing values become the column's median, columns get mean 0 and standard deviation 1. Of
    several penalties the one is taken whose log likelihood of held-out records is highest over
    folds of whole groups; events are spread evenly over the folds, in each of which medians and
    scales are learned anew. All of it sees the training table alone. Angles (axes) enter as
    numbers: 179 and -179 degrees count as far apart.

    Args:
        table: Training columns ``(N,)``, NaN where missing; other columns than named are ignored.
        time: ``(N,)`` until the event or until there was none, positive.
        event: ``(N,)``, 1 where it was seen.
        columns: Names; none takes all of the table.
        groups: ``(N,)``, whose record it is; none takes each for itself.
        penalties: To choose from, as lifelines has them (``penalizer``); a single one is taken.
        folds: How many; fewer where fewer groups have an event.
        seed: Of the folds.

    Returns:
        A `CoxModel`.

    Raises:
        ValueError: No events, fewer than two groups with one, columns that are constant or have no
            value, values that are infinite, or a fit that does not converge.
        ImportError: lifelines is not there.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> x = draw.normal(size=200)
        >>> model = fit_cox({"x": x}, draw.exponential(np.exp(-x)), np.ones(200), penalties=[0.0])
        >>> bool(abs(model.beta[0] - 1) < 0.2)
        True
    """
    names = tuple(columns if columns is not None else table)
    values = _matrix(table, names)
    times, events = _outcome(time, event, len(values))
    whose = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    if len(whose) != len(values):
        raise ValueError(f"groups must be ({len(values)},), got ({len(whose)},)")
    if not len(penalties) or min(penalties) < 0:
        raise ValueError(f"penalties must be one or more numbers of at least 0, got {penalties}")
    _check_columns(values, names)
    tried: dict[float, float] = {}
    if len(penalties) > 1:
        fold = _folds(whose, events, folds, seed)
        tried = {p: _held_out(values, times, events, fold, p) for p in penalties}
    penalty = float(max(tried, key=lambda p: (tried[p], p)) if tried else penalties[0])
    median, mean, sd, beta = _fit(values, times, events, penalty)
    missing = np.isnan(values).sum(axis=0)
    return CoxModel(names, median, mean, sd, beta, penalty, tried, missing)


def _fit(
    values: Floats, time: Floats, event: Floats, penalty: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Medians, means, standard deviations and coefficients."""
    median = np.nanmedian(values, axis=0)
    filled = np.where(np.isnan(values), median, values)
    mean, sd = filled.mean(axis=0), filled.std(axis=0)
    fitter = _fitter()(penalizer=penalty)
    table = _frame((filled - mean) / np.where(sd > 0, sd, 1.0), time, event)
    try:
        fitter.fit(table, TIME, EVENT)
    except Exception as error:  # lifelines has errors of its own for singular matrices
        raise ValueError(
            f"Cox's model does not converge at penalty {penalty:g}: {str(error).splitlines()[0]}; "
            "take larger penalties, or leave out columns that say the same"
        ) from error
    return median, mean, np.where(sd > 0, sd, 1.0), fitter.params_.to_numpy(np.float64)


def _held_out(
    values: Floats, time: Floats, event: Floats, fold: NDArray[np.int64], penalty: float
) -> float:
    """Mean log likelihood a record of what is held out; minus infinity where a fit fails."""
    total = 0.0
    for k in range(fold.max() + 1):
        inside, outside = fold != k, fold == k
        usable = np.isfinite(values[inside]).any(axis=0)
        try:
            found = _fit(values[inside][:, usable], time[inside], event[inside], penalty)
        except ValueError:
            return -np.inf
        median, mean, sd, beta = found
        x = values[outside][:, usable]
        hazard = (np.where(np.isnan(x), median, x) - mean) / sd @ beta
        rows = (torch.from_numpy(column) for column in (hazard, time[outside], event[outside]))
        total -= float(cox_loss(*rows)) * float(event[outside].sum())  # Efron's, as lifelines has
    return total / len(values)


def _folds(whose: NDArray[Any], event: Floats, folds: int, seed: int) -> NDArray[np.int64]:
    """A fold of each record: groups stay whole, those with events are dealt first."""
    groups = int(whose.max()) + 1
    has_event = np.bincount(whose, event, groups) > 0
    count = min(folds, int(has_event.sum()))
    if count < 2:
        raise ValueError(
            f"choosing a penalty takes events of 2 patients or more, {int(has_event.sum())} of "
            f"{groups} have one: give a single penalty, or add records"
        )
    order = np.random.default_rng(seed).permutation(groups)
    order = order[np.argsort(~has_event[order], kind="stable")]
    fold = np.empty(groups, np.int64)
    fold[order] = np.arange(groups) % count
    return fold[whose]


def _outcome(time: ArrayLike, event: ArrayLike, count: int) -> tuple[Floats, Floats]:
    times, events = np.asarray(time, np.float64), np.asarray(event, np.float64)
    if times.shape != (count,) or events.shape != (count,):
        raise ValueError(f"time and event must be ({count},), got {times.shape} and {events.shape}")
    if bad := int((~np.isfinite(times) | (times <= 0)).sum()):
        raise ValueError(f"time must be finite and positive, {bad} of {count} are not")
    if bad := int((~np.isin(events, (0, 1))).sum()):
        raise ValueError(f"event must be 0 or 1, {bad} of {count} are not")
    if not events.any():
        raise ValueError(f"none of {count} records has an event: there is no hazard to learn")
    return times, events


def _matrix(table: Table, names: Sequence[str]) -> Floats:
    absent = [name for name in names if name not in table]
    if absent or not names:
        raise ValueError(f"the table has no column {', '.join(absent) or 'at all'}")
    columns = [np.asarray(table[name], np.float64) for name in names]
    shapes = {column.shape for column in columns}
    if len(shapes) > 1 or columns[0].ndim != 1:
        raise ValueError(f"columns must be (N,), all alike, got {sorted(shapes)}")
    values = np.stack(columns, axis=1)
    endless = [n for n, x in zip(names, columns, strict=True) if np.isinf(x).any()]
    if endless:
        raise ValueError(f"column {', '.join(endless)} has infinite values; NaN is what is missing")
    return values


def _check_columns(values: Floats, names: Sequence[str]) -> None:
    empty = [n for n, x in zip(names, values.T, strict=True) if np.isnan(x).all()]
    if empty:
        raise ValueError(f"column {', '.join(empty)} has no value in training: leave it out")
    same = [n for n, x in zip(names, values.T, strict=True) if np.nanmin(x) == np.nanmax(x)]
    if same:
        raise ValueError(f"column {', '.join(same)} is constant in training: leave it out")


def _frame(values: Floats, time: Floats, event: Floats) -> Any:
    columns = {f"x{i}": column for i, column in enumerate(values.T)}
    return frame({**columns, TIME: time, EVENT: event})


def _fitter() -> Any:
    try:
        from lifelines import CoxPHFitter
    except ImportError as error:
        raise ImportError("Cox's model needs lifelines: pip install 'ecgfast[survival]'") from error
    return CoxPHFitter
