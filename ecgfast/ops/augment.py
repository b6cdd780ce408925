"""Augmentation of ECGs: time, scale, noise and leads drawn anew, all in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ecgfast import _C
from ecgfast.ops._native import place, ready, register, view

Pair = tuple[float, float]
MAX_SIZES = 16  # as in csrc/augment/contract.h
MAX_COUNT = 1024  # as in csrc/augment/bind.cpp


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """What :func:`augment` draws. The default draws nothing; steps run in this order.

    A pair is the ends of a range that each record draws from anew: uniformly, gains uniformly in
    their logarithm. A draw holds for all leads of a record where the name does not say lead.

    Attributes:
        fs: Samples a second, Hz. Needed for all that is in seconds or Hz.
        warp_strength: How much faster or slower time runs, in [0, 1): a monotone piecewise linear
            map of the record onto itself, speeds drawn in ``1 -+ warp_strength``, then scaled to
            end where the record ends.
        warp_knots: Where the speed changes, evenly spaced over the record.
        shift_s: Most seconds to shift by, either way; what comes in is 0 mV.
        crop_s: Seconds to keep, from a place that is drawn; none keeps all.
        gain: Factor of all leads.
        lead_gain: Factor of each lead, on top.
        flip_p: Probability that all leads change their sign.
        wander_mv: Amplitude of the baseline's wander, a mean of sines: never beyond it.
        wander_hz: Their frequencies.
        wander_sines: How many they are.
        mains_mv: Amplitude of the mains, a sine.
        mains_hz: Its frequency.
        noise_mv: SD of white normal noise, independent in each lead and sample.
        emg_mv: SD of EMG at the top of a burst: white normal noise times the root of a Hann window,
            the largest where bursts overlap. Independent of ``noise_mv``: variances add.
        emg_bursts: How many bursts, whole numbers.
        emg_s: Length of a burst; it may run past the end.
        mask_count: How many segments of all leads to set to 0 mV, whole numbers.
        mask_s: Length of a segment.
        lead_subset_p: Probability to keep a subset of the leads only, the others being 0 mV.
        lead_subset_sizes: Sizes it may have.
        lead_subset_probs: Their probabilities, with sum 1.
        lead_dropout_p: Probability that a lead is set to 0 mV. One lead always stays.
    """

    fs: float | None = None
    warp_strength: float = 0.0
    warp_knots: int = 4
    shift_s: float = 0.0
    crop_s: float | None = None
    gain: Pair = (1.0, 1.0)
    lead_gain: Pair = (1.0, 1.0)
    flip_p: float = 0.0
    wander_mv: Pair = (0.0, 0.0)
    wander_hz: Pair = (0.05, 0.5)
    wander_sines: int = 3
    mains_mv: Pair = (0.0, 0.0)
    mains_hz: float = 50.0
    noise_mv: Pair = (0.0, 0.0)
    emg_mv: Pair = (0.0, 0.0)
    emg_bursts: tuple[int, int] = (1, 3)
    emg_s: Pair = (0.2, 1.0)
    mask_count: tuple[int, int] = (0, 0)
    mask_s: Pair = (0.1, 0.5)
    lead_subset_p: float = 0.0
    lead_subset_sizes: tuple[int, ...] = (2, 3, 4, 6, 8, 12)
    lead_subset_probs: tuple[float, ...] = (0.1, 0.1, 0.1, 0.1, 0.1, 0.5)
    lead_dropout_p: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):  # also from YAML, which has lists
            value = getattr(self, field.name)
            if isinstance(value, Sequence):
                object.__setattr__(self, field.name, tuple(value))
        self._check_numbers()
        self._check_pairs()
        self._check_subset()
        self._check_fs()

    def _check_numbers(self) -> None:
        if not 0 <= self.warp_strength < 1:
            raise ValueError(
                f"warp_strength must be in [0, 1), got {self.warp_strength}: from 1 on time could"
                " stand still or run backwards"
            )
        for name in ("warp_knots", "wander_sines"):
            _expect_count(name, getattr(self, name), 1)
        for name in ("flip_p", "lead_subset_p", "lead_dropout_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.shift_s < math.inf:
            raise ValueError(f"shift_s must be at least 0, got {self.shift_s}")
        if self.crop_s is not None and not 0 < self.crop_s < math.inf:
            raise ValueError(f"crop_s must be positive, got {self.crop_s}")

    def _check_pairs(self) -> None:
        for name in ("wander_mv", "mains_mv", "noise_mv", "emg_mv", "mask_count", "emg_bursts"):
            _expect_pair(name, getattr(self, name), positive=False)
        for name in ("gain", "lead_gain", "wander_hz", "emg_s", "mask_s"):
            _expect_pair(name, getattr(self, name), positive=True)
        for name in ("mask_count", "emg_bursts"):
            for count in getattr(self, name):
                _expect_count(name, count, 0)

    def _check_subset(self) -> None:
        sizes, probs = self.lead_subset_sizes, self.lead_subset_probs
        if not 1 <= len(sizes) <= MAX_SIZES or len(sizes) != len(probs):
            raise ValueError(
                f"lead_subset_sizes and lead_subset_probs must be 1 to {MAX_SIZES} numbers, as"
                f" many of each, got {len(sizes)} and {len(probs)}"
            )
        for size in sizes:
            _expect_count("lead_subset_sizes", size, 1)
        if not all(0 <= p <= 1 for p in probs) or abs(sum(probs) - 1) > 1e-6:
            raise ValueError(
                f"lead_subset_probs must be in [0, 1] with sum 1, got {probs} with sum {sum(probs)}"
            )

    def _check_fs(self) -> None:
        timed = {
            "shift_s": self.shift_s > 0,
            "crop_s": self.crop_s is not None,
            "wander_mv": self.wander_mv[1] > 0,
            "mains_mv": self.mains_mv[1] > 0,
            "emg_mv": self.emg_mv[1] > 0,
            "mask_count": self.mask_count[1] > 0,
        }
        needs = [name for name, on in timed.items() if on]
        if self.fs is None:
            if needs:
                raise ValueError(f"fs (Hz) must be given for {', '.join(needs)}")
            return
        if not 0 < self.fs < math.inf:
            raise ValueError(f"fs must be positive, got {self.fs}")
        for name, highest in (("mains", self.mains_hz), ("wander", self.wander_hz[1])):
            if f"{name}_mv" in needs and not 0 < highest < self.fs / 2:
                raise ValueError(
                    f"{name}_hz must lie under fs / 2 = {self.fs / 2} Hz, got {highest}"
                )

    def length(self, samples: int) -> int:
        """How many samples come out of so many."""
        return samples if self.crop_s is None else round(self.crop_s * (self.fs or 1.0))

    def words(self) -> list[float]:
        """The members of ``Spec`` in csrc/augment/contract.h, in their order."""
        fs = self.fs or 1.0
        emg, masks = self.emg_mv[1] > 0, self.mask_count[1] > 0
        sizes, probs = list(self.lead_subset_sizes), list(self.lead_subset_probs)
        unused = [0.0] * (MAX_SIZES - len(sizes))
        summed = [sum(probs[: i + 1]) for i in range(len(probs))]
        words = [
            *(self.warp_strength, self.warp_knots, self.shift_samples()),
            *(*self.gain, *self.lead_gain, self.flip_p),
            *(*self.wander_mv, self.wander_hz[0] / fs, self.wander_hz[1] / fs, self.wander_sines),
            *(*self.mains_mv, self.mains_hz / fs, *self.noise_mv, *self.emg_mv),
            *(self.emg_bursts if emg else (0, 0)),
            *(self.whole_samples(self.emg_s) if emg else (1, 1)),
            *self.mask_count,
            *(self.whole_samples(self.mask_s) if masks else (1, 1)),
            *(self.lead_dropout_p, self.lead_subset_p, len(sizes)),
            *(*sizes, *unused, *summed, *unused),
        ]
        return [float(word) for word in words]

    def shift_samples(self) -> int:
        """The most samples to shift by."""
        return int(self.shift_s * (self.fs or 1.0))

    def whole_samples(self, seconds: Pair) -> tuple[int, int]:
        """The ends of a range of lengths in samples, at least one."""
        low, high = (max(1, round(s * (self.fs or 1.0))) for s in seconds)
        return low, high


def _expect_count(name: str, count: int, least: int) -> None:
    if count != int(count) or not least <= count <= MAX_COUNT:
        raise ValueError(f"{name} must be whole numbers from {least} to {MAX_COUNT}, got {count}")


def _expect_pair(name: str, pair: Pair, *, positive: bool) -> None:
    wanted = "positive numbers" if positive else "numbers from 0 on"
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1] < math.inf or (positive and pair[0] <= 0):
        raise ValueError(f"{name} must be (low, high), {wanted} with low <= high, got {pair}")


def augment(
    x: Tensor,
    spec: AugmentSpec,
    seed: Tensor | int | None = None,
    *,
    record_ids: Tensor | None = None,
) -> Tensor:
    """Draws variants of ECGs: what ``spec`` names, in the order in which it names it.

    What a record becomes depends on the seed, its id and itself, on nothing else: not on its place
    in the batch, on the batch, or on the number of threads; devices and instruction sets differ by
    rounding. What is switched on or off leaves the draws of the rest alone. Two views of a batch
    are two calls with two seeds.

    Signals are not filtered after the warp or the noise. A NaN stays a NaN at its place, wherever
    that has moved, and between samples that the warp reads it with; masked samples and left-out
    leads are 0 mV in any case. No gradient passes.

    Args:
        x: Signals, ``(N, L, T)`` in mV. Any float dtype and strides.
        spec: What to draw from.
        seed: One int64, on any device; a tensor keeps its place in a CUDA graph. If none, one is
            drawn from torch's generator, which ``torch.manual_seed`` sets.
        record_ids: ``(N,)`` int64, who the records are, from ``-2**63`` on. ``0 .. N - 1`` if none;
            give the data set's own if a record's variant must not depend on its place.

    Returns:
        Tensor ``(N, L, S)`` in mV of the dtype of ``x``; S is T without a crop. Not differentiable.

    Raises:
        ValueError: If a shape or a dtype is not as above, ``x`` requires a gradient, or ``spec``
            asks for more samples or leads than there are.
        TypeError: If ``x`` is not of a float dtype.

    Example:
        >>> spec = AugmentSpec(fs=500.0, crop_s=5.0, noise_mv=(0.0, 0.05), lead_dropout_p=0.1)
        >>> augment(torch.randn(8, 12, 5000), spec, 7).shape
        torch.Size([8, 12, 2500])
    """
    if x.dim() != 3:
        raise ValueError(f"x must be (N, L, T), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be of a float dtype, got {x.dtype}")
    if x.requires_grad and torch.is_grad_enabled():
        raise ValueError("augment passes no gradient, but x requires one: pass x.detach()")
    _expect_room(spec, x.shape[1], x.shape[2])
    if seed is None:
        seed = torch.randint(2**63 - 1, (1,), device=x.device)
    elif isinstance(seed, int):
        seed = torch.full((1,), seed, dtype=torch.int64, device=x.device)
    if seed.numel() != 1 or seed.dtype != torch.int64:
        raise ValueError(f"seed must be one int64, got {tuple(seed.shape)} of {seed.dtype}")
    if record_ids is None:
        record_ids = torch.arange(x.shape[0], device=x.device)
    if record_ids.shape != x.shape[:1] or record_ids.dtype != torch.int64:
        raise ValueError(
            f"record_ids must be (N,) = ({x.shape[0]},) int64, got {tuple(record_ids.shape)} of"
            f" {record_ids.dtype}"
        )
    seed, record_ids = seed.reshape(1).to(x.device), record_ids.to(x.device)
    y: Tensor = _augment(x.detach(), seed, record_ids, spec.length(x.shape[2]), spec.words())
    return y


def _expect_room(spec: AugmentSpec, leads: int, samples: int) -> None:
    """What can be known of a spec only once the signals are there."""
    length = spec.length(samples)
    if samples == 0:
        raise ValueError("x has no samples")
    if not 0 < length <= samples:
        raise ValueError(
            f"crop_s = {spec.crop_s} s is {length} samples, but x has {samples} a lead"
            f" at {spec.fs} Hz"
        )
    if spec.warp_strength > 0 and spec.warp_knots + 2 > samples:
        raise ValueError(f"{spec.warp_knots} warp_knots need more samples than {samples}")
    if spec.shift_samples() > samples:
        raise ValueError(f"shift_s = {spec.shift_s} s is longer than x, {samples} samples")
    if spec.mask_count[1] > 0 and spec.whole_samples(spec.mask_s)[1] > length:
        raise ValueError(
            f"mask_s reaches {spec.mask_s[1]} s, longer than the {length} samples that come out"
        )
    largest = max(spec.lead_subset_sizes)
    if spec.lead_subset_p > 0 and largest > leads:
        raise ValueError(f"lead_subset_sizes reach {largest}, but x has {leads} leads")


def _columns(words: list[float], leads: int) -> int:
    """Of the plan, as columns_of in csrc/augment/plan.h."""
    warp, knots, sines, bursts, segments = words[0], words[1], words[12], words[21], words[25]
    return 6 + int((knots + 2 if warp > 0 else 0) + 2 * (sines + bursts + segments)) + leads


def _augment_like(
    x: Tensor, seed: Tensor, record_ids: Tensor, length: int, spec: Sequence[float]
) -> Tensor:
    return x.new_empty((*x.shape[:2], length))


@register(
    "augment(Tensor x, Tensor seed, Tensor record_ids, SymInt length, float[] spec) -> Tensor",
    _augment_like,
)
def _augment(
    x: Tensor, seed: Tensor, record_ids: Tensor, length: int, spec: Sequence[float]
) -> Tensor:
    dtype, x = x.dtype, ready(x)
    words = list(spec)
    y = _augment_like(x, seed, record_ids, length, words)
    plan = x.new_empty((x.shape[0], _columns(words, x.shape[1])), dtype=torch.float64)
    where = place(x)
    padded = -(-length // 64) * 64  # whole tiles of the CPU kernel
    scratch = x.new_empty((where[2], 0 if x.is_cuda else 16 * padded), dtype=torch.uint8)
    _C.augment(
        view(x), view(seed), view(record_ids), view(plan), view(scratch), view(y), words, where
    )
    return y.to(dtype) if y.dtype != dtype else y
