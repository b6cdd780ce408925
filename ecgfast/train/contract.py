"""What weights expect of a signal, and where they come from."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import secrets
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgfast.config import Signal
from ecgfast.config.clips import ClipFit
from ecgfast.config.pages import PageFit

VERSION = 1
MOST_CLASSES = 64
MOST_LAYERS = 64  # of a projector
PROJECTORS = ("ecg_projector", "text_projector")
MOST = 65_536  # of any size that a contract names: what is built from a file must stay small


class ContractError(ValueError):
    """Weights and signal do not belong together, or a checkpoint is not what it must be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """Which records weights were trained on, as salted hashes: a test for known ids, not a list.

    Attributes:
        salt: Goes before each id.
        hashes: First 64 bits of the SHA-256 of salt and id, sorted.
    """

    salt: str
    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, record_ids: Iterable[str]) -> Records:
        """Hashes ids with a new salt."""
        salt = secrets.token_hex(8)
        return cls(salt=salt, hashes=np.unique(_hashes(salt, record_ids)))

    def hold(self, record_ids: Iterable[str]) -> NDArray[np.bool_]:
        """Whether each id is among them."""
        return np.isin(_hashes(self.salt, record_ids), self.hashes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract:
    """What ``contract.json`` says of the weights beside it.

    Attributes:
        signal: What the encoder expects of an ECG.
        recipe: All words and numbers of ``signal.recipe``, with the training set's scale: what is
            replayed, whatever the name may come to mean.
        model: Class of the encoder and its ``arguments``, plain values.
        head: The same of the head, if there is one.
        task: What the head gives: ``kind``, ``label``, ``threshold``, ``mean`` and ``sd`` of the
            training labels (a regression gives z-scores of these; None for names), ``classes`` of a
            multiclass in the order of the head's logits, ``dropout_at_test``; of survival the
            column ``event``, and ``edges``, where the intervals of the head's hazards end, if it
            gives such.
        synthetic: Whether any of it was learned from made ECGs.
        step: Optimiser steps that the run has taken.
        weights_step: After which of them the weights were kept.
        trained_on: The training records.
        pretrained_on: Those of the encoder that training began from.
        pages: How scanned pages were cut and scaled, where it learned from these; none where it
            learned from signals, drawn or not.
        clips: What the frames of the videos were that it learned from; none where it learned from
            something else.
        alignment: Of an encoder that was aligned with texts: class and ``arguments`` of
            ``ecg_projector`` and ``text_projector``, whose weights lie in files of these names, and
            ``text``: ``name`` of what made the texts' vectors, their ``dim``, and how.
        sha256: Of each file of weights, by its name; filled in on saving.
    """

    signal: Signal
    recipe: dict[str, Any] | None = None
    model: dict[str, Any]
    head: dict[str, Any] | None = None
    task: dict[str, Any] | None = None
    synthetic: bool
    step: int = 0
    weights_step: int = 0
    trained_on: Records
    pretrained_on: Records | None = None
    pages: PageFit | None = None
    clips: ClipFit | None = None
    alignment: dict[str, Any] | None = None
    sha256: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def embedding_dim(self) -> int:
        """D of the encoder."""
        return int(self.model["arguments"]["embedding_dim"])


def check_signal(
    expected: Signal,
    given: Signal,
    *,
    what: str,
    who: str = "encoder",
    fields: Iterable[str] = ("leads", "fs", "seconds", "stored_recipe"),
    way: str | None = None,
) -> None:
    """Refuses a signal that an encoder does not expect.

    Args:
        expected: The encoder's contract.
        given: What is there.
        what: Where it is, for the message.
        who: Whose the contract is.
        fields: Which must agree; a store knows the four of the default, a configuration all.
        way: What to do about it, where that is not to convert the records again.

    Raises:
        ContractError: Names each field that differs, both values and what to do.
    """
    differ = [name for name in fields if getattr(expected, name) != getattr(given, name)]
    if not differ:
        return
    lines = []
    for name in differ:
        mine, theirs = getattr(expected, name), getattr(given, name)
        hint = ""
        if name == "leads" and set(mine) == set(theirs):
            hint = " (the same leads in another order)"
        elif name == "leads" and set(mine) - set(theirs):
            hint = f" (without {' '.join(n for n in mine if n not in theirs)})"
        lines.append(f"  {name}: {who} expects {_value(mine)}, {what} has {_value(theirs)}{hint}")
    if way is None:
        way = (
            "convert the records again as it expects them (ecgfast convert SRC STORE "
            f"--fs {expected.fs:g} --seconds {expected.seconds:g} --leads "
            f"{','.join(expected.leads)}"
            f"{' --recipe ' + expected.stored_recipe if expected.stored_recipe else ''})"
        )
    raise ContractError(
        f"error[contract] {who} and {what} differ in {', '.join(differ)}:\n"
        + "\n".join(lines)
        + f"\n  do: {way}"
    )


def _value(value: Any) -> str:
    words = isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    return " ".join(value) if words else str(value) or "none"


def _hashes(salt: str, record_ids: Iterable[str]) -> NDArray[np.uint64]:
    digests = [hashlib.sha256(f"{salt}{name}".encode()).digest()[:8] for name in record_ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def to_json(contract: Contract) -> dict[str, Any]:
    """Plain values."""

    def records(seen: Records | None) -> dict[str, Any] | None:
        if seen is None:
            return None
        packed = base64.b64encode(seen.hashes.astype("<u8").tobytes()).decode()
        return {"salt": seen.salt, "count": len(seen.hashes), "hashes": packed}

    signal = dataclasses.asdict(contract.signal)
    return {
        "version": VERSION,
        "signal": {**signal, "samples": contract.signal.samples, "units": "mV"},
        "recipe": contract.recipe,
        "pages": None if contract.pages is None else contract.pages.plain(),
        "clips": None if contract.clips is None else contract.clips.plain(),
        "embedding_dim": contract.embedding_dim,
        "model": contract.model,
        "head": contract.head,
        "task": contract.task,
        "alignment": contract.alignment,
        "synthetic": contract.synthetic,
        "step": contract.step,
        "weights_step": contract.weights_step,
        "sha256": contract.sha256,
        "trained_on": records(contract.trained_on),
        "pretrained_on": records(contract.pretrained_on),
    }


def from_json(content: Any) -> Contract:
    """From plain values, of which nothing is believed before it is checked.

    Raises:
        ValueError: A value is not what it must be.
        KeyError: One is missing.
    """
    _expect(content, dict, "the whole")
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']!r}, this ecgfast reads {VERSION}")
    given = dict(_expect(content["signal"], dict, "signal"))
    if given.pop("units") != "mV":
        raise ValueError("signal.units must be mV")
    samples = given.pop("samples")
    known = {field.name for field in dataclasses.fields(Signal)}
    given = dict[str, Any]({"recipe": "", "stored_recipe": ""}) | given  # older ones lack them
    if set(given) != known:
        raise ValueError(f"signal must have {sorted(known)}, got {sorted(given)}")
    if len(given["leads"]) > MOST:
        raise ValueError(f"signal.leads has {len(given['leads'])} names")
    leads = tuple(_expect(n, str, "signal.leads") for n in _expect(given["leads"], list, "leads"))
    for name in ("fs", "seconds"):
        given[name] = float(_expect(given[name], (int, float), f"signal.{name}"))
    band, notch = given["band"], given["notch"]
    if band is not None:
        low, high = _expect(band, list, "signal.band")
        band = (
            float(_expect(low, (int, float), "signal.band")),
            float(_expect(high, (int, float), "signal.band")),
        )
    if notch is not None:
        notch = float(_expect(notch, (int, float), "signal.notch"))
    if given["normalise"] not in ("none", "lead", "record"):
        raise ValueError(f"signal.normalise must be none, lead or record: {given['normalise']!r}")
    for name in ("recipe", "stored_recipe"):
        _expect(given[name], str, f"signal.{name}")
    signal = Signal(**{**given, "leads": leads, "band": band, "notch": notch})
    if signal.samples != samples:
        raise ValueError(f"signal.samples is {samples}, fs and seconds make {signal.samples}")

    recipe = content.get("recipe")
    if (recipe is not None) != bool(signal.recipe):
        raise ValueError(f"signal.recipe is {signal.recipe!r}, and its words are missing or extra")
    if recipe is not None and _expect(recipe, dict, "recipe").get("name") != signal.recipe:
        raise ValueError(f"recipe {recipe.get('name')!r} is not signal.recipe {signal.recipe!r}")

    def records(name: str) -> Records | None:
        if content[name] is None:
            return None
        packed = _expect(content[name], dict, name)
        raw = base64.b64decode(_expect(packed["hashes"], str, f"{name}.hashes"), validate=True)
        hashes = np.frombuffer(raw, dtype="<u8").astype(np.uint64)
        if len(hashes) != packed["count"]:
            raise ValueError(f"{name} holds {len(hashes)} hashes and says {packed['count']}")
        return Records(salt=_expect(packed["salt"], str, f"{name}.salt"), hashes=hashes)

    def part(name: str) -> dict[str, Any] | None:
        return None if content[name] is None else _part(content[name], name)

    def task() -> dict[str, Any] | None:
        if content["task"] is None:
            return None
        found = _expect(content["task"], dict, "task")
        if found["kind"] not in ("regression", "classification", "multiclass", "survival"):
            raise ValueError(f"task.kind is {found['kind']!r}")
        _expect(found["label"], str, "task.label")
        _expect(found["dropout_at_test"], bool, "task.dropout_at_test")
        several, timed = found["kind"] == "multiclass", found["kind"] == "survival"
        for name in ("mean", "sd", "threshold"):
            if found[name] is not None or (name != "threshold" and not (several or timed)):
                _expect(found[name], (int, float), f"task.{name}")
        if several:
            names = [_expect(n, str, "task.classes") for n in _classes(found["classes"])]
            if len(set(names)) < len(names):
                raise ValueError("task.classes must differ")
        wanted = len(found["classes"]) if several else 1
        if timed:
            _expect(found["event"], str, "task.event")
            if found["edges"] is not None:
                wanted = len(_rising(found["edges"]))
        outputs = (content["head"] or {}).get("arguments", {}).get("outputs", 1)
        if outputs != wanted:
            raise ValueError(f"the head has {outputs} outputs, the task {found['kind']} another")
        return found

    pages, clips = content.get("pages"), content.get("clips")  # older ones lack them
    if pages is not None and clips is not None:
        raise ValueError("pages and clips cannot both be what was learned from")
    model, trained_on = part("model"), records("trained_on")
    if model is None or trained_on is None:
        raise ValueError("model and trained_on must not be null")
    _expect(model["arguments"]["embedding_dim"], int, "model.arguments.embedding_dim")
    if model["arguments"].get("num_leads", len(leads)) != len(leads):
        raise ValueError(f"the model takes another number of leads than {len(leads)}")
    sha256 = _expect(content["sha256"], dict, "sha256")
    return Contract(
        signal=signal,
        recipe=recipe,
        model=model,
        head=part("head"),
        task=task(),
        synthetic=_expect(content["synthetic"], bool, "synthetic"),
        step=_expect(content["step"], int, "step"),
        weights_step=_expect(content["weights_step"], int, "weights_step"),
        trained_on=trained_on,
        pretrained_on=records("pretrained_on"),
        pages=None if pages is None else PageFit.from_plain(pages),
        clips=None if clips is None else ClipFit.from_plain(clips),
        alignment=_alignment(content.get("alignment")),  # older ones lack it
        sha256={k: _expect(v, str, f"sha256.{k}") for k, v in sha256.items()},
    )


def _part(found: Any, name: str) -> dict[str, Any]:
    _expect(_expect(found, dict, name)["class"], str, f"{name}.class")
    for key, value in _expect(found["arguments"], dict, f"{name}.arguments").items():
        _expect(value, (int, float, str, bool), f"{name}.arguments.{key}")
        if isinstance(value, int) and not 0 <= value <= MOST:
            raise ValueError(f"{name}.arguments.{key} is {value}, 0 to {MOST} is allowed")
    part: dict[str, Any] = found
    return part


def _alignment(found: Any) -> dict[str, Any] | None:
    if found is None:
        return None
    _expect(found, dict, "alignment")
    projectors = {name: _part(found[name], f"alignment.{name}") for name in PROJECTORS}
    for name, projector in projectors.items():
        if projector["arguments"].get("layers", 2) > MOST_LAYERS:
            raise ValueError(f"alignment.{name} has over {MOST_LAYERS} layers")
    text = dict(_expect(found["text"], dict, "alignment.text"))
    kinds = {"name": str, "dim": int, "column": str, "pooling": str, "max_tokens": int}
    for key, kind in kinds.items():
        _expect(text[key], kind, f"alignment.text.{key}")
    text["unlikely"] = float(_expect(text["unlikely"], (int, float), "alignment.text.unlikely"))
    if not 0 <= text["unlikely"] <= 100 or not 2 <= text["max_tokens"] <= MOST:
        raise ValueError(
            f"alignment.text has unlikely {text['unlikely']:g} of 0 to 100, and max_tokens "
            f"{text['max_tokens']} of 2 to {MOST}"
        )
    dims = {projector["arguments"].get("projection_dim") for projector in projectors.values()}
    if (
        len(dims) > 1
        or projectors["text_projector"]["arguments"].get("embedding_dim") != text["dim"]
    ):
        raise ValueError("the sizes of alignment's projectors do not fit")
    return {**projectors, "text": text}


def _classes(names: Any) -> list[Any]:
    found: list[Any] = _expect(names, list, "task.classes")
    if not 2 <= len(found) <= MOST_CLASSES:
        raise ValueError(f"task.classes has {len(found)} names, 2 to {MOST_CLASSES} are allowed")
    return found


def _rising(edges: Any) -> list[float]:
    found: list[float] = [
        _expect(edge, (int, float), "task.edges") for edge in _expect(edges, list, "task.edges")
    ]
    if not found or any(b <= a for a, b in itertools.pairwise([0.0, *found])):
        raise ValueError("task.edges must be positive and rise")
    return found


def _expect(value: Any, kind: type | tuple[type, ...], place: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, (int, float))):
        raise ValueError(f"{place} is of type {type(value).__name__}")
    return value
