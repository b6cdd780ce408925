"""Weights of a network that others have trained, from a local file."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

MOST_BYTES = 4 * 2**30
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # under which weights may lie
PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.", "model.", "net.")
STACKED = re.compile(r"(_blocks)\.\d+(\.\d+\..+)")  # MONAI's; others count all blocks in a row
COUNTER = "num_batches_tracked"  # of a batch norm: older files have none


class Loaded(NamedTuple):
    """How a file met a network.

    Attributes:
        path: Of the file.
        matched: Weights of the network that the file had.
        absent: Those it had not, which stay as they were.
        reshaped: Those of another shape there, which stay as well.
        unused: Names in the file that the network has no place for.
        share: Of the network's parameters, by their number.
    """

    path: Path
    matched: tuple[str, ...]
    absent: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]
    share: float

    def line(self) -> str:
        """For the log."""
        whole = len(self.matched) + len(self.absent) + len(self.reshaped)
        return (
            f"{self.path}: {len(self.matched)} of {whole} weights matched ({self.share:.1%} of the "
            f"parameters), {len(self.absent)} absent{_some(self.absent)}, {len(self.reshaped)} of "
            f"another shape{_some(self.reshaped)}, {len(self.unused)} in the file "
            f"unused{_some(self.unused)}"
        )


def load_pretrained(path: str | Path, net: nn.Module, *, least_share: float = 0.95) -> Loaded:
    """Puts the weights of a file into a network, by their names.

    Names are taken as they are, without what wrappers put before them, and for EfficientNets as
    EfficientNet-PyTorch writes them, which counts blocks in one row (``_blocks.5._bn0.weight``)
    where MONAI has them in stages (``_blocks.2.5._bn0.weight``). A classifier finds no place and is
    left. Nothing is fetched from a network.

    Args:
        path: A ``.safetensors`` file, or one of ``torch.save`` (.pth, .pt, .bin), of which weights
            alone are read and no code is run.
        net: Gets the weights.
        least_share: Of the network's parameters and running statistics that must be in the file.

    Returns:
        What matched and what did not.

    Raises:
        ValueError: There is no such file, it is too large or no file of weights, a value is not
            finite, or too little of it matches.
    """
    path = Path(path)
    given = _plain(_read(path), path)
    target = net.state_dict()
    names = {_flat(name, given): name for name in target}
    kept = {place: given[key] for key, place in names.items() if key in given}
    fits = {name: value for name, value in kept.items() if value.shape == target[name].shape}
    counted = [name for name in target if not name.endswith(COUNTER)]
    share = sum(target[name].numel() for name in counted if name in fits)
    share /= max(1, sum(target[name].numel() for name in counted))
    found = Loaded(
        path=path,
        matched=tuple(name for name in counted if name in fits),
        absent=tuple(name for name in counted if name not in kept),
        reshaped=tuple(name for name in counted if name in kept and name not in fits),
        unused=tuple(sorted(key for key in given if key not in names)),
        share=share,
    )
    if share < least_share:
        raise ValueError(
            f"{found.line()}; {least_share:.1%} of the parameters must match: give the file of "
            f"this network ({type(net).__name__}, {len(counted)} weights, the first "
            f"{counted[0]} {tuple(target[counted[0]].shape)}), or lower the share"
        )
    broken = tuple(
        name
        for name, value in fits.items()
        if value.is_floating_point() and not value.isfinite().all()
    )
    if broken:
        raise ValueError(f"{path}: values that are not finite in {len(broken)}{_some(broken)}")
    net.load_state_dict(fits, strict=False)
    return found


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file of weights {path}; none is fetched: give a local one")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, {MOST_BYTES} are allowed for weights"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        first = str(error).strip().splitlines()[0][:160] if str(error).strip() else "empty"
        raise ValueError(f"{path} is no file of weights alone: {first}") from error


def _plain(content: Any, path: Path) -> dict[str, Tensor]:
    """Tensors by their names, without what wraps them."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not weights by their names")
    plain = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not plain:
        raise ValueError(f"{path} holds no tensor by its name")
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in plain)), ""):
        plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def _flat(name: str, given: dict[str, Tensor]) -> str:
    """What a weight of the network is called in the file."""
    return name if name in given else STACKED.sub(r"\1\2", name)


def _some(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
