"""Cox's partial likelihood by one sort and one scan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecgfast import _C
from ecgfast.ops._native import place, ready, register, sum_dtype, view

TIES = ("efron", "breslow")


def cox_loss(log_hazard: Tensor, time: Tensor, event: Tensor, *, ties: str = "efron") -> Tensor:
    r"""Asks that who has the event first have the highest hazard of all who are still at risk.

    The negative logarithm of the partial likelihood of proportional hazards (Cox 1972), divided by
    the number of events D. With Breslow's rule for ties (1974)

    .. math:: L = \frac1D \sum_{i: e_i = 1} \Bigl(\log \sum_{j: t_j \ge t_i} \exp x_j - x_i\Bigr)

    Efron's rule (1977) lets those who have their events at one time leave the risk set by and by:
    of the d of them, of whom nobody knows who was first, the k-th from 0 still finds each with
    weight 1 - k/d. Without ties both are the same. Tied times share a risk set, and one who is
    censored at the time of an event was still at risk. Times count by their order alone.

    A higher ``log_hazard`` means an earlier event. What is added to all of them changes nothing.
    All rows are one stratum: a batch is compared within itself, so that a small one says little.
    An event at which nobody else is at risk adds 0; without an event, and of no rows at all, the
    loss is 0 with a zero gradient. No N x N matrix is made; sums are in float64 and relative to
    their largest term, so that large values do not overflow. Autocast does not touch it.

    A ``log_hazard`` that is not finite makes the loss and its whole gradient NaN. So do a wrong
    ``time`` and a wrong ``event`` on CUDA, where a look at them would mean waiting for the device;
    on the CPU they are refused.

    Args:
        log_hazard: ``(N,)``, without unit. Any float dtype and strides.
        time: ``(N,)`` from the start of observation to event or censoring, in any one unit, at
            least 0. Any real dtype, without a gradient.
        event: ``(N,)``, 1 or True where the event was seen, 0 where the row was censored. Any real
            dtype.
        ties: ``"efron"`` or ``"breslow"``.

    Returns:
        Tensor ``()``, float32 (float64 for float64), without unit. Differentiable once, with
        respect to ``log_hazard``.

    Raises:
        ValueError: If shapes or devices differ, ``ties`` is unknown, ``time`` requires a gradient,
            or, on the CPU, a time is not finite or is negative, or an event is not 0 or 1.
        TypeError: If ``log_hazard`` is not of a float dtype, or ``time`` or ``event`` is complex.

    Example:
        >>> cox_loss(torch.zeros(2), torch.tensor([1.0, 2.0]), torch.tensor([1, 0]))
        tensor(0.6931)
    """
    if log_hazard.dim() != 1:
        hint = ": drop the last axis by .squeeze(1)" if log_hazard.shape[1:] == (1,) else ""
        raise ValueError(f"log_hazard must be (N,), got {tuple(log_hazard.shape)}{hint}")
    if not log_hazard.is_floating_point():
        raise TypeError(f"log_hazard must be of a float dtype, got {log_hazard.dtype}")
    for name, tensor in (("time", time), ("event", event)):
        if tensor.shape != log_hazard.shape:
            shape = tuple(log_hazard.shape)
            raise ValueError(f"{name} must be {shape} as log_hazard, got {tuple(tensor.shape)}")
        if tensor.is_complex():
            raise TypeError(f"{name} must be of a real dtype, got {tensor.dtype}")
        if tensor.device != log_hazard.device:
            device = log_hazard.device
            raise ValueError(f"{name} must be on {device} as log_hazard, got {tensor.device}")
        if tensor.requires_grad:
            raise ValueError(f"{name} has no gradient here: pass {name}.detach()")
    if ties not in TIES:
        raise ValueError(f"ties must be 'efron' or 'breslow', got {ties!r}")
    return _CoxLoss.apply(log_hazard, time, event, ties == "efron")


def cox_loss_reference(
    log_hazard: Tensor, time: Tensor, event: Tensor, *, ties: str = "efron"
) -> Tensor:
    """The same in plain torch, by the definition: slow, obvious, the truth for tests."""
    happened = event == 1
    terms = []
    for moment in time[happened].unique():
        at_risk, tied = time >= moment, (time == moment) & happened
        deaths = int(tied.sum())
        for k in range(deaths):
            gone = k / deaths if ties == "efron" else 0.0
            weights = 1 - gone * tied[at_risk].to(log_hazard)
            terms.append(torch.logsumexp(log_hazard[at_risk] + weights.log(), dim=0))
        terms.append(-log_hazard[tied].sum())
    if not terms:
        return (0 * log_hazard).sum()
    return torch.stack(terms).sum() / happened.sum()


def _forward_like(x: Tensor, time: Tensor, event: Tensor, efron: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty((), dtype=sum_dtype(x)), x.new_empty(x.shape, dtype=sum_dtype(x))


@register(
    "cox_loss(Tensor x, Tensor time, Tensor event, bool efron) -> (Tensor, Tensor)", _forward_like
)
def _forward(x: Tensor, time: Tensor, event: Tensor, efron: bool) -> tuple[Tensor, Tensor]:
    x, event = ready(x), ready(event.to(torch.float64))
    if not time.is_cuda:  # else the look would wait for the device
        _expect("time", time, time.isfinite() & (time >= 0), "finite and at least 0")
        _expect("event", event, (event == 0) | (event == 1), "0 (censored) or 1")
    falling, order = time.to(torch.float64).sort(descending=True, stable=True)
    loss, grad = _forward_like(x, time, event, efron)
    scratch = falling.new_empty((4, *falling.shape))
    _C.cox_loss_forward(
        *map(view, (x, order, falling, event, scratch, loss, grad)), efron, place(x)
    )
    return loss, grad


def _expect(name: str, values: Tensor, right: Tensor, wanted: str) -> None:
    """Says which value is wrong, how many are, and what to do."""
    if right.all():
        return
    row = int((~right).nonzero()[0])
    raise ValueError(
        f"{name} must be {wanted}, got {values[row].item()} in row {row}"
        f" ({int((~right).sum())} of {len(values)} rows): mend these rows, or leave them out"
    )


class _CoxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, time: Tensor, event: Tensor, efron: bool) -> Tensor:
        loss, grad = _forward(x, time, event, efron)
        ctx.save_for_backward(grad)
        ctx.dtype = x.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad_loss * grad).to(ctx.dtype), None, None, None
