"""Wiring of ECG and report."""

from __future__ import annotations

from typing import Any

from torch import nn

from ecgfast.config.ecg_report import Config, Text
from ecgfast.data.source import Source
from ecgfast.data.with_texts import WithTexts
from ecgfast.losses.alignment import AlignmentLoss
from ecgfast.methods.ecg_report import ECGReport
from ecgfast.systems.parts import make_decoder, make_encoder, settled_recipe
from ecgfast.systems.texts import of_records, text_encoder, texts_of
from ecgfast.systems.views import make_projector, make_run, open_records
from ecgfast.train.errors import RunError
from ecgfast.train.fit import Run, say
from ecgfast.transforms.leads import LeadSubsets


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    signal = config.signal
    source = open_records(config)
    recipe = settled_recipe(signal, source)
    dataset, about = None, None
    if config.align != "none":
        dataset, about = _with_texts(source, config.text)
    encoder, model = make_encoder(config.encoder, signal, recipe)
    decoder = make_decoder(encoder, signal, recipe) if config.reconstruction else None
    projectors: dict[str, nn.Module] | None = None
    alignment = loss = None
    if config.align != "none":
        assert about is not None
        dims = {"ecg": encoder.embedding_dim, "text": about["dim"]}
        projectors = {n: make_projector(config.projector, dim) for n, dim in dims.items()}
        described = {f"{n}_projector": _described(config, dim) for n, dim in dims.items()}
        alignment = {**described, "text": about}
        loss = AlignmentLoss(
            config.align,
            temperature=config.temperature,
            learnable=config.learn_temperature,
            guard=config.vicreg > 0,
            gather=config.gather,
        )
    method = ECGReport(
        encoder,
        projectors,
        decoder,
        LeadSubsets(config.lead_subset_p) if config.lead_subset_p else nn.Identity(),
        loss,
        same_text=config.same_text,
        mask_patients=config.mask_patients,
        reconstruction=config.reconstruction,
        vicreg=config.vicreg,
        optim=config.optim,
    )
    run = make_run(config, source, method, model=model, recipe=recipe, alignment=alignment)
    if dataset is not None:
        run.data.dataset = dataset
    return run


def _with_texts(source: Source, text: Text) -> tuple[WithTexts, dict[str, Any]]:
    """The records with their texts' vectors, and how the contract describes these."""
    written = texts_of(source, text.column, text.statements, unlikely=text.unlikely)
    encoder = text_encoder(
        text.model, pooling=text.pooling, max_tokens=text.max_tokens, device=text.device
    )
    if not encoder.name:
        raise RunError(
            f"error[text] {text.model} does not say what made its vectors: make it again with "
            "ecgfast embed-text",
            code=3,
        )
    found = of_records(encoder, written)
    silent = int((found.row < 0).sum())
    say(
        f"texts: {len(source) - silent} records with {len(set(found.ids.tolist()))} different "
        f"texts, {encoder.dim} numbers each, by {encoder.name}; nothing is written of {silent}"
        + (", which are drawn and not aligned" if silent else "")
    )
    if found.unknown:
        most = sorted(found.unknown.items(), key=lambda item: -item[1])
        some = ", ".join(f"{code} ({count})" for code, count in most[:5])
        say(f"note: {len(found.unknown)} codes are in no statement: {some}")
    about = {"name": encoder.name, "dim": encoder.dim, "column": text.column}
    about |= {"unlikely": text.unlikely, "pooling": text.pooling, "max_tokens": text.max_tokens}
    return WithTexts(source.dataset, found.vectors, found.ids, found.row), about


def _described(config: Config, embedding_dim: int) -> dict[str, Any]:
    words = config.projector
    arguments = {
        "embedding_dim": embedding_dim,
        "projection_dim": words.dim or embedding_dim,
        "hidden": words.hidden or embedding_dim,
        "layers": words.layers,
        "batch_norm": words.batch_norm,
    }
    return {"class": "Projector", "arguments": arguments}
