"""VAE: reconstruct a signal from a draw of its latent variables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.methods.views import spread
from ecgfast.train.method import Method

ACTIVE = 0.01  # variance of a mean over records, above which its variable says something


class VAE(Method):
    r"""Reconstruction and a divergence from the standard normal (Kingma, Welling, ICLR 2014).

    .. math:: L = \mathrm{MSE}(x, \hat x(z)) + \beta_s \, \mathrm{KL}(q(z \mid x) \| N(0, 1))

    The error is the mean over all samples that were recorded; the divergence is summed over the D
    variables and averaged over records. ``beta_s`` rises from 0 to ``beta`` over ``beta_steps``.
    A record without a single sample counts in neither. Logged are the loss, both parts, ``beta``,
    the spread of the embeddings, and ``active``: how many variables have means that vary over the
    batch by more than 0.01 (Burda, Grosse, Salakhutdinov, ICLR 2016); 0 is a collapse.

    Args:
        encoder: Has ``features``, ``(N, L, T) -> (N, F)``, and ``embed``, of these the means.
        latent: Of the features the log variances ``(N, D)``.
        decoder: ``(N, D) -> (N, L, T)``.
        beta: See above.
        beta_steps: See above.
        optim: How the parameters move.
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent: nn.Module,
        decoder: nn.Module,
        *,
        beta: float,
        beta_steps: int,
        optim: Optim,
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.latent = latent
        self.decoder = decoder
        self.beta = beta
        self.beta_steps = beta_steps

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` of a batch."""
        ecg = batch["ecg"]
        seen = ecg.isfinite()
        whole = ecg.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        with self.clock.part("encoder", ecg.device):
            features = self.encoder.features(whole)  # type: ignore[operator]
            mean = self.encoder.embed(features)  # type: ignore[operator]
        self.embedded = mean.detach()
        log_variance = self.latent(features)
        with self.clock.part("decoder", ecg.device):
            made = self.decoder(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
        error, divergence = self.parts(whole, made, seen, mean, log_variance)
        beta = self.beta * min(1.0, (self.global_step + 1) / max(1, self.beta_steps))
        loss = error + beta * divergence
        active = (mean.detach().float().var(dim=0) > ACTIVE).sum().float()
        self.log_dict(
            {
                "loss": loss.detach(),
                "reconstruction": error.detach(),
                "divergence": divergence.detach(),
                "beta": torch.tensor(beta, device=ecg.device),
                "active": active,
                **spread(mean),
            }
        )
        return loss

    @staticmethod
    def parts(
        ecg: Tensor, made: Tensor, seen: Tensor, mean: Tensor, log_variance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean squared error of the samples seen, and the divergence a record with any."""
        error = ((made - ecg).float().square() * seen).sum() / seen.sum().clamp(min=1)
        mean, log_variance = mean.float(), log_variance.float()
        each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        any_seen = seen.flatten(1).any(dim=1)
        return error, (each * any_seen).sum() / any_seen.sum().clamp(min=1)
