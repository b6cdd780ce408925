"""One of two tasks of a SLURM job, each on a machine of its own: trains, goes on, says its weights.

python two_nodes.py OUT; the rest is in the environment, as srun leaves it.
"""

from __future__ import annotations

import hashlib
import sys

from toy_run import build, config

from ecgfast.train.fit import fit

if __name__ == "__main__":
    for steps in (3, 5):
        words = {"devices": 1, "nodes": 2, "strategy": "ddp", "batch_size": 4}
        trainer = fit(build, config(sys.argv[1], steps=steps, **words))
    digest = hashlib.sha256()
    for weight in trainer.lightning_module.parameters():
        digest.update(weight.detach().numpy().tobytes())
    print("rank", trainer.global_rank, "of", trainer.world_size, digest.hexdigest())
