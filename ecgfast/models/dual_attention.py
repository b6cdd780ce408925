"""The dual-attention network: attention over time within each lead, and over leads."""

from __future__ import annotations

import itertools
import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ecgfast.ops import lead_attention, lead_attention_maps
from ecgfast.ops.lead_attention import lead_attention_reference

LEADS = 12
HEADS = 8
WIDTHS = (4, 8, 16, 16, 16, 16)  # features of a lead: before the residual blocks, then after each
SHRINK = 2 ** (len(WIDTHS) - 1)  # samples a token
KERNEL = 5  # samples
Attention = Literal["parallel", "sequential", "leads", "time", "none"]


class Maps(NamedTuple):
    """Who attended to whom: query by key, the weights of a query sum to 1; no gradient.

    Attributes:
        leads: ``(N, heads, 12, 12)``, or None without attention over leads.
        times: ``(N, 12, heads, S, S)``, or None without attention over time.
    """

    leads: Tensor | None
    times: Tensor | None


def tokens_of(samples: int) -> int:
    """S, how many tokens a lead of so many samples becomes: one for every 32, the last in part."""
    return -(-samples // SHRINK)


class DualAttention(nn.Module):
    """Attention over time in each lead beside attention over leads, ``(N, 12, T) -> (N, D)``.

    The encoder of Chen et al., IEEE Transactions on Big Data 2025, arXiv 2403.10581. Two
    convolutions give each lead 4 features, five residual blocks make S = T / 32 tokens of 16
    features of it. Twelve transformer blocks, one a lead, attend over its tokens; one transformer
    block attends over the leads, whose tokens are their 16 S features. The sum of both is pooled
    over time, by mean and by maximum. Embeddings are not normalised.

    The network as published mixes the leads before it attends to them: its second convolution sees
    them all, and its reshape takes channels of several leads for one lead. What it shows as
    attention between leads is attention between mixtures. ``mode="fixed"`` keeps leads apart until
    the attention over leads (BatchNorm alone, while training, takes its statistics over all of
    them). ``mode="faithful"`` is the published network, 1.27 million parameters at 608 samples; it
    also leaves out the dropout of positional encodings, whose switch was inverted.

    Attention weights are not dropped; where the blocks have dropout, it is on the positional
    encodings (``fixed``) and on what attention and MLP add.

    Args:
        samples: T that the network is for.
        embedding_dim: D, an even number: one half is the mean pool's, the other the maximum's.
        mode: ``fixed`` or ``faithful``.
        attention: ``parallel`` adds both attentions of the same input; ``sequential`` attends over
            leads after time; ``leads``, ``time`` and ``none`` leave the others out.
        lead_tokens: Most tokens of a lead that attention over leads takes as the features of its
            one token; of a longer signal they are the means of so many equal stretches, and what
            attention adds to a stretch it adds to all of its tokens. The published network, which
            sees median beats of 608 samples, has 19, and 1.1 million parameters there; as many as
            S would be 76 million for 10 s at 500 Hz.
        share_time: One temporal block for all leads, instead of one for each.
        dropout: Of the attention blocks.

    Example:
        >>> encoder = DualAttention().eval()
        >>> embeddings, maps = encoder(torch.zeros(2, 12, 608), maps=True)
        >>> embeddings.shape, maps.leads.shape, maps.times.shape
        (torch.Size([2, 512]), torch.Size([2, 8, 12, 12]), torch.Size([2, 12, 8, 19, 19]))
    """

    def __init__(
        self,
        samples: int = 608,
        embedding_dim: int = 512,
        *,
        mode: Literal["fixed", "faithful"] = "fixed",
        attention: Attention = "parallel",
        lead_tokens: int = 19,
        share_time: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if samples < 1 or lead_tokens < 1:
            raise ValueError(
                f"samples and lead_tokens must be positive, got {samples} and {lead_tokens}"
            )
        if embedding_dim < 2 or embedding_dim % 2:
            raise ValueError(f"embedding_dim must be even and positive, got {embedding_dim}")
        if mode not in ("fixed", "faithful"):
            raise ValueError(f"mode must be fixed or faithful, got {mode}")
        if attention not in get_args(Attention):
            raise ValueError(f"attention must be {', '.join(get_args(Attention))}, got {attention}")
        self.tokens = tokens_of(samples)
        self.lead_tokens = min(self.tokens, lead_tokens)
        self.longer = (
            lead_tokens <= self.tokens
        )  # then any number of tokens beyond comes down to it
        self.mode = mode
        self.attention = attention
        self.embedding_dim = embedding_dim
        fixed = mode == "fixed"
        channels, features = LEADS * WIDTHS[0], WIDTHS[-1]
        padding = KERNEL // 2
        self.stem = nn.Sequential(
            nn.Conv1d(LEADS, channels, KERNEL, padding=padding, groups=LEADS),
            nn.GroupNorm(LEADS, channels),
            nn.GELU(),
            nn.Conv1d(channels, channels, KERNEL, padding=padding, groups=LEADS if fixed else 1),
            nn.GroupNorm(LEADS, channels),
            nn.GELU(),
        )
        self.blocks = nn.Sequential(*(_Residual(*widths) for widths in itertools.pairwise(WIDTHS)))
        self.over_time: _Block | None = None
        if attention in ("parallel", "sequential", "time"):
            groups = 1 if share_time else LEADS
            grouped = GroupedAttention(features, HEADS, groups)
            self.over_time = _Block(grouped, features, groups, dropout, fixed)
        self.over_leads: _Block | None = None
        if attention in ("parallel", "sequential", "leads"):
            width = features * self.lead_tokens
            self.over_leads = _Block(_OverLeads(width), width, 1, dropout, fixed)
        self.mean_pool = nn.Conv1d(LEADS * features, embedding_dim // 2, kernel_size=1)
        self.max_pool = nn.Conv1d(LEADS * features, embedding_dim // 2, kernel_size=1)

    def stages(self) -> list[nn.Module]:
        """From the signal to the embedding: the stem, residual blocks, attention, both pools."""
        attention = [block for block in (self.over_time, self.over_leads) if block is not None]
        pools = nn.ModuleList([self.mean_pool, self.max_pool])
        return [self.stem, *self.blocks, nn.ModuleList(attention), pools]

    def features(self, ecg: Tensor) -> Tensor:
        """What attention sees: tokens of each lead, ``(N, 12, S, 16)``, as the lead has them."""
        x = self.stem(ecg)
        if self.mode == "fixed":  # channels stand lead by lead
            x = x.unflatten(1, (LEADS, WIDTHS[0])).transpose(1, 2)
        else:
            x = x.unflatten(1, (WIDTHS[0], LEADS))
        return self.blocks(x).permute(0, 2, 3, 1)

    def forward(self, ecg: Tensor, *, maps: bool = False) -> Tensor | tuple[Tensor, Maps]:
        """Embeds a batch.

        Args:
            ecg: Prepared signals ``(N, 12, T)``.
            maps: Whether to return the attention maps too.

        Returns:
            Embeddings ``(N, D)``; with ``maps`` these and :class:`Maps`.

        Raises:
            ValueError: The shape is not ``(N, 12, T)``, T is zero, or this network attends over
                leads and T is not one of the lengths that give its number of tokens.
        """
        if ecg.dim() != 3 or ecg.shape[1] != LEADS or ecg.shape[2] == 0:
            raise ValueError(f"ecg must be (N, {LEADS}, T), got {tuple(ecg.shape)}")
        tokens = tokens_of(ecg.shape[2])
        if self.over_leads is not None and (
            tokens < self.lead_tokens if self.longer else tokens != self.tokens
        ):
            least, most = SHRINK * (self.lead_tokens - 1) + 1, SHRINK * self.tokens
            raise ValueError(
                f"ecg must have {least} {'' if self.longer else f'to {most} '}samples"
                f"{' or more' if self.longer else ''}, got {tuple(ecg.shape)}: crop or pad, or"
                f" build DualAttention(samples={ecg.shape[2]})"
            )
        x = self.features(ecg)
        by_time = by_leads = None
        attended = x
        if self.over_time is not None:
            attended, by_time = self.over_time(x, maps)
        if self.over_leads is not None:
            before = attended if self.attention == "sequential" else x
            y, by_leads = self._across(before, maps)
            attended = attended + y if self.attention == "parallel" else y
        flat = attended.transpose(2, 3).flatten(1, 2)  # (N, 12 * 16, S)
        embeddings = torch.cat(
            [self.mean_pool(flat).mean(dim=-1), self.max_pool(flat).amax(dim=-1)], dim=-1
        )
        return (embeddings, Maps(by_leads, by_time)) if maps else embeddings

    def _across(self, x: Tensor, maps: bool) -> tuple[Tensor, Tensor | None]:
        """The block over leads: tokens ``(N, 12, S, 16)`` to the like, and its maps."""
        assert self.over_leads is not None
        tokens = x.shape[2]
        if tokens == self.lead_tokens:
            y, weights = self.over_leads(x.flatten(2)[:, None], maps)
            y = y.reshape(x.shape)
        else:
            pooled = nn.functional.adaptive_avg_pool2d(x.transpose(2, 3), (None, self.lead_tokens))
            before = pooled.transpose(2, 3)
            y, weights = self.over_leads(before.flatten(2)[:, None], maps)
            added = y.reshape(before.shape) - before
            places = torch.arange(tokens, device=x.device) * self.lead_tokens // tokens
            y = x + added[:, :, places]
        return y, None if weights is None else weights[:, 0]


class DualAttentionDecoder(nn.Module):
    """Draws the signal from its embedding, ``(N, D) -> (N, 12, T)``.

    Two linear layers give each lead 4 features of S tokens; five blocks double their number five
    times; each lead then has a scale and an offset of its own, and is normalised to zero mean and
    unit variance, as the signals are that the network is trained on. 0.11 million parameters at
    608 samples.

    Args:
        samples: T.
        embedding_dim: D.

    Example:
        >>> DualAttentionDecoder()(torch.randn(2, 512)).shape
        torch.Size([2, 12, 608])
    """

    def __init__(self, samples: int = 608, embedding_dim: int = 512) -> None:
        super().__init__()
        if samples < 1 or embedding_dim < 1:
            raise ValueError(
                f"samples and embedding_dim must be positive, got {samples} and {embedding_dim}"
            )
        self.samples = samples
        self.tokens = tokens_of(samples)
        self.expand = nn.Sequential(
            nn.Linear(embedding_dim, 4 * self.tokens),
            nn.GELU(),
            nn.Linear(4 * self.tokens, WIDTHS[0] * LEADS * self.tokens),
        )
        widths = (WIDTHS[0], *WIDTHS[:1:-1], 1)  # 4, then back along the encoder's to 1
        steps = list(itertools.pairwise(widths))
        blocks: list[nn.Module] = []
        for width_in, width in steps[:-1]:
            blocks += [_double(width_in, width), nn.BatchNorm2d(width), nn.GELU()]
        self.blocks = nn.Sequential(*blocks, _double(*steps[-1]))
        self.per_lead = nn.Conv1d(LEADS, LEADS, kernel_size=1, groups=LEADS)
        self.norm = nn.InstanceNorm1d(LEADS)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Signals ``(N, 12, T)``, each lead of zero mean and unit variance, from ``(N, D)``."""
        x = self.expand(embeddings).unflatten(1, (WIDTHS[0], LEADS, self.tokens))
        signal: Tensor = self.norm(self.per_lead(self.blocks(x)[:, 0, :, : self.samples]))
        return signal


class GroupedAttention(nn.Module):
    """Multi-head self-attention with weights of its own for each group, in one kernel.

    What a loop over so many ``nn.MultiheadAttention`` computes, without dropout of the weights. All
    groups go through one batched product in, :func:`ecgfast.ops.lead_attention`, and one out.

    Args:
        width: D, columns of a token.
        heads: Heads, a divisor of D.
        groups: G. The first axis of tokens is the group's.
    """

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = _GroupedLinear(groups, width, 3 * width)
        self.project_out = _GroupedLinear(groups, width, width)
        for weight in self.project_in.weight:  # both starts are those of nn.MultiheadAttention
            nn.init.xavier_uniform_(weight)
        for projection in (self.project_in, self.project_out):
            nn.init.zeros_(projection.bias)

    def forward(self, tokens: Tensor, *, maps: bool = False) -> tuple[Tensor, Tensor | None]:
        """``(G, N, S, D) -> (G, N, S, D)``, and maps ``(G, N, heads, S, S)`` if asked for."""
        qkv = self.project_in(tokens)
        if maps:
            y, weights = lead_attention_maps(qkv, heads=self.heads)
            return self.project_out(y), weights
        if torch.compiler.is_exporting():  # a graph for other runtimes has no kernel of ours
            return self.project_out(lead_attention_reference(qkv, heads=self.heads)), None
        return self.project_out(lead_attention(qkv, heads=self.heads)), None


class _GroupedLinear(nn.Module):
    """``(G, N, S, C) -> (G, N, S, C')``, a linear layer for each group."""

    def __init__(self, groups: int, width_in: int, width: int) -> None:
        super().__init__()
        bound = width_in**-0.5  # as nn.Linear starts
        self.weight = nn.Parameter(torch.empty(groups, width_in, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, 1, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.flatten(1, 2), self.weight).unflatten(1, x.shape[1:3])


class _GroupedNorm(nn.Module):
    """Layer normalisation of ``(G, N, S, C)`` with a scale and an offset for each group."""

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(groups, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(groups, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class _OverLeads(nn.Module):
    """Plain multi-head self-attention of one group, for heads too wide for the kernel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, tokens: Tensor, *, maps: bool = False) -> tuple[Tensor, Tensor | None]:
        x = tokens[0]
        if maps and not len(x):  # of which torch gives no weights
            nothing = x.new_zeros(0, HEADS, x.shape[1], x.shape[1])
            return tokens, nothing[None]
        y, weights = self.attention(x, x, x, need_weights=maps, average_attn_weights=False)
        return y[None], weights[None].detach() if maps else None


class _Block(nn.Module):
    """A transformer block that normalises first: positions, attention, MLP, of each group."""

    def __init__(
        self, attention: nn.Module, width: int, groups: int, dropout: float, drop_positions: bool
    ) -> None:
        super().__init__()
        self.groups = groups
        self.positions = nn.Dropout(dropout if drop_positions else 0.0)
        self.norm_attention = _GroupedNorm(groups, width)
        self.attention = attention
        self.drop_attention = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            _GroupedNorm(groups, width),
            _GroupedLinear(groups, width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            _GroupedLinear(groups, 4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, maps: bool) -> tuple[Tensor, Tensor | None]:
        """``(N, L, S, C) -> (N, L, S, C)``, and maps ``(N, L, heads, S, S)`` if asked for."""
        records, leads, tokens, width = x.shape
        x = x.transpose(0, 1).contiguous().view(self.groups, -1, tokens, width)
        x = self.positions(x + _positions(x))
        y, weights = self.attention(self.norm_attention(x), maps=maps)
        x = x + self.drop_attention(y)
        x = x + self.mlp(x)
        if weights is not None:
            weights = weights.reshape(leads, records, *weights.shape[2:]).transpose(0, 1)
        return x.view(leads, records, tokens, width).transpose(0, 1), weights


def _positions(x: Tensor) -> Tensor:
    """Sinusoidal encodings ``(S, C)`` for tokens ``(..., S, C)`` of even C (Vaswani 2017)."""
    tokens, width = x.shape[-2:]
    position = torch.arange(tokens, device=x.device, dtype=torch.float64)
    octaves = torch.arange(0, width, 2, device=x.device, dtype=torch.float64)
    angle = position[:, None] * torch.exp(octaves * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).to(x.dtype)


class _Residual(nn.Module):
    """Two convolutions along time, the first of stride 2, and a way around them."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        kernel, padding = (1, KERNEL), (0, KERNEL // 2)
        self.path = nn.Sequential(
            nn.Conv2d(width_in, width, kernel, stride=(1, 2), padding=padding),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
            nn.Conv2d(width, width, kernel, padding=padding),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Sequential(
            nn.MaxPool2d((1, 2), ceil_mode=True), nn.Conv2d(width_in, width, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.path(x) + self.shortcut(x))


def _double(width_in: int, width: int) -> nn.Module:
    """Twice as many samples."""
    return nn.ConvTranspose2d(width_in, width, (1, 4), stride=(1, 2), padding=(0, 1))
