"""Deep metric learning by triplets."""

from __future__ import annotations

from torch import Tensor, nn

from ecgfast.config import Optim
from ecgfast.losses.triplet import TripletLoss
from ecgfast.miners.extreme import NearestFarthest
from ecgfast.miners.triplets import Triplets
from ecgfast.miners.watch import EmptyWatch
from ecgfast.train.method import Method


class Triplet(Method):
    """Self-supervised: a record's neighbour in input space attracts, a record far away repels.

    The prepared signals are what the miner compares and what the encoder sees. Where a sample is
    missing (NaN) the encoder gets 0, and the record is left out of all triplets. Logged are the
    loss, the share of triplets that are valid, the share of these that still pull (``active``),
    the spread of the embeddings, which falls to 0 when the encoder collapses, and the share of the
    time that goes into ``mining``. 50 steps without a valid triplet bring a warning.

    Args:
        encoder: ``(N, L, T) -> (N, D)``; its embeddings are not normalised.
        miner: From a batch to triplets.
        margin: Of the hinge, in squared units of the embedding.
        optim: How the parameters move.
    """

    def __init__(
        self, encoder: nn.Module, miner: NearestFarthest, *, margin: float, optim: Optim
    ) -> None:
        super().__init__(optim)
        self.encoder = encoder
        self.miner = miner
        self.margin = margin
        self.loss = TripletLoss(margin)
        self.empty = EmptyWatch()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One loss from the prepared signals ``ecg`` ``(N, L, T)`` of a batch."""
        ecg = batch["ecg"]
        with self.clock.part("mining", ecg.device):
            triplets = self.miner(ecg)
            self.empty(triplets.valid)
        embeddings = self.embed(ecg)
        loss: Tensor = self.loss(embeddings, *triplets)
        self.log_dict(
            {
                "loss": loss.detach(),
                "active": self._active(embeddings.detach().float(), triplets),
                "valid": triplets.valid.float().mean(),
                "embedding_std": embeddings.detach().float().std(dim=0).mean(),
            }
        )
        return loss

    def _active(self, embeddings: Tensor, triplets: Triplets) -> Tensor:
        """Share of the valid triplets whose hinge is open."""
        anchors = embeddings[triplets.anchors]
        near = (anchors - embeddings[triplets.positives]).square().sum(dim=1)
        far = (anchors - embeddings[triplets.negatives]).square().sum(dim=1)
        pulling = triplets.valid & (near - far + self.margin > 0)
        return pulling.sum() / triplets.valid.sum().clamp(min=1)
