"""Who attracts whom: from a batch to indices of triplets."""

from ecgfast.miners.distance import EmbeddingDistance as EmbeddingDistance
from ecgfast.miners.distance import InputDistance as InputDistance
from ecgfast.miners.extreme import BatchHard as BatchHard
from ecgfast.miners.extreme import LabelDistance as LabelDistance
from ecgfast.miners.extreme import NearestFarthest as NearestFarthest
from ecgfast.miners.hubs import csls as csls
from ecgfast.miners.hubs import mutual_proximity as mutual_proximity
from ecgfast.miners.landmarks import Landmarks as Landmarks
from ecgfast.miners.pairs import NPairs as NPairs
from ecgfast.miners.pools import Dealt as Dealt
from ecgfast.miners.pools import InBatch as InBatch
from ecgfast.miners.pools import Ring as Ring
from ecgfast.miners.rows import Ids as Ids
from ecgfast.miners.rows import Negatives as Negatives
from ecgfast.miners.rows import Rows as Rows
from ecgfast.miners.sampled import DistanceWeighted as DistanceWeighted
from ecgfast.miners.sampled import RandomTriplets as RandomTriplets
from ecgfast.miners.sampled import SemiHard as SemiHard
from ecgfast.miners.sampled import SoftHard as SoftHard
from ecgfast.miners.triplets import PositivePairs as PositivePairs
from ecgfast.miners.triplets import Triplets as Triplets
from ecgfast.miners.watch import EmptyWatch as EmptyWatch
