"""The network for clips of echocardiograms: a residual network in space and time."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ecgfast.ops import ClipSpec, clip_transform

NETS = ("r3d_18",)
SCALES = ("min_max", "standard", "kinetics")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LEAST_SIDE, MOST_SIDE = 8, 1024  # pixels: a size may come from a file
MOST_WIDTH, MOST_FRAMES = 1024, 1024
MOST_GAIN = 1000.0


class ClipEncoder(nn.Module):
    """R3D-18 on clips, ``(N, C, F, H, W) -> (N, D)``, with D eight times the width: 512.

    The 3-D ResNet of 18 layers of Tran et al., CVPR 2018: a stem of 3 x 7 x 7 with a stride in
    space alone, four stages of two blocks of 3 x 3 x 3, the last three of which halve space and
    time, and the mean over what is left. It is written here, because published weights
    (Kinetics-400) are torchvision's: ``net`` has its names and shapes, so that such a file matches
    to the last weight (``models.pretrained.load_pretrained``). MONAI's ResNet-18 is another
    network: it has a max pool after the stem, a stride in time there, and other names.

    Frames may be any number and of any size; nothing of the network depends on them. What is grey
    is repeated in three channels as published, or rather the stem's weights are summed, which is
    the same number for less work. Clips of uint8 are scaled first, see ``scale``.

    With ``motion`` two of the three channels show what moves instead, see :func:`with_motion`: in
    frames a fifth of a second apart all but little stands still, and the order of frames is then
    not learned in many times the steps (docs/echo.md).

    Args:
        net: ``r3d_18``.
        width: Channels of the first stage; 64 is the published one.
        size: Height and width of a frame, pixels; that and the next three are what a store of clips
            must have, or a window must cut, for this encoder.
        grey: Colours are seen in grey.
        frames: Of a clip.
        step: Frames from one frame of a clip to the next.
        scale: ``min_max`` brings each clip to [0, 1], ``standard`` to zero mean and unit SD, and a
            clip of one level to 0; ``kinetics`` takes the mean and SD of Kinetics-400, of grey the
            means of those of the three colours.
        motion: Two of the three channels show what moves; of grey clips alone.
        dropout: Of the embedding.
        embedding_dim: D; 0 and 8 width are all that it can be.

    Raises:
        ValueError: A number or a name is not as above.

    Example:
        >>> encoder = ClipEncoder(width=4, size=32)
        >>> encoder(torch.zeros(2, 1, 4, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 32])
    """

    luma: Tensor

    def __init__(
        self,
        *,
        net: str = "r3d_18",
        width: int = 64,
        size: int = 112,
        grey: bool = True,
        frames: int = 4,
        step: int = 1,
        scale: Literal["min_max", "standard", "kinetics"] = "min_max",
        motion: bool = False,
        dropout: float = 0.0,
        embedding_dim: int = 0,
    ) -> None:
        super().__init__()
        if net not in NETS or scale not in SCALES:
            raise ValueError(
                f"net must be one of {', '.join(NETS)} and scale one of {', '.join(SCALES)}, got "
                f"{net} and {scale}"
            )
        if not LEAST_SIDE <= size <= MOST_SIDE:
            raise ValueError(f"size must be {LEAST_SIDE} to {MOST_SIDE} pixels, got {size}")
        if not 1 <= width <= MOST_WIDTH or not 0 <= dropout < 1:
            raise ValueError(
                f"width must be 1 to {MOST_WIDTH} and dropout lie in [0, 1), got {width} and "
                f"{dropout}"
            )
        if not 1 <= min(frames, step) <= max(frames, step) <= MOST_FRAMES:
            raise ValueError(f"frames and step must be 1 to {MOST_FRAMES}, got {frames} and {step}")
        if embedding_dim not in (0, 8 * width):
            raise ValueError(f"embedding_dim of width {width} is {8 * width}, got {embedding_dim}")
        if motion and not grey:
            raise ValueError("motion takes two channels of grey clips: grey must be true")
        self.size, self.grey, self.frames, self.step = size, grey, frames, step
        self.motion = motion
        self.spec = ClipSpec(scale=scale)
        self.net = R3D18(width)
        self.embedding_dim = 8 * width
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1, 1), persistent=False)

    def stages(self) -> list[nn.Module]:
        """From the clip to the embedding: the stem and four stages."""
        net = self.net
        return [net.stem, net.layer1, net.layer2, net.layer3, net.layer4]

    def scaled(self, clips: Tensor) -> Tensor:
        """What the net sees, ``(N, C, F, H, W)`` floats, of clips; floats are what they are.

        Raises:
            ValueError: They are not ``(N, C, F, H, W)`` with C 1 or 3, a frame or more, and 8
                pixels a side or more.
            TypeError: They are neither uint8 nor floats.
        """
        if clips.dim() != 5 or clips.shape[1] not in (1, 3):
            raise ValueError(
                f"clips must be (N, C, F, H, W) with C 1 or 3, got {tuple(clips.shape)}"
            )
        if clips.shape[2] < 1 or min(clips.shape[3:]) < LEAST_SIDE:
            raise ValueError(
                f"clips must have a frame or more and {LEAST_SIDE} pixels a side or more, got "
                f"{tuple(clips.shape)}"
            )
        if clips.dtype != torch.uint8 and not clips.is_floating_point():
            raise TypeError(f"clips must be uint8 or of a float dtype, got {clips.dtype}")
        if self.grey and clips.shape[1] == 3:
            grey = (clips * self.luma).sum(1, keepdim=True)
            clips = grey if clips.is_floating_point() else grey.round().to(torch.uint8)
        if clips.is_floating_point():
            return clips
        return clip_transform(clips, spec=self.spec).to(self.luma.dtype)

    def features(self, clips: Tensor) -> Tensor:
        """The last maps ``(N, D, F', H', W')`` of clips, before their mean.

        Of 4 x 112 x 112 they are 1 x 7 x 7, of 16 x 112 x 112 they are 2 x 7 x 7.
        """
        shown = self.scaled(clips)
        maps: Tensor = self.net(with_motion(shown) if self.motion else shown)
        return maps

    def pooled(self, maps: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` of the last maps."""
        embeddings: Tensor = self.dropout(maps.mean(dim=(2, 3, 4)))
        return embeddings

    def forward(self, ecg: Tensor) -> Tensor:
        """Embeds a batch.

        Args:
            ecg: Clips ``(N, C, F, H, W)``, C 1 or 3: uint8, or floats that are scaled already.

        Returns:
            Embeddings ``(N, D)``.

        Raises:
            ValueError: The shape is another one.
            TypeError: The dtype is another one.
        """
        return self.pooled(self.features(ecg))


def with_motion(clips: Tensor) -> Tensor:
    """Clips in one channel and what moves in them in two more.

    What moves is the clip less its mean over time, brought to the SD of the clip, but no more than
    a thousandfold: what stands still is 0, and not its rounding.

    Args:
        clips: ``(N, 1, F, H, W)``, floats.

    Returns:
        ``(N, 3, F, H, W)``.

    Example:
        >>> clip = torch.tensor([0.0, 1.0, 0.1, 1.0]).view(1, 1, 2, 1, 2)
        >>> with_motion(clip)[0, 1, :, 0]  # the left pixel brightens a little, the right one not
        tensor([[-0.6736,  0.0000],
                [ 0.6736,  0.0000]])
    """
    each = (1, 2, 3, 4)
    moves = clips - clips.mean(dim=2, keepdim=True)
    sd = (clips - clips.mean(each, keepdim=True)).square().mean(each, keepdim=True).sqrt()
    own = moves.square().mean(each, keepdim=True).sqrt()  # its mean is 0
    gain = sd / torch.maximum(own, sd / MOST_GAIN).clamp(min=torch.finfo(clips.dtype).tiny)
    moves = moves * gain
    return torch.cat([clips, moves, moves], dim=1)


class R3D18(nn.Module):
    """From ``(N, C, F, H, W)`` to the last maps, under torchvision's names; a classifier is none.

    Args:
        width: Channels of the first stage, doubled by each of the next three.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        """Maps ``(N, 8 width, F / 8, H / 16, W / 16)``, sizes rounded up; one channel is three."""
        conv: Any = self.stem[0]
        weight = conv.weight if clips.shape[1] == 3 else conv.weight.sum(1, keepdim=True)
        x = nn.functional.conv3d(clips, weight, stride=conv.stride, padding=conv.padding)
        x = self.stem[2](self.stem[1](x))
        maps: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return maps


class _Block(nn.Module):
    """Two convolutions of 3 x 3 x 3 beside a way around them."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_conv(width_in, width, 3, stride), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(*_conv(width, width, 3, 1))
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(*_conv(width_in, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width_in, ...) -> (N, width, ...)``."""
        return (self.conv2(self.conv1(x)) + self.downsample(x)).relu()


def _stage(width_in: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(width_in, width, stride), _Block(width, width, 1))


class _Conv(nn.Conv3d):
    """Pads time itself where a kernel of 3 lies on 2 frames on a CPU.

    There the gradient of its weights in bfloat16 is of memory that nobody wrote (oneDNN in torch
    2.13). Clips of 4 frames come to 2 in the second stage, those of 16 in the last.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As of the base."""
        if x.shape[2] != 2 or self.padding[0] != 1 or x.is_cuda:
            return super().forward(x)
        x = nn.functional.pad(x, (0, 0, 0, 0, 1, 1))
        sides = (0, *self.padding[1:])
        return nn.functional.conv3d(x, self.weight, stride=self.stride, padding=sides)


def _conv(width_in: int, width: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = _Conv(width_in, width, kernel, stride=stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm3d(width)
