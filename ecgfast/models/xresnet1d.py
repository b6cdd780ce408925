"""XResNet1d-101, the residual network that led PTB-XL's benchmark."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCKS = (3, 4, 23, 3)  # of each stage
EXPANSION = 4  # of a bottleneck: how many times its inner width it gives
KERNEL = 5  # samples
LEAST_SAMPLES = 32  # the product of all strides: shorter records leave the last stage nothing


class XResNet1d(nn.Module):
    """XResNet1d-101, ``(N, L, T) -> (N, D)``.

    The network of Strodthoff, Wagner, Schaeffter, Samek, IEEE Journal of Biomedical and Health
    Informatics 25(5), 2021, arXiv 2004.13701: ResNet-101 with the changes of He et al., CVPR 2019.
    Three convolutions as stem (stride 2), max pool, four stages of 3, 4, 23 and 3 bottlenecks
    (kernels 1, 5, 1) with strides 1, 2, 2, 2; where a stage strides, the way around averages two
    samples. Unlike an image network's the stages are all equally wide. Each block starts as the
    identity: the gamma of its last batch norm is 0. Mean and maximum over time are both kept.
    Leads mix in the first convolution. Embeddings are not normalised. At 12 leads and the published
    width it has 1,804,672 parameters before what reads the embedding.

    Args:
        num_leads: L.
        embedding_dim: D; none, or 8 width, gives maximum and mean themselves, as published;
            another number puts a linear layer after them.
        dropout: Of maximum and mean; blocks have none. Published: 0.5, in the head.
        width: Inner width of the bottlenecks; even. 64 is the published network.

    Raises:
        ValueError: A size is not positive, or the width is odd.

    Example:
        >>> XResNet1d(12, width=4)(torch.zeros(2, 12, 608)).shape
        torch.Size([2, 32])
    """

    def __init__(
        self,
        num_leads: int = 12,
        embedding_dim: int | None = None,
        *,
        dropout: float = 0.0,
        width: int = 64,
    ) -> None:
        super().__init__()
        if num_leads < 1 or width < 1 or (embedding_dim is not None and embedding_dim < 1):
            raise ValueError(
                "num_leads, embedding_dim and width must be positive, "
                f"got {num_leads}, {embedding_dim} and {width}"
            )
        if width % 2:
            raise ValueError(f"width must be even, half of it is the stem's, got {width}")
        out = EXPANSION * width
        pooled = 2 * out
        self.num_leads = num_leads
        self.embedding_dim = pooled if embedding_dim is None else embedding_dim
        self.stem = nn.Sequential(
            *_conv(num_leads, width // 2, KERNEL, stride=2),
            *_conv(width // 2, width // 2, KERNEL),
            *_conv(width // 2, width, KERNEL),
            nn.MaxPool1d(kernel_size=3, stride=2, padding=1),
        )
        self.blocks = nn.ModuleList()
        for stage, blocks in enumerate(BLOCKS):
            first = _Bottleneck(width if stage == 0 else out, width, 1 if stage == 0 else 2)
            rest = [_Bottleneck(out, width, 1) for _ in range(blocks - 1)]
            self.blocks.append(nn.Sequential(first, *rest))
        self.dropout = nn.Dropout(dropout)
        self.embed: nn.Module = nn.Identity()
        if self.embedding_dim != pooled:
            self.embed = nn.Linear(pooled, self.embedding_dim)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, _Bottleneck):
                nn.init.zeros_(module.last.weight)

    def stages(self) -> list[nn.Module]:
        """From the signal to the embedding: the stem, four stages, the linear layer if any."""
        return [self.stem, *self.blocks, *[self.embed] * isinstance(self.embed, nn.Linear)]

    def forward(self, ecg: Tensor) -> Tensor:
        """Embeds a batch.

        Args:
            ecg: Prepared signals ``(N, L, T)``, T at least 32.

        Returns:
            Embeddings ``(N, D)``.

        Raises:
            ValueError: The shape is not ``(N, L, T)`` with this network's L, or T is too small.
        """
        if ecg.dim() != 3 or ecg.shape[1] != self.num_leads:
            raise ValueError(f"ecg must be (N, {self.num_leads}, T), got {tuple(ecg.shape)}")
        if ecg.shape[2] < LEAST_SAMPLES:
            raise ValueError(
                f"ecg must have {LEAST_SAMPLES} samples or more, got {tuple(ecg.shape)}: "
                "take longer records or a higher rate"
            )
        x = self.stem(ecg)
        for stage in self.blocks:
            x = stage(x)
        pooled = torch.cat([x.amax(dim=-1), x.mean(dim=-1)], dim=1)
        embeddings: Tensor = self.embed(self.dropout(pooled))
        return embeddings


class _Bottleneck(nn.Module):
    """Three convolutions, narrow in between, and a way around them."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.last = nn.BatchNorm1d(out)
        self.path = nn.Sequential(
            *_conv(width_in, width, 1),
            *_conv(width, width, KERNEL, stride=stride),
            nn.Conv1d(width, out, kernel_size=1, bias=False),
        )
        around: list[nn.Module] = []
        if stride != 1:
            around.append(nn.AvgPool1d(kernel_size=2, ceil_mode=True))
        if width_in != out:
            around += _conv(width_in, out, 1)[:2]
        self.shortcut = nn.Sequential(*around)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.last(self.path(x)) + self.shortcut(x))


def _conv(width_in: int, width: int, kernel: int, *, stride: int = 1) -> list[nn.Module]:
    """A convolution, its batch norm, ReLU."""
    conv = nn.Conv1d(width_in, width, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
