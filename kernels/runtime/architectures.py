"""What the architectures of NVIDIA GPUs can do, as far as a choice here depends on it: the one place that knows.

Shared memory: CUDA C++ programming guide, table of technical specifications by compute capability, the most that one
block may use. TMA and programmatic dependent launch: since compute capability 9.0 (the same guide).
"""

from dataclasses import dataclass
from typing import Literal

KIB = 1024


@dataclass(frozen=True)
class Architecture:
    """shared_limit: bytes of shared memory that a block may use. mma: the matrix instruction that Triton emits for a
    16-bit product of large tiles: mma (warps, from registers), wgmma (warp groups, from shared memory), tcgen05 (one
    thread issues, the accumulator lies in tensor memory). tma: copies of whole tiles. pdl: a kernel may begin before
    the one ahead of it has ended."""

    shared_limit: int
    mma: Literal["mma", "wgmma", "tcgen05"]
    tma: bool = False
    pdl: bool = False


#: By compute capability, 90 for sm_90.
ARCHITECTURES = {
    80: Architecture(163 * KIB, "mma"),
    86: Architecture(99 * KIB, "mma"),
    89: Architecture(99 * KIB, "mma"),
    90: Architecture(227 * KIB, "wgmma", tma=True, pdl=True),
    100: Architecture(227 * KIB, "tcgen05", tma=True, pdl=True),
    120: Architecture(99 * KIB, "mma", tma=True, pdl=True),
}

#: Any other: nothing is taken for granted but what every architecture since 8.0 has.
OTHER = Architecture(99 * KIB, "mma")


def features(arch: int) -> Architecture:
    """The features of sm_<arch>; the least common ones where it is unknown, or 0 (the interpreter)."""
    return ARCHITECTURES.get(arch, OTHER)
