"""How long a GEMM takes in a tile, as arithmetic: rounds of tiles over the SMs times the rate of the main loop.

Everything here is an estimate, for comparing tiles and schemes with each other until `python -m kernels.tune` has
measured them; no time that it gives was taken on a GPU.

A step is 16 of K. In it the tensor cores work 2 * BM * BN * 16 / FLOPs-per-clock clocks, shared memory moves
SHARED_BYTES a clock (what the copies write, and what the products read), and L2 delivers what the copies write. The
slowest of the three is the main loop's rate: on an H100 a tile of 128x256 needs 128 bytes of shared memory a clock,
just what there is, and 128x128 needs 160.
"""

from dataclasses import dataclass
from math import ceil

from .architectures import KIB, features
from .tile_tables import Tile

#: Bytes that an SM's shared memory moves in a clock: 32 banks of 4 bytes (CUDA C++ programming guide), since 8.0.
SHARED_BYTES = 128
#: Share of that rate that Triton's main loop reaches, by pointers and by TMA. Published shares of cuBLAS from 2432
#: squared up are 0.88 to 1.0 on an A100, and 0.95 to 0.975 at 4096 cubed on an H100.
MAIN_LOOP = {False: 0.93, True: 0.95}
#: Clocks an element of the tile in which nothing is multiplied: filling the pipeline, the branch, the store. From 2 us
#: for 128x256 on an H100 at 1.75 GHz, counted in its machine code and not measured.
EPILOGUE_CLOCKS = 0.1
#: Registers a thread beside the accumulator, as compiled for rank 16: 38 to 53 with wgmma and tcgen05, which read
#: their operands from shared memory; 66 to 101 with mma, whose operands pass through registers.
OTHER_REGISTERS = {"mma": 88, "wgmma": 56, "tcgen05": 56}
#: More of them under a mask and above rank 32: 124 became 174 to 230 for 128x128 on sm_90.
HEAVY_REGISTERS = 56
REGISTERS = 65536  # of an SM
TENSOR_COLUMNS = 512  # of tensor memory, each 128 lanes of 4 bytes (PTX, tcgen05)


@dataclass(frozen=True)
class Gpu:
    """What one SM of a GPU does. flops_a_clock: dense, 16-bit, fp32 accumulation. l2_bytes: from L2 in a clock.
    tflops: sustained. tbs: its share of the memory's bandwidth, in TB/s."""

    arch: int
    sms: int
    flops_a_clock: int
    l2_bytes: int
    tflops: float
    tbs: float

    @property
    def clocks_a_us(self) -> float:
        return self.tflops / self.flops_a_clock * 1e6


# A full device: SMs, FLOPs of an SM in a clock, bytes from L2 to an SM in a clock, sustained TFLOP/s and TB/s.
# FLOPs a clock are the data sheet's peak over SMs and boost clock. L2: 5120 bytes a clock for an A100 (its white
# paper); 48 just feeds 128x256 on an H100, which Triton runs at nine tenths of cuBLAS; 15 is an L40's (gpu-benches,
# gpu-l2-cache: 5.2 TB/s at 142 SMs and 2.49 GHz), taken for its relatives too; B200's is assumed.
# Sustained is 0.81 (H100, B200: held by power), 0.87 (A100) and 0.9 of the data sheet's TFLOP/s and 0.92 of its TB/s,
# all assumed; data sheets: A100 80GB 312 and 2.04, RTX A6000 155 and 0.77, L40S 362 and 0.86, H100 SXM 989 and 3.35,
# B200 2250 and 7.7, RTX PRO 6000 Blackwell 504 and 1.79. GeForce cards of sm_89 and sm_120 have half the rate: passes
# over memory weigh less there than this says. A smaller device is taken to have as many times less of all as of SMs.
_DEVICES = {
    80: (108, 2048, 47, 270.0, 1.88),
    86: (84, 1024, 15, 140.0, 0.71),
    89: (142, 1024, 15, 326.0, 0.80),
    90: (132, 4096, 48, 800.0, 3.08),
    100: (148, 8192, 48, 1820.0, 7.1),
    120: (188, 1024, 15, 453.0, 1.65),
}


def gpu(arch: int, sms: int) -> Gpu | None:
    """A device of sm_<arch> with that many SMs; None where the architecture's rates are not in the table."""
    if arch not in _DEVICES:
        return None
    of, flops_a_clock, l2_bytes, tflops, tbs = _DEVICES[arch]
    return Gpu(arch, sms, flops_a_clock, l2_bytes, tflops / of, tbs / of)


#: For architectures whose rates are not known.
A100_RATES = Gpu(80, 108, 2048, 47, 270.0 / 108, 1.88 / 108)


def shared_bytes(tile: Tile, arch: int, tma: bool = False, rank: int = 0) -> int:
    """Bytes of shared memory of a block, as Triton allocates them: with mma one stage fewer than asked for.

    tma: half the tile waits there to be stored. rank: padded, where A's rows are read in the main loop too.
    """
    stages = tile.stages - 1 if features(arch).mma == "mma" else tile.stages
    return stages * (tile.bm + tile.bn + rank) * tile.bk * 2 + (tile.bm * tile.bn if tma else 0)


def blocks_per_sm(tile: Tile, arch: int, tma: bool = False, rank: int = 0, heavy: bool = False) -> int:
    """How many blocks an SM holds, by shared memory (of which each block takes another KiB), registers and, with
    tcgen05, tensor memory: the TMA kernel holds the accumulator there twice. At least 1.

    heavy: under a mask or above rank 32."""
    mma = features(arch).mma
    threads = 32 * tile.warps
    others = OTHER_REGISTERS[mma] + (HEAVY_REGISTERS if heavy else 0)
    registers = min(255, tile.bm * tile.bn // threads + others)
    fit = [
        (features(arch).shared_limit + KIB) // (shared_bytes(tile, arch, tma, rank) + KIB),
        REGISTERS // (threads * (ceil(registers / 8) * 8)),
    ]
    if mma == "tcgen05":
        fit.append(TENSOR_COLUMNS // (tile.bn * (2 if tma else 1)))
    return max(1, min(fit))


def step_clocks(tile: Tile, device: Gpu, rank: int = 0) -> float:
    """Clocks of one SM for 16 of K of a tile. rank: padded, where S is accumulated in the same loop."""
    bm, bn, line = tile.bm, tile.bn, 32  # 16 elements of 2 bytes
    mma = features(device.arch).mma
    if mma == "wgmma":  # each warp group reads its rows, and all of the columns
        read = bm + tile.warps // 4 * bn
        read += bm + tile.warps // 4 * rank if rank else 0
    elif mma == "tcgen05":
        read = bm + bn + (bm + rank if rank else 0)
    else:  # each warp reads its rows and columns, in the grid of warps that reads least; S's share its rows' registers
        grids = [(rows, tile.warps // rows) for rows in (1, 2, 4, 8) if tile.warps % rows == 0]
        read = min(columns * bm + rows * (bn + rank) for rows, columns in grids)
    written = bm + bn + rank
    copied = max((read + written) * line / SHARED_BYTES, written * line / device.l2_bytes)
    # An instruction of tcgen05 has 128 rows; with 64 half of the unit is idle.
    rows = max(bm, 128) if mma == "tcgen05" else bm
    return max(copied, 2 * rows * (bn + rank) * 16 / device.flops_a_clock)


def gemm_us(
    tile: Tile, device: Gpu, m: int, n: int, k: int, *, tma: bool = False, rank: int = 0, heavy: bool = False
) -> float:  # fmt: skip
    """Microseconds of Y (m, n) = X (m, k) times W in this tile. rank: padded, of a single pass; else 0.

    Blocks beyond one an SM share its rate, and hide each other's epilogues up to the last. heavy: as in blocks_per_sm.
    """
    rounds = ceil(ceil(m / tile.bm) * ceil(n / tile.bn) / device.sms)
    main = ceil(k / 16) * step_clocks(tile, device, rank) / MAIN_LOOP[tma]
    epilogue = EPILOGUE_CLOCKS * tile.bm * tile.bn
    hidden = rounds > 1 and blocks_per_sm(tile, device.arch, tma, rank, heavy) > 1
    clocks = rounds * main + (1 if hidden else rounds) * epilogue
    return max(clocks / device.clocks_a_us, _floor(device, m, n, k))


def relative(tile: Tile, device: Gpu, m: int, n: int, k: int, *, tma: bool = False, rank: int = 0) -> float:
    """gemm_us in units of the ideal: every SM at the tensor cores' rate from begin to end."""
    return gemm_us(tile, device, m, n, k, tma=tma, rank=rank) / (2e-6 * m * n * k / (device.tflops * device.sms))


def cublas_us(device: Gpu, m: int, n: int, k: int) -> float:
    """Microseconds of the same product by cuBLAS: the tensor cores' full rate, in the best of its tiles, an epilogue at
    the end alone. Taken from the names of its kernels: powers of two with mma, multiples of 32 since wgmma."""
    step = 64 if features(device.arch).mma == "mma" else 32
    sides = [side for side in range(64, 257, step) if step == 32 or side != 192]
    best = min(
        ceil(ceil(m / bm) * ceil(n / bn) / device.sms) * 2 * bm * bn * k / device.flops_a_clock
        + EPILOGUE_CLOCKS * bm * bn
        for bm in sides
        for bn in sides
        if 64 * 128 <= bm * bn <= 128 * 256
    )
    return max(best / device.clocks_a_us, _floor(device, m, n, k))


def _floor(device: Gpu, m: int, n: int, k: int) -> float:
    return stream_us(device, 2 * (m * k + n * k + m * n))


#: What each kernel after another costs at least, even in a CUDA graph. An estimate.
LAUNCH_US = 2.5


def stream_us(device: Gpu, nbytes: float) -> float:
    """Microseconds of a kernel that moves so many bytes."""
    return max(LAUNCH_US, nbytes / (device.tbs * device.sms) * 1e-6)
