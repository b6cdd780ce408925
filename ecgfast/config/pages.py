"""Pages of ECG paper: the network that sees them, and how a record becomes different ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Net = Literal[
    "none",
    "efficientnet-b0-half",
    "efficientnet-b0",
    "efficientnet-b1",
    "efficientnet-b2",
    "efficientnet-b3",
    "efficientnet-b4",
    "efficientnet-b5",
    "efficientnet-b6",
    "efficientnet-b7",
]
Crop = Literal["none", "auto"] | tuple[float, float, float, float]
MOST_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class PageNet:
    """A network that sees records as pages, which it draws itself.

    Attributes:
        net: An EfficientNet; b0-half is b0 half as wide and deep, for a CPU; none is no network for
            pages, but the one for signals.
        size: Height and width of a page, pixels.
        layout: In which records are drawn: 12x1, 6x2, 3x4, 3x4+1, 3x4+3, 3x4-shuffled:7,
            or rows:I+V1.
        grey: Draw and see in grey.
        embedding_dim: D, by a linear layer; 0 is the width of the network's features.
        dropout: Of the features.
        momentum: Share of the newest batch in the running statistics of batch norms.
        weights: File of weights to begin from, of ImageNet say (.safetensors or .pth); empty draws
            them.
        least_match: Share of the network's weights that the file must have.
    """

    net: Net = "efficientnet-b3"
    size: int = 300
    layout: str = "3x4+1"
    grey: bool = False
    embedding_dim: int = 0
    dropout: float = 0.2
    momentum: float = 0.1
    weights: str = ""
    least_match: float = 0.95

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 4096:
            raise ValueError(f"size of a page must be 32 to 4096 pixels, got {self.size}")
        if self.embedding_dim < 0 or not 0 <= self.dropout < 1 or not 0 < self.momentum <= 1:
            raise ValueError(
                "of a network for pages embedding_dim must be 0 or more, dropout in [0, 1) and "
                f"momentum in (0, 1], got {self.embedding_dim}, {self.dropout}, {self.momentum}"
            )
        if not 0 < self.least_match <= 1:
            raise ValueError(f"least_match must lie in (0, 1], got {self.least_match}")
        if self.weights and self.net == "none":
            raise ValueError(
                "weights are of a network for pages: name its net, efficientnet-b3 say"
            )


@dataclass(frozen=True, kw_only=True)
class PageViews:
    """What is drawn anew for every view of a record: layout, look, and the faults of a scan.

    A pair is the ends of a range that each record draws from. Levels run from 0 to 255.

    Attributes:
        layouts: Of which each record gets one; -shuffled has its leads in other orders.
        looks: How many looks there are: speed, gain, grid, colours, width of the line. The first is
            that of use, the others are drawn.
        shuffles: How many orders of leads.
        rotation_degrees: Turns the page.
        perspective: Most shift of a corner, as a share of the side.
        crop_area: Share of the page that is shown.
        blur_px: SD of a Gaussian, pixels.
        crease_count: Folds.
        light: Share of light that is lost at the darkest end.
        contrast: Factor of the distance from the middle level.
        brightness: Levels that are added.
        gamma: Exponent of the levels.
        colour: Factor of each colour.
        noise: SD of noise, levels.
        jpeg_quality: Of a JPEG that the page went through; none is none.
    """

    layouts: tuple[str, ...] = ("3x4", "3x4+1", "3x4+3", "6x2", "12x1", "3x4-shuffled")
    looks: int = 64
    shuffles: int = 32
    rotation_degrees: tuple[float, float] = (-10.0, 10.0)
    perspective: float = 0.02
    crop_area: tuple[float, float] = (1.0, 1.0)
    blur_px: tuple[float, float] = (0.0, 0.8)
    crease_count: tuple[int, int] = (0, 0)
    light: tuple[float, float] = (0.0, 0.2)
    contrast: tuple[float, float] = (0.7, 1.2)
    brightness: tuple[float, float] = (-25.0, 25.0)
    gamma: tuple[float, float] = (0.8, 1.25)
    colour: tuple[float, float] = (0.9, 1.1)
    noise: tuple[float, float] = (0.0, 8.0)
    jpeg_quality: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.layouts or min(self.looks, self.shuffles) < 1:
            raise ValueError(
                "views need a layout, a look and an order, got "
                f"{len(self.layouts)} layouts, {self.looks} looks, {self.shuffles} shuffles"
            )


@dataclass(frozen=True, kw_only=True)
class PageFit:
    """What becomes of a page on its way to a model.

    Attributes:
        height: Of the page that comes out, pixels.
        width: Likewise.
        grey: One channel (ITU-R BT.601) in place of three.
        aspect: pad keeps the shape of the page and fills up with the colour of its paper, so that a
            mm is as long across as down, as on drawn pages; stretch fills the whole.
        crop: none; auto trims borders of one colour; or left, top, right, bottom: shares of the
            page if all are 1 or less, else pixels.
    """

    height: int
    width: int
    grey: bool = False
    aspect: Literal["pad", "stretch"] = "pad"
    crop: Crop = "none"

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if not 8 <= getattr(self, name) <= MOST_SIDE:
                raise ValueError(f"{name} must be 8 to {MOST_SIDE}, got {getattr(self, name)}")
        if self.aspect not in ("pad", "stretch"):
            raise ValueError(f"aspect must be pad or stretch, got {self.aspect}")
        if isinstance(self.crop, str):
            if self.crop not in ("none", "auto"):
                raise ValueError(f"crop must be none, auto or four numbers, got {self.crop}")
        else:
            left, top, right, bottom = self.crop
            if not (0 <= left < right and 0 <= top < bottom and max(self.crop) < float("inf")):
                raise ValueError(
                    f"crop must be left < right and top < bottom, none negative, got {self.crop}"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of what comes out."""
        return (1 if self.grey else 3, self.height, self.width)

    def line(self) -> str:
        """For people."""
        colour = "grey" if self.grey else "colour"
        crop = "" if self.crop == "none" else f", crop {self.crop}"
        return (
            f"pages of {self.height} x {self.width} pixels in {colour}, aspect {self.aspect}{crop}"
        )

    def plain(self) -> dict[str, Any]:
        """Plain values."""
        crop = self.crop if isinstance(self.crop, str) else list(self.crop)
        return asdict(self) | {"crop": crop}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> PageFit:
        """From plain values, of which nothing is believed before it is checked.

        Raises:
            ValueError: A value is not what it must be, or one is missing or unknown.
        """
        kinds: dict[str, tuple[type, ...]] = {"height": (int,), "width": (int,), "grey": (bool,)}
        kinds |= {"aspect": (str,), "crop": (str, list)}
        if not isinstance(values, dict) or set(values) != set(kinds):
            raise ValueError(f"pages must have {', '.join(kinds)}, got {values!r:.200}")
        for name, kind in kinds.items():
            if type(values[name]) not in kind:  # a truth value is a number, but not here
                raise ValueError(f"pages.{name} is of type {type(values[name]).__name__}")
        crop = values["crop"]
        if isinstance(crop, list):
            if len(crop) != 4 or not all(type(n) in (int, float) for n in crop):
                raise ValueError(f"pages.crop must be four numbers, got {crop!r:.80}")
            crop = tuple(float(n) for n in crop)
        return cls(**{**values, "crop": crop})
