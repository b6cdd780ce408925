"""Pages of signals, each in a layout and a look of its own, with the faults of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from ecgfast.ops import (
    ImageAugmentSpec,
    PageLayout,
    PageStyle,
    image_augment,
    layout_named,
    rasterize_ecg,
)

EVERY = ("3x4", "3x4+1", "3x4+3", "6x2", "12x1", "3x4-shuffled")
AS_DRAWN = ImageAugmentSpec()
Colour = tuple[float, float, float]
# paper, lines each mm, lines each 5 mm: what printers and viewers use
PAPERS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((255, 251, 249), (247, 212, 208), (236, 160, 154)),  # pink
    ((255, 255, 255), (255, 205, 200), (240, 120, 120)),  # red on white
    ((255, 252, 245), (250, 222, 190), (238, 176, 120)),  # orange
    ((252, 255, 251), (205, 235, 208), (140, 200, 150)),  # green
    ((250, 252, 255), (205, 220, 245), (140, 170, 225)),  # blue
    ((255, 255, 255), (226, 226, 226), (176, 176, 176)),  # a copy in grey
)


class PageViews(nn.Module):
    """Draws records as pages, ``(N, L, T) -> (N, C, S, S)``, anew at each call.

    Each record gets a layout, a look (speed, gain, grid, colours, width of line, pulse, names) and
    the faults of ``spec``, independently of the others: two views of a batch are two calls. The
    seed comes from torch's generator of the CPU at each call, so that ``torch.manual_seed`` repeats
    a run; what a record becomes depends on the seed and on its place in the batch.

    Looks are drawn once, from ``seed``, and so are the orders of shuffled layouts: pages of a
    layout and a look share their plan, which is then not made anew. A missing sample (NaN) is a
    gap; a lead without a sample leaves its place free. No gradient passes.

    Args:
        fs: Samples a second, Hz.
        leads: Names of the leads.
        size: Height and width of a page, pixels.
        layouts: To draw from, alike; ``-shuffled`` after a name is one of ``shuffles`` orders.
        looks: How many looks there are; the first is the plain one, the others are drawn.
        shuffles: How many orders.
        grey: One channel instead of three.
        spec: Faults of a scan; the default has none.
        seed: Of looks and orders.

    Raises:
        ValueError: A name or a number is not as above.

    Example:
        >>> views = PageViews(fs=250, leads=("I", "II"), size=64)
        >>> views(torch.zeros(2, 2, 2500)).shape
        torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        *,
        fs: float,
        leads: Sequence[str],
        size: int = 300,
        layouts: Sequence[str] = EVERY,
        looks: int = 64,
        shuffles: int = 32,
        grey: bool = False,
        spec: ImageAugmentSpec = AS_DRAWN,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not layouts or min(size, looks, shuffles) < 1:
            raise ValueError(
                "there must be a layout, and size, looks and shuffles must be positive, got "
                f"{len(layouts)} layouts, {size}, {looks} and {shuffles}"
            )
        self.fs = fs
        self.leads = tuple(leads)
        self.size = size
        self.grey = grey
        self.spec = spec
        draws = np.random.default_rng([seed, 1])
        # as networks draw in use; a network that never saw it is lost there, above all its norms
        self.looks = (PageStyle(), *(_look(draws) for _ in range(looks - 1)))
        self.layouts = tuple(_orders(name, shuffles, draws) for name in layouts)

    @torch.no_grad()
    def forward(self, ecg: Tensor) -> Tensor:
        """Draws a batch.

        Args:
            ecg: Signals ``(N, L, T)`` in mV, NaN where nothing was recorded.

        Returns:
            Pages ``(N, C, S, S)`` uint8 on the same device, C 3, or 1 in grey.
        """
        seeds = torch.randint(2**63 - 1, (2,)).tolist()
        layouts, looks = self.drawn(len(ecg), seeds[0])
        pages = rasterize_ecg(
            ecg,
            fs=self.fs,
            layout=layouts,
            size=(self.size, self.size),
            style=looks,
            leads=self.leads,
            channels=1 if self.grey else 3,
        ).images
        if self.spec == AS_DRAWN:
            return pages
        return image_augment(pages, self.spec, seed=seeds[1], dtype=torch.uint8)

    def drawn(self, count: int, seed: int) -> tuple[list[PageLayout], list[PageStyle]]:
        """Layout and look of each of so many records."""
        draws = np.random.default_rng(seed)
        which, order, look = (
            draws.integers(0, most, count)
            for most in (len(self.layouts), np.iinfo(np.int64).max, len(self.looks))
        )
        kinds = [self.layouts[kind] for kind in which]
        layouts = [of[int(n) % len(of)] for of, n in zip(kinds, order, strict=True)]
        return layouts, [self.looks[n] for n in look]


class PageFaults(nn.Module):
    """Gives pages the faults of a scan, ``(N, C, H, W)`` uint8 to the same, anew at each call.

    The seed comes from torch's generator of the CPU at each call; what a page becomes depends on
    the seed and on its place in the batch. Around a page lies the colour ``fill`` of the spec. No
    gradient passes.

    Args:
        spec: What to draw from.

    Example:
        >>> faults = PageFaults(ImageAugmentSpec(noise=(0, 8)))
        >>> faults(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).dtype
        torch.uint8
    """

    def __init__(self, spec: ImageAugmentSpec) -> None:
        super().__init__()
        self.spec = spec

    @torch.no_grad()
    def forward(self, pages: Tensor) -> Tensor:
        """Draws the faults of a batch."""
        seed = int(torch.randint(2**63 - 1, (1,)))
        return image_augment(pages, self.spec, seed=seed, dtype=torch.uint8)


def _orders(name: str, shuffles: int, draws: np.random.Generator) -> tuple[PageLayout, ...]:
    """One layout, or those that its name stands for."""
    if not name.endswith("-shuffled"):
        return (layout_named(name),)
    seeds = draws.integers(0, 2**31, shuffles).tolist()
    return tuple(layout_named(f"{name}:{seed}") for seed in seeds)


def _look(draws: np.random.Generator) -> PageStyle:
    """Mostly 25 mm/s, 10 mm/mV and lines each mm, as most pages are."""
    paper, fine, coarse = PAPERS[draws.integers(len(PAPERS))]
    dark = draws.uniform(0, 50)
    ink = (dark, dark, dark + 70 * float(draws.random() < 0.25))  # some printers are blue
    grid = draws.choice(["mm", "5mm", "none"], p=[0.7, 0.15, 0.15])
    return PageStyle(
        mm_per_s=float(draws.choice([25, 50], p=[0.85, 0.15])),
        mm_per_mv=float(draws.choice([5, 10, 20], p=[0.1, 0.8, 0.1])),
        grid=cast(Literal["mm", "5mm", "none"], str(grid)),
        paper=paper,
        fine=fine,
        coarse=coarse,
        ink=ink,
        line_mm=draws.uniform(0.25, 0.6),
        name_mm=draws.uniform(2.5, 4.0),
        names=bool(draws.random() < 0.9),
        pulse=bool(draws.random() < 0.8),
        separators=bool(draws.random() < 0.7),
        overflow="clip" if draws.random() < 0.3 else "overlap",
    )
