"""Whether cases fit into memory side by side, each in a process of its own."""

from collections.abc import Sequence

import psutil

from bench.case import Case
from bench.devices import Device
from bench.roofline.memory import need

PROCESS = 2**30  # bytes: of a CUDA context with its libraries, and on a CPU of Python with torch and transformers
COPIES = 3  # where activations have no closed form: of weights and gradients, as the correctness check has of a block
SHARE = 0.85  # of the memory that may be filled: allocators waste some


def fits(cases: Sequence[Case], step: bool, device: Device) -> bool:
    """True where it is not known how much memory the device has."""
    if device.is_cpu:
        room: float | None = psutil.virtual_memory().available
    else:
        room = None if device.memory_mib is None else device.memory_mib * 2**20
    return room is None or sum(_about(c, step) for c in cases) <= SHARE * room


def _about(case: Case, step: bool) -> int:
    found = need(case, step)
    return PROCESS + (found.about or COPIES * found.at_least)
