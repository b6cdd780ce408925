"""Losses under the names and signatures of pytorch-metric-learning."""

from ecgfast.pml.losses._loss import BaseMetricLossFunction as BaseMetricLossFunction
from ecgfast.pml.losses.entropy import AngularLoss as AngularLoss
from ecgfast.pml.losses.entropy import MultiSimilarityLoss as MultiSimilarityLoss
from ecgfast.pml.losses.entropy import NPairsLoss as NPairsLoss
from ecgfast.pml.losses.entropy import NTXentLoss as NTXentLoss
from ecgfast.pml.losses.entropy import SupConLoss as SupConLoss
from ecgfast.pml.losses.margins import ContrastiveLoss as ContrastiveLoss
from ecgfast.pml.losses.margins import MarginLoss as MarginLoss
from ecgfast.pml.losses.margins import TripletMarginLoss as TripletMarginLoss
from ecgfast.pml.losses.vicreg import VICRegLoss as VICRegLoss
from ecgfast.pml.losses.wrappers import CrossBatchMemory as CrossBatchMemory
from ecgfast.pml.losses.wrappers import SelfSupervisedLoss as SelfSupervisedLoss
