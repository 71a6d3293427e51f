"""The GPUs of the estimate: what each can do in a clock, and how long cuBLAS takes on it by a published fit."""

from dataclasses import dataclass
from math import ceil

from ..runtime.architectures import KIB

#: The tiles between which the fit lets cuBLAS choose.
CUBLAS_TILES = ((128, 256), (256, 128), (128, 128), (64, 128), (128, 64), (64, 64), (64, 256), (256, 64))


@dataclass(frozen=True)
class Fit:
    """cuBLAS in 16 bits on one GPU, three serving stacks' published times reduced to five numbers, which miss them by 5
    to 11 % in the mean (ai-dynamo/aiconfigurator, Apache-2.0: bf16, M of 512 and more, N and K of 256 and more).

    launch_us: before and after a kernel. held: share of the tensor cores' peak that they hold under load, where the
    clock falls below the rated one. fill: what a tile waits at its beginning and end, in columns of K. memory_held:
    share of the memory's rated bandwidth. penalty: how a small tile's rate falls with its operations per byte.
    """

    launch_us: float
    held: float
    fill: float
    memory_held: float
    penalty: float


@dataclass(frozen=True)
class Machine:
    """One GPU. ghz: the boost clock that the rated peak assumes. macs: multiply-accumulates a clock and SM on tensor
    cores, 16-bit, summed in fp32. memory and l2: 1e9 bytes a second. shared: bytes of shared memory an SM, all blocks
    together. threads: the most an SM holds."""

    arch: int
    sms: int
    ghz: float
    macs: int
    memory: float
    l2: float
    shared: int
    threads: int
    fit: Fit

    def cublas_us(self, m: int, n: int, k: int) -> float:
        """Microseconds of one (m, k) x (k, n) product in cuBLAS, by the published fit."""
        fit = self.fit
        rate = self.macs * self.ghz * 1e3 * fit.held  # MACs a microsecond and SM

        def tiled(a: int, b: int) -> float:
            quality = min(1.0, 2 * a * b / (a + b) / 170.7) ** fit.penalty
            return ceil(ceil(m / a) * ceil(n / b) / self.sms) * a * b * (k + fit.fill) / (rate * quality)

        bytes_us = 2 * (m * k + n * k + m * n) / (self.memory * 1e3 * fit.memory_held)
        return fit.launch_us + max(min(tiled(a, b) for a, b in CUBLAS_TILES), bytes_us)


# Peaks, SMs and memory: the data sheets and white papers named in bench/gpus.yaml; ghz and macs are their peak, taken
# apart (312e12 = 2 x 108 x 1024 x 1.41e9). L2: read bandwidth at 8 MB, te42kyfo/gpu-benches@1c36d50:gpu-l2-cache
# (A100 80 GB, H200; the H100 has the H200's chip; L40S, RTX 4090 and A6000 by SM and clock as its L40). Nobody has
# published Blackwell's: assumed are the L40's bytes an SM and clock for the RTX cards, and 64 for a B200. Shared memory
# and threads of an SM: "CUDA C++ Programming Guide", technical specifications by compute capability.
# The fits of A6000, RTX 4090 and RTX 5090 are not their own: they are A100's, L40S's and RTX PRO 6000's, but held is
# such that the best square of torch.matmul comes out as published (0.80, 1.0 and 1.1 of the rated peak), and their
# share of the memory is assumed. Those of B200 and RTX PRO 6000 come from one serving stack each.
MACHINES = {
    "a100": Machine(80, 108, 1.41, 1024, 2039, 5430, 164 * KIB, 2048, Fit(3.78, 0.902, 151, 0.61, 0.28)),
    "a6000": Machine(86, 84, 1.80, 512, 768, 2200, 100 * KIB, 1536, Fit(3.78, 0.85, 151, 0.8, 0.28)),
    "rtx4090": Machine(89, 128, 2.52, 256, 1008, 4700, 100 * KIB, 1536, Fit(1.49, 1.05, 101, 0.9, 0.02)),
    "l40s": Machine(89, 142, 2.49, 512, 864, 5200, 100 * KIB, 1536, Fit(1.49, 0.625, 101, 1.0, 0.02)),
    "h100": Machine(90, 132, 1.83, 2048, 3350, 10200, 228 * KIB, 2048, Fit(2.80, 0.850, 162, 0.75, 0.02)),
    "h200": Machine(90, 132, 1.83, 2048, 4800, 10200, 228 * KIB, 2048, Fit(2.76, 0.845, 143, 0.86, 0.02)),
    "b200": Machine(100, 148, 1.856, 4096, 7700, 13100, 228 * KIB, 2048, Fit(2.46, 0.747, 57, 0.59, 0.05)),
    "rtx5090": Machine(120, 170, 2.407, 256, 1792, 6000, 100 * KIB, 1536, Fit(1.74, 1.1, 162, 0.9, 0.21)),
    "rtxpro6000": Machine(120, 188, 2.617, 512, 1792, 7200, 100 * KIB, 1536, Fit(1.74, 0.9, 162, 0.81, 0.21)),
}
