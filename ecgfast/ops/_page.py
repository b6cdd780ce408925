"""Where things stand on a page of ECG paper: layouts, scales, and the plan that kernels draw by."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgfast.config import LEADS
from ecgfast.ops._glyphs import CAP, strokes_of

Colour = tuple[float, float, float]

LEFT_MM, RIGHT_MM, TOP_MM, BOTTOM_MM = 15.0, 5.0, 10.0, 10.0
LEAST_ROW_MM = 15.0  # what a row takes before the page is drawn smaller
PULSE_S, PULSE_MV = 0.2, 1.0
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
MOST_PIXELS = 32768  # a side


@dataclass(frozen=True)
class PageLayout:
    """Which leads stand where.

    Columns of a row share its time: with four columns of a 10 s record each shows 2.5 s, the second
    going on where the first ended. A rhythm strip shows all of it.

    Attributes:
        rows: Of each row the leads from left to right; rows have as many columns.
        rhythm: A lead for each row below, whole.
    """

    rows: tuple[tuple[str, ...], ...]
    rhythm: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows and not self.rhythm:
            raise ValueError("a layout needs a row or a rhythm strip")
        if any(not row for row in self.rows) or len({len(row) for row in self.rows}) > 1:
            counts = [len(row) for row in self.rows]
            raise ValueError(f"rows of a layout must have as many columns each, got {counts}")

    @property
    def leads(self) -> tuple[str, ...]:
        """All leads in it, in the order of rows, rhythm strips last; some may come twice."""
        return (*(lead for row in self.rows for lead in row), *self.rhythm)

    def shuffled(self, seed: int) -> PageLayout:
        """The same places with the leads of the rows in another order; rhythm strips stay."""
        names = [lead for row in self.rows for lead in row]
        order = iter(np.random.default_rng(seed).permutation(len(names)))
        return replace(self, rows=tuple(tuple(names[next(order)] for _ in r) for r in self.rows))


def _by_columns(count: int) -> tuple[tuple[str, ...], ...]:
    height = len(LEADS) // count
    return tuple(tuple(LEADS[c * height + r] for c in range(count)) for r in range(height))


LAYOUTS = {
    "12x1": PageLayout(_by_columns(1)),
    "6x2": PageLayout(_by_columns(2)),
    "3x4": PageLayout(_by_columns(4)),
    "3x4+1": PageLayout(_by_columns(4), ("II",)),
    "3x4+3": PageLayout(_by_columns(4), ("V1", "II", "V5")),
}
ROWS = "rows:"  # then leads, joined by +
SHUFFLED = "-shuffled"  # after the name of a layout; a colon and a seed may follow


def layout_named(name: str) -> PageLayout:
    """One of ``LAYOUTS``, or ``3x4-shuffled:7``: its leads in the order of a seed (0 if none).

    ``rows:I+V1`` has those leads of the twelve, a row each, for records that have no others.
    """
    if name.startswith(ROWS):
        leads = name.removeprefix(ROWS).split("+")
        if unknown := [lead for lead in leads if lead not in LEADS]:
            raise ValueError(
                f"layout {name!r} names {unknown[0]!r}, which is none of the twelve leads "
                f"({', '.join(LEADS)}); rows:I+V1 has two of them"
            )
        return PageLayout(tuple((lead,) for lead in leads))
    base, shuffled, seed = name.partition(SHUFFLED)
    number = seed.removeprefix(":") or "0"
    whole = number.isdecimal() and (not seed or seed.startswith(":"))
    if base not in LAYOUTS or (shuffled and not whole):
        raise ValueError(
            f"layout must be one of {', '.join(LAYOUTS)}, got {name!r}; 3x4{SHUFFLED}:7 has its "
            f"leads in another order, {ROWS}I+V1 those leads alone"
        )
    return LAYOUTS[base].shuffled(int(number)) if shuffled else LAYOUTS[base]


@dataclass(frozen=True, kw_only=True)
class PageStyle:
    """How a page looks. Lengths are in mm of its paper, colours red, green, blue from 0 to 255.

    Attributes:
        mm_per_s: How far a second goes: 25 or 50 on paper.
        mm_per_mv: How high a millivolt stands: 5, 10 or 20 on paper.
        grid: Lines each mm with thicker ones each 5 mm, those each 5 mm alone, or none.
        paper: Its colour.
        fine: Colour of the lines each mm.
        coarse: Colour of the lines each 5 mm.
        ink: Colour of traces, names and pulses.
        fine_mm: Width of the lines each mm.
        coarse_mm: Width of the lines each 5 mm.
        line_mm: Width of the traces; at least a pixel is drawn.
        names: Whether leads have their names.
        name_mm: Height of a capital.
        pulse: Whether rows begin with a calibration pulse of 1 mV and 0.2 s.
        separators: Whether short strokes stand where a column begins.
        footer: A line at the bottom; none says speed and gain.
        header: A line at the top.
        overflow: Beyond a row a trace is clipped, or overlaps the rows beside it.
        px_per_mm: Pixels of a mm; none takes the most that fit. 200 dots an inch are 7.874.
    """

    mm_per_s: float = 25.0
    mm_per_mv: float = 10.0
    grid: Literal["mm", "5mm", "none"] = "mm"
    paper: Colour = (255.0, 251.0, 249.0)
    fine: Colour = (247.0, 212.0, 208.0)
    coarse: Colour = (236.0, 160.0, 154.0)
    ink: Colour = (16.0, 16.0, 24.0)
    fine_mm: float = 0.13
    coarse_mm: float = 0.24
    line_mm: float = 0.32
    names: bool = True
    name_mm: float = 3.0
    pulse: bool = True
    separators: bool = True
    footer: str | None = None
    header: str = ""
    overflow: Literal["overlap", "clip"] = "overlap"
    px_per_mm: float | None = None

    def __post_init__(self) -> None:
        for name in ("mm_per_s", "mm_per_mv", "fine_mm", "coarse_mm", "line_mm", "name_mm"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.px_per_mm is not None and not 0 < self.px_per_mm < math.inf:
            raise ValueError(f"px_per_mm must be positive, got {self.px_per_mm}")
        if not self.fine_mm <= 1 or not self.coarse_mm <= 5:
            raise ValueError(
                "lines must be thinner than what is between them, 1 and 5 mm, got fine_mm "
                f"{self.fine_mm} and coarse_mm {self.coarse_mm}"
            )
        for name in ("paper", "fine", "coarse", "ink"):
            colour = getattr(self, name)
            if len(colour) != 3 or not all(0 <= c <= 255 for c in colour):
                raise ValueError(f"{name} must be three numbers from 0 to 255, got {colour}")
        for name, words in (("grid", ("mm", "5mm", "none")), ("overflow", ("overlap", "clip"))):
            if getattr(self, name) not in words:
                known = ", ".join(words)
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")


class PageBox(NamedTuple):
    """Where a lead stands, in pixels from the upper left corner; the truth for digitisers.

    Sample t of the record lies at ``x0 + dx t``, a value of v mV at ``baseline - px_per_mv v``.
    """

    lead: str
    left: float
    top: float
    right: float
    bottom: float
    baseline: float
    first: int
    samples: int
    x0: float
    dx: float
    px_per_mv: float


class PagePlan(NamedTuple):
    """A page's numbers, as ``csrc/rasterize_ecg/plan.h`` has them.

    Attributes:
        look: ``(18,)``.
        strips: ``(P, 10)``.
        strokes: ``(M, 5)``.
        groups: ``(G, 6)``.
        boxes: One a strip.
        px_per_mm: Pixels of a mm.
    """

    look: NDArray[np.float64]
    strips: NDArray[np.float64]
    strokes: NDArray[np.float64]
    groups: NDArray[np.float64]
    boxes: tuple[PageBox, ...]
    px_per_mm: float


@dataclass
class _Strokes:
    """Groups of strokes as they come."""

    parts: list[NDArray[np.float64]] = field(default_factory=list)
    groups: list[tuple[float, ...]] = field(default_factory=list)
    count: int = 0

    def put(self, lines: NDArray[np.float64], radius: float) -> None:
        """Takes strokes ``(S, 4)`` of one radius, that lie together."""
        if not len(lines):
            return
        xs, ys = lines[:, [0, 2]], lines[:, [1, 3]]
        box = (xs.min() - radius, ys.min() - radius, xs.max() + radius, ys.max() + radius)
        self.groups.append((*map(float, box), self.count, self.count + len(lines)))
        self.parts.append(np.column_stack([lines, np.full(len(lines), radius)]))
        self.count += len(lines)

    def text(self, words: str, x: float, y: float, height: float) -> None:
        """Writes; x and y are the lower left corner, in pixels, height that of a capital."""
        lines, _ = strokes_of(words)
        scale = height / CAP
        place = lines * [scale, -scale, scale, -scale] + [x, y, x, y]
        self.put(place, max(1.0, height / 9) / 2 + 0.5)


@functools.lru_cache(maxsize=4096)
def page_plan(
    layout: PageLayout,
    style: PageStyle,
    size: tuple[int, int],
    leads: tuple[str, ...],
    fs: float,
    samples: int,
    grey: bool = False,
) -> PagePlan:
    """Fits a record onto a page of ``size`` pixels, height and width.

    The scale, unless the style has one, is the largest at which all of its time fits into the width
    and rows of 15 mm into the height; rows then share the height in steps of 5 mm.

    Raises:
        ValueError: It does not fit at the scale of the style.
    """
    height, width = size
    seconds = samples / fs
    count = len(layout.rows) + len(layout.rhythm)
    width_mm = LEFT_MM + seconds * style.mm_per_s + RIGHT_MM
    least_mm = TOP_MM + count * LEAST_ROW_MM + BOTTOM_MM
    scale = min(width / width_mm, height / least_mm)
    if style.px_per_mm is not None:
        if style.px_per_mm > scale * (1 + 1e-9):
            wanted = (math.ceil(least_mm * style.px_per_mm), math.ceil(width_mm * style.px_per_mm))
            raise ValueError(
                f"{seconds:g} s in {count} rows at px_per_mm {style.px_per_mm:g} take a page of "
                f"{wanted[0]} x {wanted[1]} pixels (height, width) or more, got {height} x "
                f"{width}: take a larger one, fewer seconds, or px_per_mm none, which fits"
            )
        scale = style.px_per_mm
    row_mm = (height / scale - TOP_MM - BOTTOM_MM) / count
    row_mm = max(LEAST_ROW_MM, 5 * math.floor(row_mm / 5 + 1e-9))
    left = (width / scale - width_mm) / 2 + LEFT_MM
    top = (height / scale - count * row_mm) / 2
    radius = max(1.0, style.line_mm * scale) / 2 + 0.5
    drawn = _Strokes()
    strips, boxes = [], []
    rows = [*layout.rows, *((lead,) for lead in layout.rhythm)]
    for r, row in enumerate(rows):
        upper = (top + r * row_mm) * scale
        lower = upper + row_mm * scale
        base = (upper + lower) / 2
        if style.pulse:
            drawn.put(_pulse(left, base, style, scale), radius)
        for c, lead in enumerate(row):
            first = math.ceil(c * samples / len(row) - 1e-9)
            last = min(samples - 1, math.floor((c + 1) * samples / len(row) + 1e-9))
            dx = style.mm_per_s * scale / fs
            box = PageBox(
                lead=lead,
                left=left * scale + first * dx,
                top=upper,
                right=left * scale + last * dx,
                bottom=lower,
                baseline=base,
                first=first,
                samples=last - first + 1,
                x0=left * scale,
                dx=dx,
                px_per_mv=style.mm_per_mv * scale,
            )
            boxes.append(box)
            strips.append(_strip(box, leads, style, size, radius))
            if style.separators and c:
                drawn.put(_separator(box, scale), radius)
            if style.names:
                below = max(upper + (1 + style.name_mm) * scale, base - 8 * scale)
                drawn.text(lead, box.left + 1.5 * scale, below, style.name_mm * scale)
    footer = f"{style.mm_per_s:g} mm/s  {style.mm_per_mv:g} mm/mV"
    footer = footer if style.footer is None else style.footer
    edge = max(1.0, left - LEFT_MM + 5) * scale
    drawn.text(footer, edge, height - 3 * scale, 0.8 * style.name_mm * scale)
    drawn.text(style.header, edge, (3 + style.name_mm) * scale, style.name_mm * scale)
    origin = (left * scale, boxes[0].baseline)
    return PagePlan(
        look=_look(style, origin, scale, grey),
        strips=np.array(strips, np.float64),
        strokes=np.concatenate(drawn.parts) if drawn.parts else np.zeros((0, 5)),
        groups=np.array(drawn.groups, np.float64).reshape(-1, 6),
        boxes=tuple(boxes),
        px_per_mm=scale,
    )


def _look(
    style: PageStyle, origin: tuple[float, float], scale: float, grey: bool
) -> NDArray[np.float64]:
    fine = (scale, style.fine_mm * scale) if style.grid == "mm" else (0.0, 0.0)
    coarse = (5 * scale, style.coarse_mm * scale) if style.grid != "none" else (0.0, 0.0)
    colours = [style.paper, style.fine, style.coarse, style.ink]
    if grey:
        colours = [(float(np.dot(LUMA, c)),) * 3 for c in colours]
    return np.array([*origin, *fine, *coarse, *(v for c in colours for v in c)], np.float64)


def _strip(
    box: PageBox, leads: tuple[str, ...], style: PageStyle, size: tuple[int, int], radius: float
) -> tuple[float, ...]:
    lead = leads.index(box.lead) if box.lead in leads else -1
    shown = (0.0, float(size[0]))
    if style.overflow == "clip":
        shown = (float(max(0, math.floor(box.top))), float(min(size[0], math.ceil(box.bottom))))
    place = (box.x0, box.dx, box.baseline, box.px_per_mv)
    return (float(lead), float(box.first), float(box.samples), *place, *shown, radius)


def _joined(points: list[tuple[float, float]]) -> NDArray[np.float64]:
    return np.array([(*a, *b) for a, b in pairwise(points)], np.float64)


def _pulse(left: float, base: float, style: PageStyle, scale: float) -> NDArray[np.float64]:
    """1 mV for 0.2 s, a mm of baseline on either side, a mm before the traces."""
    end = (left - 2) * scale
    begin = end - PULSE_S * style.mm_per_s * scale
    high = base - PULSE_MV * style.mm_per_mv * scale
    return _joined(
        [
            (begin - scale, base),
            (begin, base),
            (begin, high),
            (end, high),
            (end, base),
            (end + scale, base),
        ]
    )


def _separator(box: PageBox, scale: float) -> NDArray[np.float64]:
    """Two strokes that leave the trace free."""
    ends = [(-5.0, -2.5), (2.5, 5.0)]
    lines = [
        (box.left, box.baseline + a * scale, box.left, box.baseline + b * scale) for a, b in ends
    ]
    return np.array(lines, np.float64)
