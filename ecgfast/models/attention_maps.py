"""Attention maps of the dual-attention network as people can read them: by lead, by sample."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from ecgfast.models.dual_attention import KERNEL, SHRINK, WIDTHS, Maps, tokens_of

SMOOTH = SHRINK / 2  # samples, standard deviation: hides the steps of tokens, and no peak


def lead_attention_of(maps: Maps) -> Tensor | None:
    """How much each lead attends to each, the mean over heads ``(N, 12, 12)``; rows sum to 1.

    Row is who attends (query), column is whom to (key). None without attention over leads.
    """
    return None if maps.leads is None else maps.leads.mean(dim=1)


def token_attention_of(maps: Maps) -> Tensor | None:
    r"""How much of a lead's attention each of its tokens gets, ``(N, 12, S)``; rows sum to 1.

    .. math:: a_s = \frac{1}{H S} \sum_{h, q} A_{hqs},

    the mean of a column of the map over queries and heads. 1 / S is an even share. None without
    attention over time.
    """
    return None if maps.times is None else maps.times.mean(dim=(2, 3))


def token_fields(samples: int) -> Tensor:
    """What each token sees of the signal, ``(S, T)`` float32, each row summing to 1.

    Of a sample's ways through the convolutions to a token, the share: the receptive field of a
    network whose weights are all alike, which is near to a Gaussian (Luo et al., NeurIPS 2016). It
    follows from kernels, strides and borders alone, without gradients or records, and is 0 exactly
    where the sample cannot reach the token: token s sees samples from 32 s - 190 to 32 s + 190, and
    half of what it sees lies from 32 s - 15 to 32 s + 32 (the way around a block looks ahead).
    Group normalisation in the stem, whose mean and variance are those of the whole lead, is not
    counted.

    Args:
        samples: T.

    Raises:
        ValueError: T is not positive.

    Example:
        >>> fields = token_fields(608)
        >>> fields.shape, fields[9].nonzero()[[0, -1]].flatten().tolist()
        (torch.Size([19, 608]), [98, 478])
    """
    if samples < 1:
        raise ValueError(f"samples must be positive, got {samples}")
    lengths = [samples]
    for _ in itertools.pairwise(WIDTHS):
        lengths.append(-(-lengths[-1] // 2))
    seen = torch.eye(lengths[-1], dtype=torch.float64)[:, None]  # all tokens in one pass
    box = torch.full((1, 1, KERNEL), 1 / KERNEL, dtype=torch.float64)
    padding = KERNEL // 2

    def back(x: Tensor) -> Tensor:
        return nn.functional.conv_transpose1d(x, box, padding=padding)

    for length in reversed(lengths[:-1]):
        even = (length + 1) % 2  # the stride forgets whether the length was even
        path = nn.functional.conv_transpose1d(
            back(seen), box, stride=2, padding=padding, output_padding=even
        )
        around = seen.repeat_interleave(2, dim=-1)[..., :length] / 2
        seen = (path + around) / 2
    fields = back(back(seen))[:, 0]
    return (fields / fields.sum(dim=1, keepdim=True)).float()


def painted(attention: Tensor, samples: int) -> Tensor:
    r"""Attention of tokens brought back to samples, ``(N, 12, S) -> (N, 12, T)``.

    With what token s sees of sample t, :math:`K_{st}` of :func:`token_fields` smoothed by a
    Gaussian of 16 samples,

    .. math:: p_t = S \frac{\sum_s a_s K_{st}}{\sum_s K_{st}},

    the mean of the tokens that see a sample. It is in units of an even share, so that leads,
    records and lengths compare: attention that is the same everywhere is 1 everywhere, at the
    borders too, and no sample has more than its tokens have. All records in one product.

    Args:
        attention: Of :func:`token_attention_of`.
        samples: T of the signals that the network saw, padding included.

    Raises:
        ValueError: T samples do not make S tokens.

    Example:
        >>> painted(torch.full((1, 12, 19), 1 / 19), 608).mean().item()
        1.0
    """
    tokens = tokens_of(samples)
    if attention.shape[-1] != tokens:
        raise ValueError(
            f"attention must be (N, 12, {tokens}) for {samples} samples, got "
            f"{tuple(attention.shape)}"
        )
    reach = math.ceil(4 * SMOOTH)
    bell = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * SMOOTH**2))
    fields = nn.functional.conv1d(token_fields(samples)[:, None], bell[None, None], padding=reach)[
        :, 0
    ].to(attention)
    return tokens * attention @ (fields / fields.sum(dim=0, keepdim=True))
