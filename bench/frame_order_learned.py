"""Whether a network learns the order of four frames, and what it needs to see for it.

R3D-18 at a quarter of its width and a linear layer learn nothing but the order: of clips as they
are, and with motion in two of three channels. Prints the share of orders that are
told in videos of other patients, 1 of 24 by chance.

OMP_NUM_THREADS=1 python bench/frame_order_learned.py [--store STORE] [--steps 150 300]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from ecgfast.data.clip_store import ClipStore
from ecgfast.data.synthetic_echo import make_echo_cohort
from ecgfast.models.clip_encoder import ClipEncoder
from ecgfast.models.heads import OrderHead
from ecgfast.transforms.frame_order import FrameOrders

FRAMES, STEP, BATCH, RATE, WARM = 4, 2, 64, 1e-3, 50
SPAN = (FRAMES - 1) * STEP + 1


def clips_of(videos: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Clips ``(N, 1, F, S, S)`` of videos ``(V, F, S, S)`` and moments that are drawn."""
    which = torch.randint(len(videos), (count, 1), generator=draws)
    first = torch.randint(videos.shape[1] - SPAN + 1, (count, 1), generator=draws)
    return videos[which, first + STEP * torch.arange(FRAMES)].unsqueeze(1)


def in_order(clips: Tensor, order: Tensor) -> Tensor:
    """Clips with their frames in orders ``(N, F)``."""
    return clips.take_along_dim(order[:, None, :, None, None], dim=2)


def told(net: nn.Module, videos: Tensor, orders: FrameOrders) -> float:
    """Share of orders that a network names, of 1,024 clips."""
    draws, right = torch.Generator().manual_seed(2), 0
    net.eval()
    with torch.no_grad():
        for _ in range(16):
            order, code = orders(BATCH)
            shown = in_order(clips_of(videos, BATCH, draws), order)
            right += int((net(shown).argmax(dim=1) == code).sum())
    net.train()
    return right / (16 * BATCH)


def train(motion: bool, parts: tuple[Tensor, Tensor], width: int, looks: list[int]) -> list[float]:
    """The share of orders told after so many steps each."""
    torch.manual_seed(0)
    encoder = ClipEncoder(width=width, size=parts[0].shape[-1], motion=motion)
    net = nn.Sequential(encoder, OrderHead(encoder.embedding_dim, FRAMES))
    orders, draws, found = FrameOrders(FRAMES), torch.Generator().manual_seed(1), []
    moves = torch.optim.AdamW(net.parameters(), lr=RATE)
    for step in range(1, max(looks) + 1):
        for group in moves.param_groups:
            group["lr"] = RATE * min(1, step / WARM)
        order, code = orders(BATCH)
        shown = in_order(clips_of(parts[0], BATCH, draws), order)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(shown)
        moves.zero_grad()
        nn.functional.cross_entropy(logits.float(), code).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        moves.step()
        if step in looks:
            found.append(told(net, parts[1], orders))
    return found


def main() -> None:
    """Prints a row a network."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--store", default="")
    words.add_argument("--patients", type=int, default=200)
    words.add_argument("--width", type=int, default=16)
    words.add_argument("--steps", type=int, nargs="*", default=[150, 300])
    given = words.parse_args()
    if given.store:
        store = ClipStore.open(given.store)
        least = int(store.lengths.min())
        videos = np.stack([store.frames(n)[:least, 0] for n in range(len(store.manifest))])
    else:
        videos = make_echo_cohort(given.patients, size=56, frames=32, seed=0)[0]
    print(f"{len(videos)} videos, the last fifth for the test; steps {given.steps}")
    split = len(videos) * 4 // 5
    parts = torch.from_numpy(videos[:split]), torch.from_numpy(videos[split:])
    for motion in (False, True):
        print(f"motion {motion}:", train(motion, parts, given.width, given.steps), flush=True)


if __name__ == "__main__":
    main()
