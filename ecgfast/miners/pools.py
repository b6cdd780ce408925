"""Where positives come from: the batch, a ring of past records, or partners that were dealt."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ecgfast.miners.distance import Compared, InputDistance
from ecgfast.miners.hubs import Correction, corrected
from ecgfast.miners.rows import Ids, Rows, farthest, nearest, one_of
from ecgfast.ops import gather, places

Rule = Literal["nearest", "knn", "two_farthest"]


class Pool(nn.Module):
    """What pools share: how records are compared, and which of the nearest is taken.

    A record with a sample that is not finite is nobody's positive and has none.

    Args:
        distance: Between records, in input space.
        rule: ``nearest``; ``knn``, one of the ``k`` nearest; or ``two_farthest``, one of the two
            farthest (the published on-the-fly mode, defect B2).
        k: Of how many nearest.
        correction: Of hubs, before the nearest are looked for.
        hub_k: Neighbours, for ``csls``.
        between_rows: Also give the distances between the rows, for negatives that are far.
        gathered: Mine over the records of all ranks, which must have as many each. Every rank then
            gives the same answer, that of one process with all of the records.
    """

    def __init__(
        self,
        distance: InputDistance,
        *,
        rule: Rule = "nearest",
        k: int = 1,
        correction: Correction = "none",
        hub_k: int = 10,
        between_rows: bool = False,
        gathered: bool = False,
    ) -> None:
        super().__init__()
        if rule not in ("nearest", "knn", "two_farthest"):
            raise ValueError(f"rule must be nearest, knn or two_farthest, got {rule!r}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.distance = distance
        self.rule = rule
        self.k = k if rule == "knn" else 1
        self.correction: Correction = correction
        self.hub_k = hub_k
        self.between_rows = between_rows
        self.gathered = gathered

    def rows_of(self, count: int) -> int:
        """How many rows come of so many records of this rank, over all ranks that mine together."""
        ranks = torch.distributed
        together = self.gathered and ranks.is_available() and ranks.is_initialized()
        return count * (ranks.get_world_size() if together else 1)

    def forward(self, ecg: Tensor, ids: Ids, draws: Tensor) -> Rows:
        """Arranges the rows of a step.

        Args:
            ecg: This rank's records, prepared, ``(N, L, T)``.
            ids: Of these.
            draws: ``(rows,)`` in [0, 1), float64.
        """
        raise NotImplementedError

    def all_rows(self, rows: Tensor) -> Tensor:
        """The rows of all ranks that mine together, in the order in which they are mined."""
        return self._every(rows)

    def _every(self, rows: Tensor) -> Tensor:
        return gather(rows) if self.gathered else rows

    def _choose(self, distances: Tensor, among: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """A positive of each row, and whether there is one."""
        if self.rule == "two_farthest":
            return one_of(farthest(distances, 2, among=among), draws)
        distances = corrected(distances, self.correction, k=self.hub_k, counts=among)
        return one_of(nearest(distances, self.k, among=among), draws)

    def _between(self, compared: Tensor) -> Tensor:
        """Distances of all rows from all, each rank doing its own."""
        every = self.all_rows(compared)
        if len(every) == len(compared):
            return self.distance.between(compared)
        return self.all_rows(self.distance.between(compared, every))


class InBatch(Pool):
    """Positives are other records of the batch; all of its records are anchors.

    Example:
        >>> line = torch.tensor([0.0, 1.0, 3.0, 9.0]).reshape(4, 1, 1)
        >>> own = torch.arange(4)
        >>> pool = InBatch(InputDistance("l1"))
        >>> pool(line, Ids(own, own, own), torch.zeros(4)).positives
        tensor([1, 0, 1, 2])
    """

    @torch.no_grad()
    def forward(self, ecg: Tensor, ids: Ids, draws: Tensor) -> Rows:
        """Arranges the rows of a step: its records as they come."""
        _, compared, eligible = self.distance.compared(ecg, ids.record)
        distances = self._between(compared)
        eligible = self._every(eligible)
        ids = Ids(*map(self._every, ids))
        others = ids.record[:, None] != ids.record
        positives, found = self._choose(
            distances, eligible[:, None] & eligible & others, draws.to(ecg.device)
        )
        itself = torch.arange(len(positives), device=ecg.device)
        positives = torch.where(found, positives, itself)
        return Rows(ecg, ids, positives, found, eligible, distances)


class _Halves(Pool):
    """Rows are anchors, then a positive of each; each is the other's positive."""

    def all_rows(self, rows: Tensor) -> Tensor:
        """Anchors of all ranks, then their positives: as one process has them."""
        half = len(rows) // 2
        return torch.cat([self._every(rows[:half]), self._every(rows[half:])])

    def _paired(self, ecg: Tensor, ids: Ids, found: Tensor) -> Rows:
        eligible = ecg.isfinite().flatten(1).all(dim=1)
        distances = None
        if self.between_rows:
            _, compared, eligible = self.distance.compared(ecg, ids.record)
            distances = self._between(compared)
        ids = Ids(*map(self.all_rows, ids))
        eligible, found = self.all_rows(eligible), self.all_rows(found)
        n = len(found)
        positives = torch.arange(n, device=ecg.device).roll(n // 2)
        found = found & eligible & eligible[positives]
        positives = torch.where(found, positives, positives.roll(n // 2))
        return Rows(ecg, ids, positives, found, eligible, distances)


class Dealt(_Halves):
    """Positives come with the batch, which is anchors and then a partner of each.

    An anchor that is its own partner has no positive, unless ``itself`` says that it may be: with
    augmentation two views of a record attract each other.

    Args:
        distance: Needed where ``between_rows`` is asked for.
        itself: Whether a record may be its own positive.
        words: As of :class:`Pool`.
    """

    def __init__(self, distance: InputDistance, *, itself: bool = False, **words: bool) -> None:
        super().__init__(distance, **words)  # type: ignore[arg-type]
        self.itself = itself

    @torch.no_grad()
    def forward(self, ecg: Tensor, ids: Ids, draws: Tensor) -> Rows:
        """Arranges the rows of a step: its records as they come."""
        if len(ecg) % 2:
            raise ValueError(f"anchors and partners must be as many, got {len(ecg)} records")
        half = len(ecg) // 2
        another = ids.record[:half] != ids.record[half:]
        found = another | self.itself
        return self._paired(ecg, ids, torch.cat([found, found]))


class Ring(_Halves):
    """Positives are looked for among the batch and the records of past batches.

    A ring on the device holds the last records as they were prepared, not their embeddings: the
    positive is encoded now, so nothing in it is stale. N records come in, 2 N are encoded: each and
    its positive. A record is not its own positive, nor is an earlier visit of it in the ring.
    Memory is ``size`` records, twice where they are compared at another rate.

    It is no state of a checkpoint: what it holds at a step are the records of the steps before, so
    a run that goes on fills it again by ``add`` (``begin`` says where).

    Args:
        distance: Between records.
        size: Records that are held.
        words: As of :class:`Pool`.
    """

    def __init__(self, distance: InputDistance, *, size: int, **words: object) -> None:
        super().__init__(distance, **words)  # type: ignore[arg-type]
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size
        self.begin(0)

    def begin(self, added: int) -> None:
        """Empties the ring, as one that so many records have gone through."""
        self.at = added % self.size
        self.filled = 0
        self.held: list[Tensor] = []  # records, what is compared, ids (3 columns), which are whole

    def rows_of(self, count: int) -> int:
        """Twice as many: each record and its positive."""
        return 2 * super().rows_of(count)

    @torch.no_grad()
    def add(self, ecg: Tensor, ids: Ids) -> None:
        """Puts this rank's records, and those of the ranks that mine together, into the ring."""
        self._put(*self._global(self.distance.compared(ecg, ids.record), ids))

    @torch.no_grad()
    def forward(self, ecg: Tensor, ids: Ids, draws: Tensor) -> Rows:
        """Arranges the rows of a step: the records and their positives."""
        batch = self.distance.compared(ecg, ids.record)
        clean, _, eligible = batch
        every, compared, codes, whole = self._global(batch, ids)
        own = places(len(ecg), device=ecg.device) if self.gathered else None
        mine = slice(None) if own is None else own
        distances = self.distance.between(compared[mine], compared)
        if self.filled:
            past = self.distance.between(compared[mine], self.held[1][: self.filled])
            distances = torch.cat([distances, past], dim=1)
            candidates = torch.cat([codes, self.held[2][: self.filled]])
            usable = torch.cat([whole, self.held[3][: self.filled]])
        else:
            candidates, usable = codes, whole
        others = ids.record[:, None] != candidates[:, 0]
        chance = draws[: len(every)].to(ecg.device)[mine]
        chosen, found = self._choose(distances, eligible[:, None] & usable & others, chance)
        positives = every[chosen.clamp(max=len(every) - 1)]
        if self.filled:
            place = (chosen - len(every)).clamp(min=0)
            positives = torch.where(
                (chosen < len(every))[:, None, None], positives, self.held[0][place]
            )
        theirs = torch.where(
            found[:, None], candidates[chosen], torch.stack(list(ids), dim=1)
        ).unbind(1)
        positives = torch.where(found[:, None, None], positives, clean)
        self._put(every, compared, codes, whole)
        both = Ids(*(torch.cat(pair) for pair in zip(ids, theirs, strict=True)))
        rows = torch.cat([torch.where(eligible[:, None, None], clean, ecg), positives])
        return self._paired(rows, both, torch.cat([found, found]))

    def _global(self, batch: Compared, ids: Ids) -> tuple[Tensor, ...]:
        every = self._every(batch.clean)
        same = batch.rows is batch.clean  # one copy is enough
        return (
            every,
            every if same else self._every(batch.rows),
            self._every(torch.stack(list(ids), dim=1)),
            self._every(batch.eligible),
        )

    def _put(self, *parts: Tensor) -> None:
        count = len(parts[0])
        if count > self.size:
            raise ValueError(f"a ring of {self.size} records cannot take {count} at a time")
        if not self.held:
            self.held = [part.new_zeros((self.size, *part.shape[1:])) for part in parts]
            if parts[1] is parts[0]:
                self.held[1] = self.held[0]
        slots = (torch.arange(count, device=parts[0].device) + self.at) % self.size
        for held, part in zip(self.held, parts, strict=True):
            held[slots] = part
        self.at = (self.at + count) % self.size
        self.filled = min(self.size, self.filled + count)
