"""Where pytorch-metric-learning keeps its wrappers for several processes."""

from ecgfast.pml.utils import distributed as distributed
