"""BCL: two ECGs of one patient, drawn as different pages, attract; those of others repel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import Fit, Optim, Projector, Signal, Store
from ecgfast.config.pages import PageNet, PageViews


@dataclass(frozen=True, kw_only=True)
class Config:
    """Biometric contrastive learning on pictures of ECGs (Sangha et al., JAMIA 2024).

    docs/bcl.md says what of it is published, and what is not.

    Attributes:
        signal: The signal contract; amplitudes stay in mV, since pages have a scale.
        data: Where records come from.
        encoder: The network for pages, and how it draws records when it is used.
        views: How a record becomes a page while it trains.
        pair: patient pairs two records of a patient; record pairs two pages of one record, which is
            SimCLR on pictures.
        min_gap: Days between the two records of a pair, or more, where the records have dates; then
            a record without a date has no partner. 0 pairs any two.
        date: Column of dates, or of days as numbers; empty takes the first of recording_date, date,
            datetime, acquisition_date and time that holds dates.
        lone: What becomes of patients without a pair: drop leaves them out; augment pairs a record
            with itself, drawn twice.
        projector: What the loss sees the embeddings through.
        temperature: What cosines are divided by.
        gather: Take negatives from all processes.
        optim: How the parameters move.
        fit: How long, on what, and where to. A batch of pairs of a patient is half as many
            patients, two records of each; one of pairs of a record is as many records.
    """

    signal: Signal = field(default_factory=lambda: Signal(band=(0.5, 40.0)))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: PageNet = field(default_factory=PageNet)
    views: PageViews = field(default_factory=PageViews)
    pair: Literal["patient", "record"] = "patient"
    min_gap: float = 1.0
    date: str = ""
    lone: Literal["drop", "augment"] = "drop"
    projector: Projector = field(default_factory=lambda: Projector(dim=128, batch_norm=True))
    temperature: float = 0.1
    gather: bool = True
    optim: Optim = field(default_factory=lambda: Optim(warmup_steps=500))
    fit: Fit = field(
        default_factory=lambda: Fit(steps=10_000, batch_size=256, micro_batch=64, out="runs/bcl")
    )

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.min_gap < 0:
            raise ValueError(f"min_gap must not be negative, got {self.min_gap}")
        if self.encoder.net == "none":
            raise ValueError("encoder.net must be a network for pages, got none")
        if self.signal.normalise != "none":
            raise ValueError(
                f"signal.normalise {self.signal.normalise} leaves no scale for a page in mV: add "
                "--signal.normalise none"
            )
        if self.pair == "record":
            self._check_record()
        elif self.fit.batch_size < 4 or self.fit.batch_size % 2:
            raise ValueError(
                "fit.batch_size counts records, two of each patient: it must be even and 4 or "
                f"more, got {self.fit.batch_size}"
            )

    def _check_record(self) -> None:
        if self.fit.batch_size < 2:
            raise ValueError(f"a negative needs a batch of 2 or more, got {self.fit.batch_size}")
        if self.date or self.lone != "drop":
            raise ValueError("date and lone are for pairs of a patient: add --pair patient")
