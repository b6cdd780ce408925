"""Which records a step takes: a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class StepSampler:
    """An endless stream of batches of indices that can begin at any step.

    The batch of step k depends on the seed, k and the layout of processes, never on what was drawn
    before: a run that resumes at k reads what the uninterrupted run would have read. An epoch is a
    permutation drawn from (seed, epoch); it is cut into global batches of ``batch_size *
    world_size``, each of them into one slice a rank. Within an epoch no record comes twice, and the
    last records that do not fill a global batch sit out (other ones each epoch).

    It has no length: the trainer counts steps, not epochs.

    Args:
        num_records: How many there are.
        batch_size: Records a step and process.
        seed: Of the permutations.
        order: ``shuffled``, or ``fixed``: the records as they lie, the same batches every epoch.
        rank: Of this process.
        world_size: How many processes there are.
        start_step: The first step that is wanted.

    Raises:
        ValueError: One global batch needs more records than there are.

    Example:
        >>> StepSampler(6, 2, seed=0, order="fixed").batch(4)
        [2, 3]
    """

    def __init__(
        self,
        num_records: int,
        batch_size: int,
        *,
        seed: int,
        order: Literal["shuffled", "fixed"] = "shuffled",
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        if order not in ("shuffled", "fixed"):
            raise ValueError(f"order must be shuffled or fixed, got {order}")
        if batch_size < 1 or start_step < 0 or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size must be positive, start_step >= 0 and 0 <= rank < world_size, "
                f"got {batch_size}, {start_step} and rank {rank} of {world_size}"
            )
        if num_records < batch_size * world_size:
            raise ValueError(
                f"a step takes {batch_size} records on each of {world_size} process(es), "
                f"there are only {num_records}: lower the batch size or add records"
            )
        self.num_records = num_records
        self.batch_size = batch_size
        self.seed = seed
        self.order = order
        self.rank = rank
        self.world_size = world_size
        self.start_step = start_step
        self._permutation = lru_cache(maxsize=1)(self._draw)

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches that the records fill."""
        return self.num_records // (self.batch_size * self.world_size)

    def batch(self, step: int) -> list[int]:
        """Indices that this rank reads at a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        begin = (place * self.world_size + self.rank) * self.batch_size
        indices: list[int] = self._permutation(epoch)[begin : begin + self.batch_size].tolist()
        return indices

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        if self.order == "fixed":
            return np.arange(self.num_records)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_records)


class StratifiedSampler(StepSampler):
    """The same, and every batch has its share of each stratum, one record more or less.

    Of few events, say, each batch of a survival model gets as many as there are for it. An epoch's
    permutation spreads each stratum evenly over the epoch, in an order and from a place that are
    drawn.

    Args:
        strata: Of each record ``(N,)``, integers.
        batch_size: Records a step and process.
        seed: Of the permutations.
        rank: Of this process.
        world_size: How many processes there are.
        start_step: The first step that is wanted.

    Raises:
        ValueError: One global batch needs more records than there are.

    Example:
        >>> events = np.array([1, 1, 0, 0, 0, 0, 0, 0])
        >>> [int(events[StratifiedSampler(events, 4, seed=0).batch(k)].sum()) for k in range(4)]
        [1, 1, 1, 1]
    """

    def __init__(self, strata: NDArray[np.int64], batch_size: int, **how: Any) -> None:
        super().__init__(len(strata), batch_size, **how)
        self.members = [np.flatnonzero(strata == s) for s in np.unique(strata)]

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        draw = np.random.default_rng([self.seed, epoch])
        order = np.concatenate([draw.permutation(some) for some in self.members])
        place = [(np.arange(len(some)) + draw.random()) / len(some) for some in self.members]
        return order[np.argsort(np.concatenate(place), kind="stable")]


class BalancedSampler:
    """An endless stream of batches with as many records of each class, that can begin at any step.

    The records are dealt to the classes in turn, over all steps and ranks; those of a class come in
    permutations drawn from (seed, class, round). So a record of a rare class comes more often than
    one of a common class, in a batch twice if there are too few. The batch of step k is a pure
    function of (seed, k, rank).

    Args:
        classes: Of each record ``(N,)``, integers; a class without records takes no part.
        batch_size: Records a step and process.
        seed: Of the permutations.
        rank: Of this process.
        world_size: How many processes there are.
        start_step: The first step that is wanted.

    Raises:
        ValueError: A number is out of its range, or there are no records.

    Example:
        >>> classes = np.array([0, 0, 0, 0, 0, 1])
        >>> classes[BalancedSampler(classes, 4, seed=0).batch(9)].tolist()
        [0, 1, 0, 1]
    """

    def __init__(
        self,
        classes: NDArray[np.int64],
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        if batch_size < 1 or start_step < 0 or not 0 <= rank < world_size or not len(classes):
            raise ValueError(
                f"batch_size must be positive, start_step >= 0 and 0 <= rank < world_size, got "
                f"{batch_size}, {start_step} and rank {rank} of {world_size}, for {len(classes)} "
                "records"
            )
        self.members = [np.flatnonzero(classes == c) for c in np.unique(classes)]
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start_step = start_step
        self._permutation = lru_cache(maxsize=2 * len(self.members))(self._draw)

    def batch(self, step: int) -> list[int]:
        """Indices that this rank reads at a step."""
        begin = (step * self.world_size + self.rank) * self.batch_size
        dealt = []
        for place in range(begin, begin + self.batch_size):
            turn, which = divmod(place, len(self.members))
            again, rank = divmod(turn, len(self.members[which]))
            dealt.append(int(self._permutation(which, again)[rank]))
        return dealt

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1

    def _draw(self, which: int, again: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, which, again]).permutation(self.members[which])


class Lists(NamedTuple):
    """Lists of different lengths in two arrays, so that a million of them cost no objects.

    Attributes:
        starts: ``(U + 1,)``; list u is ``members[starts[u] : starts[u + 1]]``.
        members: All lists, one after the other.
    """

    starts: NDArray[np.int64]
    members: NDArray[np.int64]

    @classmethod
    def of_rows(cls, rows: NDArray[np.int64]) -> Lists:
        """Lists from a matrix; -1 is nobody."""
        there = rows >= 0
        starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        return cls(starts.astype(np.int64), rows[there].astype(np.int64))

    @classmethod
    def of_groups(cls, group: NDArray[np.int64], least: int = 1) -> Lists:
        """The members of each group that has so many, groups in the order of their numbers."""
        order = np.argsort(group, kind="stable")
        _, first, count = np.unique(group[order], return_index=True, return_counts=True)
        parts = [order[f : f + c] for f, c in zip(first, count, strict=True) if c >= least]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        members = np.concatenate(parts) if parts else np.zeros(0)
        return cls(starts.astype(np.int64), members.astype(np.int64))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of each list."""
        return np.diff(self.starts)


class Partners(NamedTuple):
    """Who may be paired with each record.

    Attributes:
        lists: Of records.
        list_of: ``(N,)``, the list of each record; -1 has none.
        place: ``(N,)``, where in its list the record itself stands; -1: it is not in it.
    """

    lists: Lists
    list_of: NDArray[np.int64]
    place: NDArray[np.int64]

    @classmethod
    def of_groups(cls, group: NDArray[np.int64]) -> Partners:
        """The other records of the same group, of the same patient say."""
        lists = Lists.of_groups(group)
        list_of = np.unique(group, return_inverse=True)[1]
        place = np.empty(len(group), dtype=np.int64)
        place[lists.members] = np.arange(len(group)) - np.repeat(lists.starts[:-1], lists.lengths)
        return cls(lists, list_of.astype(np.int64), place)

    @classmethod
    def of_rows(cls, rows: NDArray[np.int64]) -> Partners:
        """The records in each record's row ``(N, K)``, its neighbours say; -1 is nobody."""
        return cls(Lists.of_rows(rows), np.arange(len(rows)), np.full(len(rows), -1))

    def counts(self, records: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.int64]:
        """How many partners each record has, or each of some records."""
        of, place = self.list_of[records], self.place[records]
        known = self.lists.lengths[of] if len(self.lists.lengths) else 0
        return np.where(of < 0, 0, known - (place >= 0))

    def draw(self, records: NDArray[np.int64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
        """A partner of each record, by a number in [0, 1); a record without one is its own."""
        if not len(self.lists.members):
            return records.copy()
        of, place = self.list_of[records], self.place[records]
        starts, count = self.lists.starts[of], self.lists.lengths[of] - (place >= 0)
        alone = (of < 0) | (count < 1)
        rank = np.minimum((chance * count).astype(np.int64), count - 1)
        rank += (place >= 0) & (rank >= place)  # step over the record itself
        members = self.lists.members[np.where(alone, 0, starts + rank)]
        return np.where(alone, records, members)


class Mixture(NamedTuple):
    """Partners of one kind where there are some, else, or by chance, of another.

    Attributes:
        first: Of the same patient, say.
        second: Neighbours, say.
        share: How often the first is taken where there are both.
    """

    first: Partners
    second: Partners
    share: float

    def counts(self) -> NDArray[np.int64]:
        """How many partners each record has, of both kinds."""
        return self.first.counts() + self.second.counts()

    def draw(self, records: NDArray[np.int64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
        """A partner of each record, by one number in [0, 1): what is left of it draws on."""
        ones, others = self.first.counts(records) > 0, self.second.counts(records) > 0
        share = np.where(ones, np.where(others, self.share, 1.0), 0.0)
        first = chance < share
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = np.where(first, chance / share, (chance - share) / (1 - share))
        rest = np.clip(np.nan_to_num(rest), 0, np.nextafter(1, 0))
        drawn = [kind.draw(records, rest) for kind in (self.first, self.second)]
        return np.where(first, *drawn)


class Drawn(Protocol):
    """What partners are drawn from: ``Partners``, a ``Mixture``, or ``apart.Apart``."""

    def draw(self, records: NDArray[np.int64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
        """A partner of each record, by a number in [0, 1); a record without one is its own."""


class PairSampler:
    """An endless stream of batches of anchors and a partner of each: all anchors come first.

    A step takes ``batch_size // 2`` units, as :class:`StepSampler` deals them; of each unit one
    record is drawn as the anchor, and one of the anchor's partners. A unit may be a record or a
    patient: with patients, no two anchors of a batch are of the same one. An anchor without a
    partner is its own. The batch of step k is a pure function of (seed, k, rank), and the ranks
    together take the pairs that one process of their global batch would.

    Args:
        units: The records of each unit.
        partners: Of each record.
        batch_size: Records a step and process, even: half of them are anchors.
        seed: Of all draws.
        rank: Of this process.
        world_size: How many processes there are.
        start_step: The first step that is wanted.

    Raises:
        ValueError: The batch size is odd, or one global batch needs more units than there are.

    Example:
        >>> patient = np.array([7, 7, 9, 9, 9])
        >>> visits = Lists.of_groups(patient, least=2)
        >>> pairs = PairSampler(visits, Partners.of_groups(patient), 4, seed=0)
        >>> patient[pairs.batch(0)].reshape(2, 2).T.tolist() in ([[7, 7], [9, 9]], [[9, 9], [7, 7]])
        True
    """

    def __init__(
        self,
        units: Lists,
        partners: Drawn,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        if batch_size % 2 or batch_size < 2:
            raise ValueError(f"pairs need an even batch size of 2 or more, got {batch_size}")
        if len(units.lengths) < batch_size // 2 * world_size:
            raise ValueError(
                f"a step takes {batch_size // 2} pairs on each of {world_size} process(es), each "
                f"of another unit, there are only {len(units.lengths)}: lower the batch size or "
                "add records"
            )
        self.order = StepSampler(
            len(units.lengths), batch_size // 2, seed=seed, rank=rank, world_size=world_size
        )
        self.units = units
        self.partners = partners
        self.seed = seed
        self.rank = rank
        self.start_step = start_step

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches that the units fill."""
        return self.order.steps_per_epoch

    def batch(self, step: int) -> list[int]:
        """Anchors, then their partners, that this rank reads at a step."""
        unit = np.array(self.order.batch(step))
        begin, every = self.rank * len(unit), self.order.world_size * len(unit)
        chance = np.random.default_rng([self.seed, step, 0, 1]).random((2, every))
        chance = chance[:, begin : begin + len(unit)]  # as one process would draw for all
        place = (chance[0] * self.units.lengths[unit]).astype(np.int64)
        anchors = self.units.members[self.units.starts[unit] + place]
        return [*anchors.tolist(), *self.partners.draw(anchors, chance[1]).tolist()]

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1
