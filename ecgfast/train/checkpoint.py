"""A run's folder as a checkpoint: weights, and the contract that says what they expect."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ecgfast.train.contract import Contract as Contract
from ecgfast.train.contract import ContractError as ContractError
from ecgfast.train.contract import from_json, to_json

ENCODER, HEAD, CONTRACT = "encoder.safetensors", "head.safetensors", "contract.json"
PREFIXES = ("_orig_mod.", "module.", "backbone.", "model.", "encoder.", "head.")
MAX_CONTRACT = 256 * 2**20  # bytes: room for 16 million training records
MAX_WEIGHTS = 8 * 2**30


class Match(NamedTuple):
    """How a file of weights met a module."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]


def save_encoder(
    folder: str | Path,
    encoder: dict[str, Tensor],
    contract: Contract,
    head: dict[str, Tensor] | None = None,
    others: dict[str, dict[str, Tensor]] | None = None,
) -> Contract:
    """Writes weights and contract; the contract comes last, and each file at once or not at all.

    Args:
        folder: Of the run.
        encoder: Its ``state_dict()``.
        contract: Without hashes.
        head: Its ``state_dict()``, if there is one.
        others: Those of other modules, by the names of their files, less the suffix.

    Returns:
        The contract with the hashes of the files.
    """
    folder = Path(folder)
    sha256 = {}
    more = {f"{name}.safetensors": weights for name, weights in (others or {}).items()}
    for name, weights in {ENCODER: encoder, HEAD: head, **more}.items():
        if weights is not None:
            plain = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
            content = to_bytes(plain, metadata={"format": "pt"})  # one key: bytes repeat themselves
            write_at_once(folder / name, content)
            sha256[name] = hashlib.sha256(content).hexdigest()
    contract = dataclasses.replace(contract, sha256=sha256)
    write_at_once(folder / CONTRACT, json.dumps(to_json(contract), indent=1).encode())
    return contract


def load_contract(folder: str | Path) -> Contract:
    """Reads and checks ``contract.json``.

    Raises:
        ContractError: There is none, or something in it is not what it must be.
    """
    path = Path(folder) / CONTRACT
    if not path.is_file():
        raise ContractError(
            f"error[contract] {folder} is no finished run: there is no {CONTRACT} in it. "
            "Give the folder that `ecgfast pretrain` or `ecgfast finetune` wrote; if that run "
            "stopped early, the same command finishes it"
        )
    try:
        if path.stat().st_size > MAX_CONTRACT:
            raise ValueError(f"it has {path.stat().st_size} bytes, {MAX_CONTRACT} are allowed")
        return from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ContractError(f"error[contract] {path}: {what}") from error


def load_encoder(
    folder: str | Path,
    encoder: nn.Module,
    *,
    strict: bool = True,
    say: Callable[[str], None] = print,
) -> Match:
    """Loads ``encoder.safetensors`` of a run, or any safetensors file, into a module.

    Args:
        folder: A run, whose hash is verified, or a file. Prefixes that wrappers leave (module.,
            backbone., model., encoder.) are taken off its keys.
        encoder: Gets the weights.
        strict: Refuses a file that lacks a weight or has one too many.
        say: Gets one line on what matched.

    Returns:
        What matched and what did not.

    Raises:
        ContractError: Not safetensors, a wrong hash, shapes that differ, or with ``strict``
            anything missing or unexpected.
    """
    folder = Path(folder)
    if folder.is_dir():
        return load_weights(folder / ENCODER, encoder, load_contract(folder), strict, say)
    return load_weights(folder, encoder, None, strict, say)


def load_weights(
    path: Path,
    module: nn.Module,
    contract: Contract | None,
    strict: bool = True,
    say: Callable[[str], None] = print,
) -> Match:
    """As load_encoder, of one file; with a contract its hash must be right."""
    if not path.is_file():
        raise ContractError(
            f"error[contract] there is no {path}, which belongs to the run: copy the whole folder "
            "again"
        )
    if path.stat().st_size > MAX_WEIGHTS:
        raise ContractError(f"error[contract] {path} has more than {MAX_WEIGHTS} bytes")
    found = _sha256(path)
    expected = contract.sha256.get(path.name) if contract else found
    if found != expected:
        raise ContractError(
            f"error[contract] {path} has SHA-256 {found[:12]}..., {CONTRACT} says "
            f"{str(expected)[:12]}...: the file was changed or damaged, or its run was stopped "
            "while it was written. Copy the folder again, or run its command again to finish it"
        )
    target = module.state_dict()
    try:
        with safe_open(str(path), framework="pt") as file:
            names = {_strip(key, target): key for key in file.keys()}  # noqa: SIM118
            if len(names) < len(file.keys()):
                raise ContractError(f"error[contract] {path}: two keys differ by a prefix alone")
            match = Match(
                sorted(names.keys() & target.keys()),
                sorted(target.keys() - names.keys()),
                sorted(names.keys() - target.keys()),
            )
            shapes = {
                name: tuple(file.get_slice(names[name]).get_shape()) for name in match.matched
            }
            wrong = [n for n in match.matched if shapes[n] != tuple(target[n].shape)]
            if wrong:
                raise ContractError(
                    f"error[contract] {path}: {len(wrong)} of {len(match.matched)} weights have "
                    f"another shape; first {wrong[0]}: {shapes[wrong[0]]} in the file, "
                    f"{tuple(target[wrong[0]].shape)} in {type(module).__name__}"
                )
            line = (
                f"{path}: {len(match.matched)} of {len(target)} weights matched, "
                f"{len(match.missing)} missing{_some(match.missing)}, "
                f"{len(match.unexpected)} unexpected{_some(match.unexpected)} "
                f"(SHA-256 {found[:12]}...)"
            )
            if strict and (match.missing or match.unexpected):
                raise ContractError(f"error[contract] {line}; strict=False loads what matches")
            weights = {name: file.get_tensor(names[name]) for name in match.matched}
    except SafetensorError as error:
        raise ContractError(f"error[contract] {path} is no safetensors file: {error}") from error
    broken = [n for n, w in weights.items() if w.is_floating_point() and not w.isfinite().all()]
    if broken:
        raise ContractError(f"error[contract] {path}: values that are not finite{_some(broken)}")
    module.load_state_dict(weights, strict=False)
    say(line)
    return match


def write_at_once(path: Path, content: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Writes a file so that a kill at any moment leaves either the old one or the new one.

    Args:
        path: Where to.
        content: The bytes, or what writes them into an open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _strip(key: str, target: dict[str, Tensor]) -> str:
    short = key
    while short not in target:
        prefix = next((p for p in PREFIXES if short.startswith(p)), None)
        if prefix is None:
            return key
        short = short[len(prefix) :]
    return short


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _some(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
