"""ECG and report: an ECG attracts what is written of it, and is drawn again from its embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ecgfast.config import LEADS, Encoder, Fit, Optim, Projector, Signal, Store


@dataclass(frozen=True, kw_only=True)
class Text:
    """What is written of an ECG, and what makes vectors of it.

    Attributes:
        model: Folder of a transformers model with its tokenizer, or a .safetensors file of
            `ecgfast embed-text`; empty takes hashed letters, which know no meanings.
        column: Of the manifest: report, or scp_codes, which are put into words.
        statements: The table that explains codes, PTB-XL's scp_statements.csv; SYNTHETIC records
            bring their own.
        unlikely: What a likelihood of 0 counts as, in percent: PTB-XL gives 0 to all rhythms.
            Published: 0, such codes are dropped.
        pooling: Of a transformers model: tokens, the mean over a text's tokens; padded, over all
            places, as published; first, the first token.
        max_tokens: Longer texts are cut.
        device: Of the text model, which runs once, before training.
    """

    model: str = ""
    column: str = "report"
    statements: str = ""
    unlikely: float = 100.0
    pooling: Literal["tokens", "padded", "first"] = "tokens"
    max_tokens: int = 100
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.unlikely <= 100:
            raise ValueError(f"text.unlikely must lie in [0, 100], got {self.unlikely:g}")
        if self.max_tokens < 2:
            raise ValueError(f"text.max_tokens must be 2 or more, got {self.max_tokens}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Alignment of ECGs with reports (Chen et al., IEEE Trans Big Data 2025, arXiv 2403.10581).

    docs/ecg-report.md says what of it is published, what was repaired, and why.

    Attributes:
        signal: The signal contract; the default is the median beat of 12 leads.
        data: Where records come from.
        encoder: The network.
        text: What is written of a record.
        projector: What the loss sees both embeddings through.
        align: infonce: an ECG and its text attract, other texts and ECGs of the batch repel;
            cosine: they attract and nothing repels, as published; none: reconstruction alone.
        temperature: Of infonce, at first.
        learn_temperature: Train it.
        same_text: Of infonce, records with the same text: positive, they are positives of each
            other; negative, they repel.
        mask_patients: Of infonce: records of one patient with different texts do not repel.
        reconstruction: Weight of the squared error of the signal that the decoder draws; over 0 is
            for dual_attention alone.
        vicreg: Weight of what keeps projections apart from a constant: VICReg's variance and, with
            1/25 of it, covariance. 0 leaves it out.
        lead_subset_p: Probability that a record shows 2, 3, 4, 6, 8 or all 12 of its leads.
        gather: Take negatives from all processes.
        optim: How the parameters move.
        fit: How long, on what, and where to.
    """

    signal: Signal = field(default_factory=lambda: Signal(recipe="dual_attention"))
    data: Store = field(default_factory=lambda: Store(splits=("all",)))
    encoder: Encoder = field(default_factory=lambda: Encoder(net="dual_attention"))
    text: Text = field(default_factory=Text)
    projector: Projector = field(default_factory=lambda: Projector(dim=128, hidden=256))
    align: Literal["infonce", "cosine", "none"] = "infonce"
    temperature: float = 0.07
    learn_temperature: bool = True
    same_text: Literal["positive", "negative"] = "positive"
    mask_patients: bool = True
    reconstruction: float = 1.0
    vicreg: float = 0.0
    lead_subset_p: float = 0.5
    gather: bool = True
    optim: Optim = field(default_factory=Optim)
    fit: Fit = field(default_factory=lambda: Fit(steps=10_000, batch_size=128, out="runs/report"))

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0.01 or more, got {self.temperature}")
        for name in ("reconstruction", "vicreg"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.lead_subset_p <= 1:
            raise ValueError(f"lead_subset_p must lie in [0, 1], got {self.lead_subset_p}")
        if self.lead_subset_p and self.signal.leads != LEADS:
            raise ValueError(
                f"subsets are of the leads {', '.join(LEADS)}, signal.leads are "
                f"{', '.join(self.signal.leads)}: set lead_subset_p to 0"
            )
        if self.reconstruction and self.encoder.net != "dual_attention":
            raise ValueError(
                f"the decoder belongs to encoder.net=dual_attention, and the network is a "
                f"{self.encoder.net}: set reconstruction to 0"
            )
        if self.align == "none" and not self.reconstruction:
            raise ValueError("align none and reconstruction 0 leave nothing to learn")
        if self.align == "none" and self.vicreg:
            raise ValueError("vicreg guards projections, and align none has none: set it to 0")
        if self.fit.batch_size < 2:
            raise ValueError(f"a negative needs a batch of 2 or more, got {self.fit.batch_size}")
