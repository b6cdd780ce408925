"""What systems share: encoders by their description, signals that must fit, preparation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ecgfast.config import Signal
from ecgfast.data.source import Source
from ecgfast.models.heads import Head
from ecgfast.models.resnet1d import ResNet1d
from ecgfast.train.contract import Contract, ContractError, check_signal
from ecgfast.transforms.signal import Prepare

ENCODERS: dict[str, type[nn.Module]] = {"ResNet1d": ResNet1d}
MOST_PARAMETERS = 2**29
HEADS: dict[str, type[nn.Module]] = {"Head": Head}


def make_encoder(**arguments: Any) -> tuple[ResNet1d, dict[str, Any]]:
    """The encoder, and how a contract describes it."""
    return ResNet1d(**arguments), {"class": "ResNet1d", "arguments": arguments}


def from_description(part: dict[str, Any], known: dict[str, type[nn.Module]]) -> Any:
    """A module with new weights, from what a contract says of it.

    Raises:
        ContractError: The class is not known here, or its arguments are others.
    """
    name, arguments = part["class"], part["arguments"]
    if name not in known:
        raise ContractError(
            f"error[contract] the model is a {name}; this ecgfast knows {', '.join(known)}"
        )
    try:
        with torch.device("meta"):  # costs nothing, whatever sizes a foreign file asks for
            count = sum(p.numel() for p in known[name](**arguments).parameters())
        if count > MOST_PARAMETERS:
            raise ValueError(f"it would have {count} parameters, {MOST_PARAMETERS} are allowed")
        return known[name](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ContractError(f"error[contract] {name} does not take {arguments}: {error}") from error


def preparation(signal: Signal) -> Prepare:
    """Filters and normalisation of a contract."""
    return Prepare(fs=signal.fs, band=signal.band, notch=signal.notch, normalise=signal.normalise)


def check_source(source: Source, signal: Signal, *, chosen: bool = False) -> None:
    """Refuses records of other leads, rate or length.

    Args:
        source: The records.
        signal: What is expected of them.
        chosen: By the user; otherwise by an encoder that is there.

    Raises:
        ContractError: Names what differs.
    """
    for what, given in source.signals.items():
        way = (
            f"to train on these records as they are: --signal.fs {given.fs:g} --signal.seconds "
            f"{given.seconds:g} --signal.leads {','.join(given.leads)}"
        )
        check_signal(
            signal,
            given,
            what=what,
            who="--signal" if chosen else "encoder",
            way=way if chosen else None,
        )


def describe(contract: Contract) -> str:
    """The signal of a contract in one line."""
    signal = contract.signal
    band = "no band" if signal.band is None else f"{signal.band[0]:g}-{signal.band[1]:g} Hz"
    notch = "" if signal.notch is None else f", notch {signal.notch:g} Hz"
    return (
        f"{len(signal.leads)} leads, {signal.fs:g} Hz, {signal.seconds:g} s, mV, {band}{notch}, "
        f"normalise {signal.normalise}"
    )
