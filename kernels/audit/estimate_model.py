"""From a program's counts to microseconds: arithmetic, on the stated rates of a GPU. Nothing here is measured."""

from dataclasses import dataclass
from math import ceil

from ..runtime.tile_model import REGISTERS, SHARED_BYTES, TENSOR_COLUMNS
from .estimate_machine import Machine
from .sass import Program, Work

#: Clocks until a load from memory or a far part of L2 is there: 570 to 850 on GA100 and GH100 in published latency
#: benchmarks (pointer chasing, 4 to 80 MB). Assumed of the others.
LATENCY = 700

#: Clocks that a step of mma.sync adds where no other block fills them: a barrier (30), then the first LDSM (33), then
#: the first HMMA (33), each of which waits for the one before; published latencies of GA100.
STEP_LATENCY = 100

#: The rest of a tile waits for memory twice: S' and the factor beside it are read, and the store is drained.
ROUND_TRIPS = 2

#: Share of its scarcest resource that a loop of mma.sync reaches, as its warps issue everything that it does: the one
#: number here that is fitted, to published shares of cuBLAS (tests/kernels/audit/test_estimate_is_honest.py).
SYNCHRONOUS = 0.93

SCHEDULERS = 4


@dataclass(frozen=True)
class Run:
    """What is launched. tiles: pieces of output, each by one block, or in turn by `programs` of them. steps: of the
    main loop, for each tile. copied_bytes: what a step brings to shared memory, through L2. stored_bytes: what a tile
    stores. unique_bytes: every operand and result once, which memory moves at least. macs: multiply-accumulates of a
    step by its sizes, for instructions that do not say them. product: rows, columns and length of the sums of the GEMM
    that is computed, None where a kernel only reads much."""

    tiles: int
    steps: int
    copied_bytes: int
    stored_bytes: int
    unique_bytes: int
    programs: int | None = None
    macs: int = 0
    product: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Estimate:
    """us: microseconds. bound: tensor cores, shared memory, issue, integer, L2 or memory. blocks: on an SM at once.
    waves: tiles that the busiest SM computes. outside: share of the SM's time outside of main loops. step, rest: clocks
    of an SM that each resource needs for one step, and for what comes before and after the loop of one tile."""

    us: float
    bound: str
    blocks: int
    waves: int
    outside: float
    step: dict[str, float]
    rest: dict[str, float]


def estimate(program: Program, run: Run, machine: Machine) -> Estimate:
    """The time of one launch.

    An SM computes its tiles one after another, each as long as its steps (the scarcest resource decides), the filling
    of its pipeline and what comes before and after the loop. Where several blocks share an SM, they fill each other's
    waits, and only the scarcest resource counts. L2 and memory bound the whole launch.
    """
    in_turn = run.tiles if run.programs is None else run.programs
    blocks = max(1, min(blocks_per_sm(program, machine), ceil(in_turn / machine.sms)))
    waves = ceil(run.tiles / min(in_turn, machine.sms))
    needs = clocks(program.step, machine, run.copied_bytes, run.macs)
    ending = clocks(program.rest, machine, run.stored_bytes)
    rest = max(ending.values())
    bound = max(needs, key=lambda name: needs[name])
    step = needs[bound] / (SYNCHRONOUS if program.waits else 1)
    waiting = run.steps * STEP_LATENCY if program.waits else 0
    ends = (1 + ROUND_TRIPS) * LATENCY  # the first step's fill, and what the rest waits for
    alone = ends + run.steps * step + waiting + rest
    total = waves * alone
    if blocks > 1:
        # The first block's fill and the last one's drain have nothing beside them.
        total = max(ends + waves * (run.steps * step + rest), ceil(waves / blocks) * alone)
    us = total / (machine.ghz * machine.fit.held * 1e3)
    memory_us = run.unique_bytes / (machine.memory * 1e3 * machine.fit.memory_held)
    outside = 1 - waves * run.steps * step / total
    bound = bound if us >= memory_us else "memory"
    return Estimate(machine.fit.launch_us + max(us, memory_us), bound, blocks, waves, outside, needs, ending)


def clocks(work: Work, machine: Machine, moved_bytes: int, macs: int = 0) -> dict[str, float]:
    """The clocks that each resource of an SM needs for a block's work, and its share of L2 for the bytes it moves.

    The copies' bytes pass through shared memory as well, whoever brings them. macs: of products that do not say theirs;
    they read from shared memory what the copies brought, once.
    """
    l2 = machine.l2 / (machine.ghz * machine.fit.held * machine.sms)  # bytes a clock and SM
    return {
        "tensor cores": (work.macs + (macs if work.unsized else 0)) / machine.macs,
        "shared memory": shared_bytes(work, moved_bytes) / SHARED_BYTES,
        "issue": work.issued / SCHEDULERS,
        "integer": 2 * max(work.integer, work.multiplied) / SCHEDULERS,
        "L2": moved_bytes / l2,
    }


def shared_bytes(work: Work, moved_bytes: int) -> int:
    """Bytes of shared memory that a block's work reads and writes, the copies' among them."""
    return work.shared_bytes + max(work.copied_bytes, moved_bytes) + (moved_bytes if work.unsized else 0)


def blocks_per_sm(program: Program, machine: Machine) -> int:
    """Blocks that an SM holds at once, by registers (given in eights a thread), shared memory (1 KiB of each
    block's is the system's), threads and tensor memory."""
    threads = 32 * program.warps
    registers = threads * 8 * ceil(max(program.registers, 1) / 8)
    by_tensor_memory = TENSOR_COLUMNS // program.tensor_columns if program.tensor_columns else 32
    by_shared = machine.shared // (program.shared_bytes + 1024)
    return min(REGISTERS // registers, by_shared, machine.threads // threads, by_tensor_memory, 32)
