"""Clips of echocardiograms: what a store's frames are, the network that sees clips, its views."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

MOST_SIDE = 1024
MOST_FRAMES = 2**20  # of a video: a clip is named by its video and its first frame


@dataclass(frozen=True, kw_only=True)
class ClipFit:
    """What becomes of the frames of a video on their way to a model.

    Attributes:
        size: Height and width of the frames that come out, pixels.
        grey: One channel (ITU-R BT.601) in place of three; B-mode has no colour.
        mask: sector keeps the fan that moves and blackens all around it: names, scales, the ECG's
            strip. none keeps frames as they are, burnt-in names too.
        fps: Frames a second that all videos are brought to, each the nearest in time; 0 leaves them
            as they were recorded.
    """

    size: int = 112
    grey: bool = True
    mask: Literal["sector", "none"] = "sector"
    fps: float = 0.0

    def __post_init__(self) -> None:
        if not 8 <= self.size <= MOST_SIDE:
            raise ValueError(f"size must be 8 to {MOST_SIDE}, got {self.size}")
        if self.mask not in ("sector", "none"):
            raise ValueError(f"mask must be sector or none, got {self.mask}")
        if not 0 <= self.fps <= 1000:
            raise ValueError(f"fps must be 0 to 1000, got {self.fps}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of a frame."""
        return (1 if self.grey else 3, self.size, self.size)

    def line(self) -> str:
        """For people."""
        colour = "grey" if self.grey else "colour"
        rate = f", {self.fps:g} frames/s" if self.fps else ""
        return f"frames of {self.size} x {self.size} pixels in {colour}, mask {self.mask}{rate}"

    def plain(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> ClipFit:
        """From plain values, of which nothing is believed before it is checked.

        Raises:
            ValueError: A value is not what it must be, or one is missing or unknown.
        """
        kinds: dict[str, tuple[type, ...]] = {"size": (int,), "grey": (bool,), "mask": (str,)}
        kinds |= {"fps": (int, float)}
        if not isinstance(values, dict) or set(values) != set(kinds):
            raise ValueError(f"clips must have {', '.join(kinds)}, got {values!r:.200}")
        for name, kind in kinds.items():
            if type(values[name]) not in kind:  # a truth value is a number, but not here
                raise ValueError(f"clips.{name} is of type {type(values[name]).__name__}")
        return cls(**{**values, "fps": float(values["fps"])})


@dataclass(frozen=True, kw_only=True)
class ClipNet:
    """A network that sees clips.

    Attributes:
        net: r3d_18 is the 3-D ResNet of 18 layers; none is no network for clips.
        width: Channels of the first stage; 64 is the published one.
        size: Height and width of a frame, pixels.
        grey: See frames in grey.
        frames: Of a clip.
        step: Frames from one frame of a clip to the next; 1 takes successive ones.
        scale: min_max brings each clip to [0, 1]; standard brings each to zero mean and unit SD;
            kinetics takes the mean and SD of Kinetics-400.
        motion: Two of the three channels that a network is made for show what moves: grey clips
            less their mean over time, as strong as the clip itself.
        dropout: Of the embedding.
        weights: File of weights to begin from, of Kinetics-400 say (.safetensors or .pth); empty
            draws them.
        least_match: Share of the network's weights that the file must have.
    """

    net: Literal["none", "r3d_18"] = "r3d_18"
    width: int = 64
    size: int = 112
    grey: bool = True
    frames: int = 4
    step: int = 1
    scale: Literal["min_max", "standard", "kinetics"] = "min_max"
    motion: bool = False
    dropout: float = 0.0
    weights: str = ""
    least_match: float = 0.95

    def __post_init__(self) -> None:
        if not 8 <= self.size <= MOST_SIDE:
            raise ValueError(f"size of a frame must be 8 to {MOST_SIDE} pixels, got {self.size}")
        if not 1 <= self.frames <= 1024 or not 1 <= self.step <= 1024:
            raise ValueError(
                f"frames and step must be 1 to 1024, got {self.frames} and {self.step}"
            )
        if not 1 <= self.width <= 1024 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"width must be 1 to 1024 and dropout lie in [0, 1), got {self.width} and "
                f"{self.dropout}"
            )
        if self.motion and (not self.grey or self.scale == "kinetics"):
            raise ValueError(
                "motion takes two channels of grey clips, and weights of Kinetics-400 know colours "
                f"there: grey must be true and scale not kinetics, got {self.grey} and {self.scale}"
            )
        if not 0 < self.least_match <= 1:
            raise ValueError(f"least_match must lie in (0, 1], got {self.least_match}")
        if self.weights and self.net == "none":
            raise ValueError("weights are of a network for clips: name its net, r3d_18 say")

    @property
    def span(self) -> int:
        """Frames of a video from the first of a clip to its last."""
        return (self.frames - 1) * self.step + 1


@dataclass(frozen=True, kw_only=True)
class ClipViews:
    """What is drawn anew for every view of a clip; all its frames get the same.

    Attributes:
        pad: Black pixels around the frame, of which a window of the frame's size is cut.
        flip: Share of clips that are mirrored left to right; the heart's left is then right.
        rotate: Share of clips that are turned.
        rotation_degrees: Range of the angle.
        whole_degrees: Turn by whole degrees alone, as published.
    """

    pad: int = 8
    flip: float = 0.0
    rotate: float = 0.5
    rotation_degrees: tuple[float, float] = (-10.0, 10.0)
    whole_degrees: bool = False

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"pad must not be negative, got {self.pad}")
        for name in ("flip", "rotate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        low, high = self.rotation_degrees
        if not -180 <= low <= high <= 180:
            raise ValueError(f"rotation_degrees must rise within [-180, 180], got {low}, {high}")
