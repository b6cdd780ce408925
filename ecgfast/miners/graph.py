"""Every record's nearest and farthest among all others, tile by tile; never N x N."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ecgfast.miners.distance import InputDistance
from ecgfast.miners.rows import farthest, nearest


class Graph(NamedTuple):
    """What has been found up to now; -1 is nobody, at an infinite distance.

    Attributes:
        nearest: ``(N, K)`` int64 rows, in order; ties by index.
        distances: Of these ``(N, K)``, float32.
        farthest: ``(N, F)`` rows, likewise.
        far_distances: Of these; minus infinity where there is none.
    """

    nearest: Tensor
    distances: Tensor
    farthest: Tensor
    far_distances: Tensor

    @classmethod
    def empty(cls, count: int, k: int, k_far: int, device: torch.device) -> Graph:
        """Before the first tile."""
        return cls(
            torch.full((count, k), -1, device=device),
            torch.full((count, k), torch.inf, device=device),
            torch.full((count, k_far), -1, device=device),
            torch.full((count, k_far), -torch.inf, device=device),
        )


@torch.no_grad()
def grow(
    graph: Graph,
    load: Callable[[int, int], Tensor],
    distance: InputDistance,
    *,
    record: Tensor,
    eligible: Tensor,
    block: int,
    begin: int = 0,
    min_distance: float = 0.0,
) -> Iterator[int]:
    """Compares all pairs and keeps the nearest and the farthest of each record, in place.

    A stripe is one block of rows against itself and all later ones; a tile of it serves the rows
    and, turned around, the columns, so that no pair is compared twice. Memory is one tile, two
    blocks of records and the graph. What is found does not depend on the height of the blocks, but
    for what the distance rounds differently in another batch (dtw: nothing).

    Args:
        graph: As ``begin`` stripes have left it.
        load: Gives what is compared of records ``[from, to)``, on the device, as
            ``distance.resampled`` makes it; zeros for records that are not eligible.
        distance: Between these.
        record: ``(N,)`` int64; records of one number are copies, and no neighbours.
        eligible: ``(N,)`` bool: may be compared.
        block: Records in a block.
        begin: Stripes that are done.
        min_distance: Pairs that are nearer are not kept.

    Yields:
        How many stripes are done, after each.
    """
    count = len(record)
    cuts = [(at, min(at + block, count)) for at in range(0, count, block)]
    columns = torch.arange(count, device=record.device)
    for i in range(begin, len(cuts)):
        rows = slice(*cuts[i])
        x = load(*cuts[i])
        for j in range(i, len(cuts)):
            others = slice(*cuts[j])
            tile = distance.between(x) if i == j else distance.between(x, load(*cuts[j]))
            among = eligible[rows, None] & eligible[others] & (record[rows, None] != record[others])
            among &= tile >= min_distance if min_distance else ~tile.isnan()
            _take(graph, rows, columns[others], tile.float(), among)
            if i < j:
                _take(graph, others, columns[rows], tile.float().mT, among.mT)
        yield i + 1


def _take(graph: Graph, rows: slice, columns: Tensor, tile: Tensor, among: Tensor) -> None:
    sides = (
        (graph.nearest, graph.distances, nearest, torch.inf),
        (graph.farthest, graph.far_distances, farthest, -torch.inf),
    )
    for found, values, choose, none in sides:
        every = torch.cat([values[rows], tile], dim=1)
        names = torch.cat([found[rows], columns.expand(len(tile), -1)], dim=1)
        # tiles come in the order of their columns, so that the first of equals has the lowest index
        place = choose(every, found.shape[1], among=torch.cat([found[rows] >= 0, among], dim=1))
        there, place = place >= 0, place.clamp(min=0)
        values[rows] = every.gather(1, place).masked_fill(~there, none)
        found[rows] = names.gather(1, place).masked_fill(~there, -1)
