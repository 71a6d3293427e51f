"""Whether cases fit into memory side by side, each in a process of its own."""

from collections.abc import Sequence

import psutil

from bench.case import Case
from bench.devices import Device
from bench.roofline.memory import need

PROCESS = 2**30  # bytes: of a CUDA context with its libraries, and on a CPU of Python with torch and transformers
# Of weights and gradients, which the correctness check has beside, and gives back: where activations have no closed
# form, at levels linear and block, they are less.
COPIES = 2
SHARE = 0.85  # of the memory that may be filled: allocators waste some


def fits(cases: Sequence[Case], step: bool, device: Device) -> bool:
    """Whether what they hold while they wait fits, and beside it what the largest needs while it works: between its
    blocks a case gives back what forward keeps for backward. On a CPU it does that only at its end, so that all need
    theirs at once. True where the device's memory is not known.

    step: whole optimizer steps are timed.
    """
    if device.is_cpu:
        room: float | None = psutil.virtual_memory().available
    else:
        room = None if device.memory_mib is None else device.memory_mib * 2**20
    needs = [need(c, step) for c in cases]
    waiting = sum(PROCESS + n.at_least for n in needs)
    kept = [n.activations for n in needs if n.activations is not None]
    copies = [COPIES * n.at_least for n in needs if n.activations is None]
    working = max(sum(kept) if device.is_cpu else max(kept, default=0), max(copies, default=0))
    return room is None or waiting + working <= SHARE * room
