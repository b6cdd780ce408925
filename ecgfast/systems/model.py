"""A finished run as one module: millivolts in, embeddings and scores out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from ecgfast.config import Signal
from ecgfast.methods.task import log_cumulative_hazard, survival
from ecgfast.models.clip_encoder import ClipEncoder
from ecgfast.systems.finetune import Loaded, load_run
from ecgfast.systems.pages import DRAW, NO_PAGES, page_of
from ecgfast.systems.parts import describe
from ecgfast.systems.predict import check_together
from ecgfast.systems.windows import of_windows
from ecgfast.train.contract import Contract, ContractError

MOST_CONFIG = 2**20  # bytes of a config.yaml


class Network(nn.Module):
    """Encoder and head alone, ``(N, L, T) -> embeddings (N, D), scores``: what can be exported.

    It takes prepared signals in which nothing is missing.
    """

    def __init__(self, loaded: Loaded) -> None:
        super().__init__()
        self.encoder, self.head = loaded.encoder, loaded.head
        self.kind = (loaded.contract.task or {}).get("kind", "")

    def forward(self, ecg: Tensor) -> tuple[Tensor, ...]:
        """Embeddings, and with a head scores: values, probabilities, log hazards."""
        embeddings = self.encoder(ecg)
        if self.head is None:
            return (embeddings,)
        output = self.head(embeddings)
        if self.kind == "multiclass":
            return embeddings, output.softmax(dim=-1)
        if self.kind == "survival" and output.shape[1] > 1:
            return embeddings, log_cumulative_hazard(output), survival(output)
        value = output[:, 0]
        return embeddings, value.sigmoid() if self.kind == "classification" else value


class Model(nn.Module):
    """A finished run, ready for use.

    Records do not mix. No gradient passes. Where a sample is missing the network gets 0, as in
    training. A head whose dropout stays on at test (B7) draws the same in each call.

    Attributes:
        network: Encoder and head.
        prepare: Filters and normalisation of the contract.
        contract: What the run expects and gives.
        folder: Where it lies.

    Example:
        >>> model = load("runs/mpcwp")  # doctest: +SKIP
        >>> ecg = torch.zeros(2, len(model.signal.leads), model.signal.samples)  # doctest: +SKIP
        >>> model(ecg)["score"].shape  # doctest: +SKIP
        torch.Size([2])
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        loaded = load_run(folder)
        self.folder = Path(folder)
        self.contract: Contract = loaded.contract
        self.prepare, self.network = loaded.prepare, Network(loaded)
        self.eval()

    def train(self, mode: bool = True) -> Model:
        """Stays as it is for use; fine-tuning is `ecgfast finetune --init`."""
        super().train(False)
        if self.task.get("dropout_at_test") and self.network.head is not None:
            for module in self.network.head.modules():
                if isinstance(module, nn.Dropout):
                    module.train()
        return self

    @property
    def signal(self) -> Signal:
        """Leads, rate and length of what it takes, in mV."""
        return self.contract.signal

    @property
    def task(self) -> dict[str, Any]:
        """What the head gives; empty without a head."""
        return self.contract.task or {}

    @property
    def weights(self) -> str:
        """SHA-256 over those of all files of weights: one word for the whole model."""
        words = " ".join(f"{name} {sha}" for name, sha in sorted(self.contract.sha256.items()))
        return hashlib.sha256(words.encode()).hexdigest()

    @torch.inference_mode()
    def forward(
        self, ecg: Tensor | NDArray[Any], gain: Tensor | NDArray[Any] | None = None
    ) -> dict[str, Tensor]:
        """Prepares and scores a batch.

        Args:
            ecg: ``(N, L, T)`` in mV with NaN where nothing was recorded, in the leads, rate and
                length of ``signal``; or the int16 of a store. Pages ``(N, C, H, W)`` of the size
                that the encoder sees, uint8, or floats from 0 to 1, where it sees pages. Clips of
                videos ``(N, C, K F, S, S)`` uint8 where it sees these: K clips of F frames, one
                after the other, over which everything is averaged.
            gain: mV a step, ``(N,)``, of int16.

        Returns:
            ``embedding`` ``(N, D)``, and with a head ``score``: ``(N,)`` in the label's unit, the
            probability ``(N,)`` of the class, those ``(N, C)`` of several, or the log hazard
            ``(N,)``, then maybe with ``survival`` ``(N, K)`` at the contract's edges. float32.

        Raises:
            ValueError: Another shape than the contract's, or clips that are not uint8.
        """
        place = next(self.network.parameters()).device
        if isinstance(ecg, np.ndarray) and not ecg.flags.writeable:
            ecg = ecg.copy()  # a mapped store is; torch would warn
        ecg = torch.as_tensor(ecg)
        if ecg.dim() == 5 or self.contract.clips is not None:
            return self._clips(ecg, place)
        if ecg.dim() == 4:
            return self._said(self._pages(ecg).to(place))
        if self.contract.pages is not None:
            raise ValueError(f"ecg must be pages (N, C, H, W), got {tuple(ecg.shape)}: {DRAW}")
        want = (len(self.signal.leads), self.signal.samples)
        if ecg.dim() != 3 or tuple(ecg.shape[1:]) != want:
            raise ValueError(
                f"ecg must be (N, {want[0]}, {want[1]}), got {tuple(ecg.shape)}: the model expects "
                f"{describe(self.contract)}; leads {' '.join(self.signal.leads)}"
            )
        if ecg.dtype != torch.int16:
            ecg = ecg.float()
        signals = [ecg] if gain is None else [ecg, torch.as_tensor(gain).float()]
        if not len(ecg):  # filters want at least one record
            ready = torch.zeros(ecg.shape, device=place)
        else:
            ready = self.prepare(*(part.to(place) for part in signals))
        return self._said(ready.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))

    def _clips(self, videos: Tensor, place: torch.device) -> dict[str, Tensor]:
        encoder = self.network.encoder
        if not isinstance(encoder, ClipEncoder):
            raise ValueError(
                f"ecg must be (N, L, T), got {tuple(videos.shape)}: the encoder takes no clips"
            )
        if videos.dtype != torch.uint8:  # which the encoder would take as scaled already
            raise ValueError(f"clips must be uint8, levels from 0 to 255, got {videos.dtype}")
        size, frames = encoder.size, encoder.frames
        channels = (1, 3) if encoder.grey else (3,)
        fits = videos.dim() == 5 and videos.shape[1] in channels and videos.shape[2] > 0
        if not fits or videos.shape[2] % frames or tuple(videos.shape[3:]) != (size, size):
            raise ValueError(
                f"clips must be (N, {' or '.join(map(str, channels))}, K {frames}, {size}, "
                f"{size}), got {tuple(videos.shape)}: the model expects {describe(self.contract)}, "
                f"K clips of {frames} frames"
            )
        return of_windows(lambda clips: self._said(clips.to(place)), videos, frames)

    def _pages(self, pages: Tensor) -> Tensor:
        page = page_of(self.contract.model)
        if page is None:
            raise ValueError(f"ecg must be (N, L, T), got {tuple(pages.shape)}: {NO_PAGES}")
        size, grey = page
        channels = (1, 3) if grey else (3,)
        if pages.shape[1] not in channels or tuple(pages.shape[2:]) != (size, size):
            raise ValueError(
                f"pages must be (N, {' or '.join(map(str, channels))}, {size}, {size}), got "
                f"{tuple(pages.shape)}"
            )
        return pages

    def _said(self, ready: Tensor) -> dict[str, Tensor]:
        with torch.random.fork_rng(enabled=bool(self.task.get("dropout_at_test"))):
            torch.manual_seed(0) if self.task.get("dropout_at_test") else None
            found = self.network(ready)
        return {
            name: values.float()
            for name, values in zip(("embedding", "score", "survival"), found, strict=False)
        }

    def embed(
        self, ecg: Tensor | NDArray[Any], gain: Tensor | NDArray[Any] | None = None
    ) -> Tensor:
        """The embeddings ``(N, D)`` alone; see ``forward``."""
        return self(ecg, gain)["embedding"]


def load(folder: str | Path, *, device: str = "cpu") -> Model:
    """Loads a run for use: the folder that training wrote, or that ``ecgfast export`` made of it.

    Args:
        folder: With contract.json and the weights that it names.
        device: As torch names it; auto takes a GPU if there is one.

    Raises:
        ContractError: The folder is no finished run, or is damaged.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Model(folder).to(device)


def load_ensemble(folders: Sequence[str | Path], *, device: str = "cpu") -> list[Model]:
    """Loads runs whose scores may be averaged: one task, one signal contract.

    Raises:
        ContractError: They differ, or one is damaged.
    """
    if len(folders) > 1:
        check_together(folders)
    return [load(folder, device=device) for folder in folders]


def weights_of(models: Sequence[Model]) -> str:
    """One word for the weights of an ensemble, whatever the order of its members."""
    if len(models) == 1:
        return models[0].weights
    return hashlib.sha256(" ".join(sorted(model.weights for model in models)).encode()).hexdigest()


def configured(folder: str | Path) -> dict[str, Any]:
    """What ``config.yaml`` of a run says; empty where there is none.

    Raises:
        ContractError: It is no configuration.
    """
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_CONFIG:
            raise ValueError(f"it has more than {MOST_CONFIG} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        for name in ("data", "text"):
            if not isinstance(content.get(name, {}), dict):
                raise ValueError(f"{name} holds a {type(content[name]).__name__}, not settings")
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ContractError(f"error[contract] {path}: {error}") from error
    return content
