"""Miners under the names and signatures of pytorch-metric-learning.

A miner is called as ``miner(embeddings, labels, ref_emb=None, ref_labels=None)`` and returns lists
of changing length: triplets (anchors, positives, negatives), or pairs (anchors, positives, anchors,
negatives). Miners of fixed length, which compile, are in :mod:`ecgfast.miners`.
"""

from ecgfast.pml.miners._miner import BaseMiner as BaseMiner
from ecgfast.pml.miners.hardest import BatchEasyHardMiner as BatchEasyHardMiner
from ecgfast.pml.miners.hardest import BatchHardMiner as BatchHardMiner
from ecgfast.pml.miners.margins import MultiSimilarityMiner as MultiSimilarityMiner
from ecgfast.pml.miners.margins import PairMarginMiner as PairMarginMiner
from ecgfast.pml.miners.margins import TripletMarginMiner as TripletMarginMiner
from ecgfast.pml.miners.sampled import DistanceWeightedMiner as DistanceWeightedMiner
