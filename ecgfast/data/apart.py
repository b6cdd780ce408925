"""Pairs of a patient's records that lie some time apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgfast.data.records import DataError

DATES = ("recording_date", "date", "datetime", "acquisition_date", "time")  # the first that is one
DAY = 86_400  # seconds


class Apart(NamedTuple):
    """Partners of each record: those of its group that are far enough from it in time.

    Records lie in the order of groups and times, so that a record's partners are all before one
    place and all from another place on: a patient of a thousand records costs no matrix.

    Attributes:
        order: ``(N,)`` records, by group and time.
        begin: ``(N,)`` of each record: where its group begins in ``order``.
        before: Where those end that are early enough.
        after: Where those begin that are late enough.
        end: Where its group ends; a record without a time has no partner.
    """

    order: NDArray[np.int64]
    begin: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    end: NDArray[np.int64]

    @classmethod
    def of_times(cls, group: NDArray[np.int64], time: NDArray[np.float64], gap: float) -> Apart:
        """From groups and times.

        Args:
            group: ``(N,)``, a patient's code say.
            time: ``(N,)`` seconds, NaN where nobody knows.
            gap: Seconds between the two of a pair, or more.
        """
        known = np.isfinite(time)
        wait = max(1, round(gap))
        seconds = np.zeros(len(time), np.int64)
        seconds[known] = np.rint(time[known] - time[known].min()) if known.any() else 0
        span = int(seconds.max(initial=0)) + wait + 1
        # those without a time stand in a group of their own, in which nobody is looked for
        place = np.unique(group, return_inverse=True)[1].astype(np.int64)
        place = np.where(known, place, place.max(initial=0) + 1)
        line = place * (2 * span) + seconds  # whole numbers: exactly a gap apart is a gap apart
        order = np.argsort(line, kind="stable").astype(np.int64)
        ranked = line[order]
        first = place * (2 * span)

        def find(value: NDArray[np.int64], side: str) -> NDArray[np.int64]:
            found: NDArray[np.int64] = np.searchsorted(ranked, value, side=side)  # type: ignore[call-overload]
            return found.astype(np.int64)

        begin, end = find(first, "left"), find(first + span, "left")
        before = np.maximum(begin, find(line - wait, "right"))
        after = np.minimum(end, find(line + wait, "left"))
        begin, before = (np.where(known, part, 0) for part in (begin, before))
        after, end = (np.where(known, part, 0) for part in (after, end))
        return cls(order, begin, before, after, end)

    def counts(self, records: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.int64]:
        """How many partners each record has, or each of some records."""
        early = self.before[records] - self.begin[records]
        return early + self.end[records] - self.after[records]

    def draw(self, records: NDArray[np.int64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
        """A partner of each record, by a number in [0, 1); a record without one is its own."""
        count, early = self.counts(records), self.before[records] - self.begin[records]
        rank = np.minimum((chance * count).astype(np.int64), np.maximum(count - 1, 0))
        later = self.after[records] + rank - early
        place = np.where(rank < early, self.begin[records] + rank, later)
        alone = count < 1
        return np.where(alone, records, self.order[np.where(alone, 0, place)])


def times_of(table: pd.DataFrame, column: str = "") -> tuple[str, NDArray[np.float64]] | None:
    """When each record was taken, if a table says so.

    Args:
        table: Of the records.
        column: Its column of dates, or of days as numbers; empty takes the first of ``DATES`` that
            holds a date.

    Returns:
        The column, and seconds ``(N,)`` from some moment on, NaN where nobody knows; None if no
        column was named and none has a date.

    Raises:
        DataError: The column that was named is not there, or none of its values is a date.
    """
    if column and column not in table:
        raise DataError(
            f"error[date] the records have no column {column} (there are {', '.join(table)})"
        )
    for name in (column,) if column else DATES:
        if name not in table:
            continue
        values = table[name]
        if column and pd.api.types.is_numeric_dtype(values):
            seconds = values.to_numpy(np.float64) * DAY
        elif pd.api.types.is_numeric_dtype(values):
            continue  # a number that nobody named may be hours, or a count
        else:
            when = pd.to_datetime(values, errors="coerce", format="mixed", utc=True)
            seconds = when.to_numpy("datetime64[ms]").astype(np.float64) / 1000
            seconds[when.isna().to_numpy()] = np.nan
        if np.isfinite(seconds).any():
            return name, seconds
    if column:
        first = next(iter(table[column].astype(str)), "")
        raise DataError(
            f"error[date] none of the {len(table)} values of column {column} is a date (the first "
            f"is {first!r}): name another --date, write 2024-05-31 or 2024-05-31 14:02, or days "
            "as numbers"
        )
    return None
