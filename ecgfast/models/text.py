"""What a text is to an encoder of ECGs: a vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

MOST_BYTES = 8 << 30  # of a file of embeddings
TOKENIZERS = {"tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model"}
Pooling = Literal["tokens", "padded", "first"]


class TextError(ValueError):
    """A text model or a file of embeddings that cannot be used; says what to do."""


class TextEncoder(Protocol):
    """Turns texts into vectors.

    Attributes:
        name: Says which vectors these are: two encoders of one name give the same.
        dim: D.
    """

    name: str
    dim: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(N, D)`` float32 of N texts."""
        ...


class HashedText:
    """Texts by the pieces of their words; needs no model and no download.

    Letters of words in groups of 3 to 5 are counted in D places that a hash gives them, with a sign
    that the hash gives, too (Weinberger et al., ICML 2009), and the counts brought to length 1.
    Texts that share words lie near each other; it knows nothing of what words mean.

    Args:
        dim: D.

    Example:
        >>> HashedText()(["sinus rhythm", "atrial fibrillation"]).shape
        torch.Size([2, 768])
    """

    def __init__(self, dim: int = 768) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        if dim < 1:
            raise ValueError(f"dim must be 1 or more, got {dim}")
        self.dim, self.name = dim, f"hashed letters, {dim}"
        self._count = HashingVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), n_features=dim, norm="l2", alternate_sign=True
        )

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(N, D)``; of an empty text, 0."""
        if not texts:
            return torch.zeros(0, self.dim)
        counts = self._count.transform(texts).toarray()
        return torch.from_numpy(counts.astype(np.float32))


class FolderText:
    """Texts by a transformers model from a local folder, such as Bio_ClinicalBERT.

    Nothing is fetched and no code of the folder is run. A text's vector is the mean of the last
    hidden states over its tokens. The published code takes the mean over all places of a fixed
    length, padding included (``pooling="padded"``, ``max_tokens=100``); ``"first"`` is the first
    token's.

    Args:
        folder: As ``save_pretrained`` writes it: config.json, weights, and a tokenizer.
        pooling: See above.
        max_tokens: Longer texts are cut.
        batch_size: Texts that go through at a time.
        device: Of the model.

    Raises:
        TextError: The folder lacks one of its parts, or cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        pooling: Pooling = "tokens",
        max_tokens: int = 100,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
    ) -> None:
        self.folder = Path(folder)
        self._check()
        from transformers import AutoModel, AutoTokenizer

        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self.folder, **local)
            model = AutoModel.from_pretrained(self.folder, **local)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0][:200]
            raise TextError(f"error[text] {folder} cannot be loaded: {first}") from error
        self._model = model.eval().to(device)
        self.pooling, self.max_tokens, self.batch_size = pooling, max_tokens, batch_size
        self.device = torch.device(device)
        self.dim = int(model.config.hidden_size)
        self.name = f"{_fingerprint(self.folder)}, {pooling} of {max_tokens}"

    def _check(self) -> None:
        if not self.folder.is_dir():
            raise TextError(
                f"error[text] there is no folder {self.folder}; nothing is fetched: save a model "
                "there with save_pretrained, or leave the model out for hashed letters"
            )
        held = {path.name for path in self.folder.iterdir()}
        if "config.json" not in held:
            raise TextError(f"error[text] {self.folder} is no model's: it has no config.json")
        if not held & TOKENIZERS:
            raise TextError(
                f"error[text] {self.folder} has no tokenizer (tokenizer.json or vocab.txt): save "
                "it there, too, with tokenizer.save_pretrained"
            )

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(N, D)``."""
        found = torch.zeros(len(texts), self.dim)
        # texts of one length go together; what is padding does not show, but for pooling padded
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for begin in range(0, len(order), self.batch_size):
            rows = order[begin : begin + self.batch_size]
            found[rows] = self._embed([texts[i] for i in rows])
        return found

    def _embed(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            texts,
            padding="max_length" if self.pooling == "padded" else True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self.device)
        hidden = self._model(**tokens).last_hidden_state.float().cpu()
        if self.pooling == "first":
            return torch.as_tensor(hidden[:, 0])
        if self.pooling == "padded":
            return torch.as_tensor(hidden.mean(dim=1))
        real = tokens["attention_mask"].cpu()[..., None].float()
        return torch.as_tensor((hidden * real).sum(dim=1) / real.sum(dim=1).clamp(min=1))


class FileText:
    """Texts by vectors that were made before, from a file of ``ecgfast embed-text``.

    Args:
        path: A .safetensors file with ``embeddings`` (N, D) and the texts in its header.

    Raises:
        TextError: It is no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        texts, self._embeddings, self.name = read_embeddings(self.path)
        self._place = {text: i for i, text in enumerate(texts)}
        self.dim = self._embeddings.shape[1]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(N, D)``.

        Raises:
            TextError: A text is not in the file.
        """
        absent = [text for text in texts if text not in self._place]
        if absent:
            raise TextError(
                f"error[text] {len(absent)} of {len(texts)} texts are not in {self.path} (first: "
                f"{absent[0][:80]!r}): make it again from the same column with ecgfast embed-text"
            )
        return self._embeddings[[self._place[text] for text in texts]]


def read_embeddings(path: str | Path) -> tuple[list[str], Tensor, str]:
    """Texts, their embeddings ``(N, D)``, and the name of what made them.

    Raises:
        TextError: There is no such file, or it is another kind of file.
    """
    path = Path(path)
    if not path.is_file():
        raise TextError(f"error[text] there is no file of embeddings {path}: ecgfast embed-text")
    if path.stat().st_size > MOST_BYTES:
        raise TextError(f"error[text] {path} has over {MOST_BYTES >> 30} GiB")
    try:
        with safe_open(str(path), framework="pt") as file:
            about: Mapping[str, str] = file.metadata() or {}
            embeddings = file.get_tensor("embeddings").float()
        texts = json.loads(about["texts"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise TextError(
            f"error[text] {path} holds no embeddings of texts ({error}): make one with ecgfast "
            "embed-text"
        ) from error
    whole = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    if not whole or embeddings.ndim != 2 or len(texts) != len(embeddings):
        raise TextError(f"error[text] {path}: texts and embeddings do not belong together")
    if not embeddings.isfinite().all():
        raise TextError(f"error[text] {path} has embeddings that are not finite")
    return texts, embeddings, about.get("name", "")


def _fingerprint(folder: Path) -> str:
    """The model's folder by the content of its files."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        found.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                found.update(piece)
    return f"{folder.name} {found.hexdigest()[:16]}"
