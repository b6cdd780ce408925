"""The network for pages of ECG paper, which draws them itself where it gets signals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgfast.ops import LAYOUTS, layout_named, rasterize_ecg

HALF = "efficientnet-b0-half"
NETS = (HALF, *(f"efficientnet-b{n}" for n in range(8)))
B0_BLOCKS = (  # of the paper's table 1, as MONAI spells them
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)
STANDARD = ",".join(LAYOUTS["12x1"].leads)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, colours from 0 to 1
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LEAST_PIXELS = 32  # the product of all strides
MOST_PIXELS = 4096  # of a page that is drawn: a size may come from a file


class PageEncoder(nn.Module):
    """EfficientNet on pages, ``(N, C, H, W) -> (N, D)``, or on signals, ``(N, L, T) -> (N, D)``.

    Signals are drawn first, all in one layout and look, without a gradient; T may be any, the page
    shows what there is in its full width. They must be in mV: what was normalised has no scale on
    paper. A missing sample that comes as 0 is drawn as 0 mV, one that is NaN is a gap. Pages are
    taken as they are, of whatever size. Colours are normalised inside, by ImageNet's mean and SD,
    so that a page is a page wherever it comes from.

    The net is MONAI's: stem, seven stages, last convolution; then the mean over the page, dropout,
    and a linear layer if D is not the width of the features (1,280 of b0, 1,536 of b3). Weights are
    drawn; ``models.pretrained.load_pretrained`` has those of a file.

    Args:
        num_leads: L.
        leads: Their names, separated by commas; those that a layout shows and a record has not
            leave their place free.
        fs: Samples a second of signals, Hz.
        net: ``efficientnet-b0`` to ``efficientnet-b7``, or ``efficientnet-b0-half``, which is b0
            half as wide and half as deep (0.7 million weights, 640 features), for a CPU. There are
            no ImageNet weights of it.
        size: Height and width of the pages that are drawn, pixels.
        layout: Of these: see :func:`ecgfast.ops.rasterize_ecg`.
        grey: Pages are drawn, and colours seen, in grey.
        embedding_dim: D; 0 is the width of the features.
        dropout: Of the features.
        momentum: Of the running statistics of batch norms: the share of the newest batch. ImageNet
            nets were trained with 0.01, which takes hundreds of steps to follow.

    Raises:
        ModuleNotFoundError: MONAI is not installed.
        ValueError: A number or a name is not as above.

    Example:
        >>> encoder = PageEncoder(net="efficientnet-b0", size=64)  # doctest: +SKIP
        >>> encoder(torch.zeros(2, 12, 2500)).shape  # doctest: +SKIP
        torch.Size([2, 1280])
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(
        self,
        num_leads: int = 12,
        *,
        leads: str = STANDARD,
        fs: float = 250.0,
        net: str = "efficientnet-b3",
        size: int = 300,
        layout: str = "3x4+1",
        grey: bool = False,
        embedding_dim: int = 0,
        dropout: float = 0.2,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        names = tuple(leads.split(","))
        if len(names) != num_leads or len(set(names)) < len(names):
            raise ValueError(f"leads must name {num_leads} leads, each once, got {leads}")
        if net not in NETS:
            raise ValueError(f"net must be one of {', '.join(NETS)}, got {net}")
        if not LEAST_PIXELS <= size <= MOST_PIXELS:
            raise ValueError(f"size must be {LEAST_PIXELS} to {MOST_PIXELS} pixels, got {size}")
        if not fs > 0 or embedding_dim < 0 or not 0 <= dropout < 1 or not 0 < momentum <= 1:
            raise ValueError(
                "fs must be positive, embedding_dim 0 or more, dropout in [0, 1), momentum in "
                f"(0, 1], got {fs}, {embedding_dim}, {dropout}, {momentum}"
            )
        layout_named(layout)
        self.leads = names
        self.fs = fs
        self.size = size
        self.layout = layout
        self.grey = grey
        self.net = _efficientnet(net, momentum)
        self.width: int = self.net._bn1.num_features
        self.embedding_dim = embedding_dim or self.width
        self.dropout = nn.Dropout(dropout)
        self.embed: nn.Module = nn.Identity()
        if self.embedding_dim != self.width:
            self.embed = nn.Linear(self.width, self.embedding_dim)
        for name, colours in (("mean", MEAN), ("std", STD), ("luma", LUMA)):
            self.register_buffer(name, torch.tensor(colours).view(1, 3, 1, 1), persistent=False)

    def stages(self) -> list[nn.Module]:
        """From the page to the embedding: the stem, seven stages, what comes after them."""
        net = self.net
        stem = nn.ModuleList([net._conv_stem, net._bn0])
        return [stem, *net._blocks, nn.ModuleList([net._conv_head, net._bn1, self.embed])]

    @torch.no_grad()
    def draw(self, ecg: Tensor) -> Tensor:
        """Pages ``(N, C, size, size)`` uint8 of signals ``(N, L, T)`` in mV."""
        if ecg.dim() != 3 or ecg.shape[1] != len(self.leads):
            raise ValueError(
                f"ecg must be (N, {len(self.leads)}, T), or pages (N, C, H, W), got "
                f"{tuple(ecg.shape)}"
            )
        drawn = rasterize_ecg(
            ecg,
            fs=self.fs,
            layout=self.layout,
            size=(self.size, self.size),
            leads=self.leads,
            channels=1 if self.grey else 3,
        )
        return drawn.images

    def normalised(self, pages: Tensor) -> Tensor:
        """What the net sees, ``(N, 3, H, W)`` floats, of pages.

        Raises:
            ValueError: They are not ``(N, C, H, W)`` with C 1 or 3 and 32 pixels a side or more.
            TypeError: They are neither uint8 nor floats.
        """
        if pages.dim() != 4 or pages.shape[1] not in (1, 3):
            raise ValueError(f"pages must be (N, C, H, W) with C 1 or 3, got {tuple(pages.shape)}")
        if min(pages.shape[2:]) < LEAST_PIXELS:
            raise ValueError(
                f"pages must have {LEAST_PIXELS} pixels a side or more, got {tuple(pages.shape)}"
            )
        if pages.dtype == torch.uint8:
            pages = pages.to(self.mean.dtype) / 255
        elif not pages.is_floating_point():
            raise TypeError(f"pages must be uint8 or of a float dtype, got {pages.dtype}")
        if self.grey and pages.shape[1] == 3:
            pages = (pages * self.luma).sum(dim=1, keepdim=True)
        return (pages - self.mean) / self.std

    def features(self, pages: Tensor) -> Tensor:
        """The last maps ``(N, width, h, w)`` of pages, before their mean."""
        net = self.net
        # channels last, as the CPU's convolutions want it: they would reorder at every layer
        x = self.normalised(pages).contiguous(memory_format=torch.channels_last)
        x = net._swish(net._bn0(net._conv_stem(net._conv_stem_padding(x))))
        x = net._conv_head(net._conv_head_padding(net._blocks(x)))
        maps: Tensor = net._swish(net._bn1(x))
        return maps

    def pooled(self, maps: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` of the last maps."""
        embeddings: Tensor = self.embed(self.dropout(maps.mean(dim=(2, 3))))
        return embeddings

    def forward(self, ecg: Tensor) -> Tensor:
        """Embeds a batch.

        Args:
            ecg: Signals ``(N, L, T)`` in mV, or pages ``(N, C, H, W)``, C 1 or 3: uint8 from 0 to
                255 or floats from 0 to 1.

        Returns:
            Embeddings ``(N, D)``.

        Raises:
            ValueError: The shape is neither.
            TypeError: The dtype is another one.
        """
        return self.pooled(self.features(ecg if ecg.dim() == 4 else self.draw(ecg)))


def _efficientnet(name: str, momentum: float) -> Any:
    """Without classifier, of random weights."""
    try:
        from monai.networks.nets.efficientnet import EfficientNet, EfficientNetBN
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the network {name} for pages comes from MONAI, which cannot be imported here "
            f"({error}): pip install 'ecgfast[nets]'",
            name="monai",
        ) from error
    norm = ("batch", {"eps": 1e-3, "momentum": momentum})
    if name == HALF:
        net = EfficientNet(
            list(B0_BLOCKS), num_classes=1, width_coefficient=0.5, depth_coefficient=0.5, norm=norm
        )
    else:
        net = EfficientNetBN(name, pretrained=False, num_classes=1, norm=norm)
    del net._fc, net._dropout, net._avg_pooling
    return net
