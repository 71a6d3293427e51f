"""Two queues: the host issues operators one after another, and the GPU works them off. Arrays of microseconds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BOUND = 0.05  # of the GPU's own time: what it may wait for the host before a pass counts as launch-bound


def eager_us(gpu: NDArray[Any], host: NDArray[Any], start: float) -> float:
    """When the last of the operators ends that take the host and then the GPU so long; both begin with nothing to do.

    The host waits for nothing. The GPU begins an operator when it is issued and the one before has ended, and all come
    `start` later:

        end = start + max over j of (host_1 + .. + host_j + gpu_j + .. + gpu_n)
    """
    if not len(gpu):
        return 0.0
    done = np.cumsum(gpu)
    return start + float(done[-1] + (np.cumsum(host) - done + gpu).max())


def host_limit_us(gpu: NDArray[Any], launches: NDArray[Any], start: float) -> float:
    """The cost of a launch on the host at which `eager_us` exceeds the GPU's time by BOUND; 0 where it always does.

    Above, it exceeds it by more: each term of the maximum grows with the cost, and one cost makes each of them equal.
    """
    if not len(gpu):
        return 0.0
    before = np.cumsum(gpu) - gpu
    return max(0.0, float(((BOUND * gpu.sum() - start + before) / np.cumsum(launches)).min()))


def slopes(gpu: NDArray[Any], host: NDArray[Any], start: float, more: tuple[float, float]) -> tuple[float, float]:
    """By how many us `eager_us` grows for one more of the GPU's, and for one more of the host's, each 0 to 1.

    more: by which share the GPU's time is made longer for that, and the host's: where the other queue is the longer one
    by less than that, it does not hide all of it.
    """
    now = eager_us(gpu, host, start)
    longer = eager_us(gpu * (1 + more[0]), host, start), eager_us(gpu, host * (1 + more[1]), start)
    added = more[0] * gpu.sum(), more[1] * host.sum()
    of_gpu, of_host = ((us - now) / by if by else 0.0 for us, by in zip(longer, added, strict=True))
    return float(of_gpu), float(of_host)
