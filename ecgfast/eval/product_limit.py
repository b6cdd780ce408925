"""Kaplan-Meier's product for all draws at once: of events, or of censoring."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgfast.eval.bootstrap import Floats


class ProductLimit:
    """The chance to be beyond a time, from weights ``(B, N)``.

    At one time events come before censoring: who is censored at t was at risk of an event at t, and
    who had an event at t was no longer at risk of being censored. Then, at every time, the chance
    to be without event times the chance to be uncensored is the share still observed, so that an
    inverse weight is never above one over that share.

    Args:
        time: ``(N,)``.
        event: ``(N,)`` 1 or 0.
        censoring: Whether the curve falls where records are censored, or where events are.

    Example:
        >>> import numpy as np
        >>> km = ProductLimit(np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 1.0]))
        >>> km.after(np.ones((1, 3)), [0.5, 1.0, 2.5, 3.0]).round(3).tolist()
        [[1.0, 0.667, 0.667, 0.0]]
    """

    def __init__(self, time: Floats, event: Floats, *, censoring: bool = False) -> None:
        steps, code = np.unique(np.stack([time, 1 - event]), axis=1, return_inverse=True)
        self._code: NDArray[np.int64] = code.reshape(-1)
        self._order = np.argsort(self._code, kind="stable")
        self._starts = np.searchsorted(self._code[self._order], np.arange(steps.shape[1]))
        self._time: Floats = steps[0]
        self._falls = (steps[1] == 1) == censoring

    def _curve(self, weights: Floats) -> Floats:
        """``(B, 1 + K)``: 1, then the value after each of the K steps."""
        leave = np.add.reduceat(weights[:, self._order], self._starts, axis=1)
        risk = np.cumsum(leave[:, ::-1], axis=1)[:, ::-1]
        share = np.divide(leave, risk, out=np.zeros_like(leave), where=(risk > 0) & self._falls)
        return np.concatenate([np.ones((len(weights), 1)), np.cumprod(1 - share, axis=1)], axis=1)

    def before(self, weights: Floats) -> Floats:
        """``(B, N)``: the chance to reach each record's own time, which itself does not count."""
        return self._curve(weights)[:, self._code]

    def after(self, weights: Floats, at: ArrayLike) -> Floats:
        """``(B, M)``: the chance to be beyond each of M times."""
        place = np.searchsorted(self._time, np.asarray(at, np.float64), side="right")
        return self._curve(weights)[:, place]
