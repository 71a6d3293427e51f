"""From a case to a scheme and tiles, by what was measured, else by the models; plain functions of shapes, so that they
can be asked anywhere.

Left out, since neither the compiler nor the roofline favours them anywhere:
atomics for dB and dA (a launch to zero the buffers and one to cast them, against one reduction; and other bits each
time); a single pass for dX, with dS in its loop (breaks the pipelining, and dB needs dS from a pass over dY anyway);
single_pass with dropout (the mask once per column of tiles); a flattened persistent loop (serialised by one compiler
version or the other); S in the norm before the layer and side streams (1 to 3 %). The gather inside dP's kernel is kept
as PaCA's scheme 'fused', to be measured; its loads are never asynchronous, so no table chooses it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil

from . import launch
from . import tile_tables as tables
from .architectures import features
from .scheme_model import backward_us, forward_us
from .schemes import BACKWARD_SCHEMES, FORWARD_SCHEMES, TILED, TMA_FALLBACK
from .sizes import padded
from .tile_model import A100_RATES, Gpu, gemm_us, gpu
from .tile_tables import Tile
from .tuned import Measured, measured_on

#: The largest padded rank that the tables have tiles for; cuBLAS is at its best above.
MOST_RANK = 64


@dataclass(frozen=True)
class Case:
    """What the dispatcher looks at. arch: 90 for sm_90, 0 in the interpreter. sms: streaming multiprocessors.

    device: the name under which tuned tiles are looked up, '' for none. fp32_adapters: A and B are fp32, x is not.
    conv1d: the weight is stored as (K, N).
    """

    m: int
    n: int
    k: int
    rank: int
    arch: int
    sms: int
    dropout: bool = False
    bordered: bool = False
    fits_tma: bool = True
    interpreted: bool = False
    device: str = ""
    fp32_adapters: bool = False
    conv1d: bool = False
    bias: bool = False


@dataclass(frozen=True)
class Choice:
    scheme: str
    reason: str
    tile: Tile | None = None


def choose_forward(case: Case, scheme: str | None = None) -> Choice:
    """The forward scheme: the override, else what was measured, else the one with the least modelled time."""
    return _choose("forward", case, scheme)


def choose_backward(case: Case, scheme: str | None = None) -> Choice:
    """The backward scheme, likewise."""
    return _choose("backward", case, scheme)


def serves(scheme: str, passed: str, case: Case) -> bool:
    """Whether a scheme with kernels can compute the case: it has TMA and fitting rows where it needs them, and its
    GEMM a tile for the rank and mask. A single pass draws no mask. Whether the weight is bordered is not asked."""
    if scheme in TMA_FALLBACK and not (features(case.arch).tma and case.fits_tma):
        return False
    if scheme == "single_pass" and case.dropout:
        return False
    kernel, masked = TILED.get(scheme), case.dropout and passed == "backward"
    return kernel is None or any(allows(tile, case.rank, masked) for tile in tiles_of(kernel, case.arch))


def _choose(passed: str, case: Case, scheme: str | None) -> Choice:
    if scheme is not None:
        return Choice(scheme, "asked for")
    if not case.interpreted and 0 < case.arch < 80:
        return Choice("torch", "no bf16 tensor cores or asynchronous copies below sm_80")
    if padded(case.rank) > MOST_RANK:
        return Choice("torch", f"the tables hold no tile for ranks above {MOST_RANK}")
    entry = _measured(passed, case)
    if entry is not None:
        tile = None if entry.tile is None else Tile(*entry.tile, entry.reason)
        return Choice(entry.scheme, entry.reason, tile)
    # The interpreter takes what an A100 would, so that tests go through the kernels and not only through cuBLAS.
    if case.interpreted:
        case = replace(case, arch=80, sms=108, interpreted=False)
    device = gpu(case.arch, case.sms)
    if device is None:
        return Choice("cublas", "no Triton GEMM to lose against cuBLAS, right on every architecture")
    return _modelled(passed, case, device)


def _modelled(passed: str, case: Case, device: Gpu) -> Choice:
    """The scheme with the least estimated time; of equals the first as schemes.py lists them."""
    m, n, k, rank = case.m, case.n, case.k, case.rank
    times: dict[str, float] = {}
    for scheme in FORWARD_SCHEMES if passed == "forward" else BACKWARD_SCHEMES:
        fused_da = passed == "backward" and BACKWARD_SCHEMES[scheme][1]
        if (
            scheme == "torch"
            or fused_da
            or not serves(scheme, passed, case)
            or (scheme == "bordered" and not case.bordered)
        ):
            continue
        kernel = TILED.get(scheme)
        if passed == "forward":
            tile = None if kernel is None else choose_tile(kernel, case, m, n)
            times[scheme] = forward_us(scheme, tile, device, m, n, k, rank, case.dropout)
        else:
            tile = None if kernel is None else choose_tile(kernel, case, m, k, case.dropout)
            times[scheme] = backward_us(scheme, tile, device, m, n, k, rank, case.dropout)
    ordered = sorted(times, key=times.__getitem__)
    reason = "modelled microseconds: " + ", ".join(f"{scheme} {times[scheme]:.1f}" for scheme in ordered)
    scheme = ordered[0]
    if passed == "backward" and _fuses_da(case):
        scheme, reason = f"{scheme}_fused_da", f"{reason}; one launch for dS, dB and dA saves 2.5"
    return Choice(scheme, reason)


def _fuses_da(case: Case) -> bool:
    """Whether dS, dB and dA come out of one launch, which the models do not judge: its addends, one for every 32 rows,
    must stay in L2 (4096 tokens, rank 16: 16 MB at N + K 2048, of 40 on an A100, 6 on an RTX A6000)."""
    return case.n <= 5120 and case.n + case.k <= 2560 and padded(case.rank) <= 16


def _measured(passed: str, case: Case) -> Measured | None:
    """What was measured for the case, or for the nearest one: the same n, k, padded rank and dropout, which decide what
    is computed; of these the same layout and bias first, which change a time by little, then the nearest tokens, up to
    a factor of 1.5. Its reason says where the two differ. Of equals bordered: it is entered only where it was fastest.
    """

    def distance(entry: Measured) -> float:
        return max(entry.m, case.m) / max(1, min(entry.m, case.m))

    def farness(entry: Measured) -> tuple[bool, bool, float, bool]:
        return entry.conv1d != case.conv1d, entry.bias != case.bias, distance(entry), entry.scheme != "bordered"

    fitting = [
        entry
        for entry in measured_on(case.device)
        if (entry.passed, entry.n, entry.k) == (passed, case.n, case.k)
        and padded(entry.rank) == padded(case.rank)
        and entry.dropout == case.dropout
        and distance(entry) <= 1.5
        and (entry.scheme != "bordered" or case.bordered)
        and (entry.scheme not in TMA_FALLBACK or case.fits_tma)
    ]
    if not fitting:
        return None
    nearest = min(fitting, key=farness)
    other = [f"at M {nearest.m}"] if nearest.m != case.m else []
    if nearest.conv1d != case.conv1d:
        other.append("in Conv1D's layout" if nearest.conv1d else "in Linear's layout")
    if nearest.bias != case.bias:
        other.append("with a bias" if nearest.bias else "without a bias")
    return replace(nearest, reason=f"{nearest.reason} (measured {', '.join(other)})") if other else nearest


_given_tiles: dict[str, Tile] = {}


@contextmanager
def using_tiles(tiles: Mapping[str, Tile]) -> Iterator[None]:
    """Within it these tiles stand in place of the tables', by kernel, in every thread: backward has one of its own."""
    before = dict(_given_tiles)
    _given_tiles.update(tiles)
    launch.forget_plans()
    try:
        yield
    finally:
        _given_tiles.clear()
        _given_tiles.update(before)
        launch.forget_plans()


def tiles_of(kernel: str, arch: int) -> tuple[Tile, ...]:
    """The kernel's list for an architecture, the safe one where it has none of its own."""
    by_arch = tables.TILES[kernel]
    return by_arch.get(arch) or by_arch.get(tables.SAFE) or by_arch[max(by_arch)]


def allows(tile: Tile, rank: int, masked: bool) -> bool:
    """Whether the tile was found clean for this rank and use of the mask."""
    return padded(rank) <= tile.max_rank and tile.masked in (None, masked)


def choose_tile(kernel: str, case: Case, rows: int, columns: int, masked: bool = False) -> Tile:
    """Of the tiles that allow the rank and the mask the one with the least modelled time, where the kernel is a GEMM
    of (rows, columns); of a streaming kernel the first that leaves few SMs idle, else the last."""
    if kernel in _given_tiles:
        return _narrowed(kernel, _given_tiles[kernel], case)
    if case.interpreted:
        return tables.INTERPRETED[kernel]
    tiles = tiles_of(kernel, case.arch)
    allowed = [tile for tile in tiles if allows(tile, case.rank, masked)] or [tiles[-1]]
    if all(tile.bm and tile.bn and tile.bk for tile in allowed):
        # Where the rates are not known, an A100's: for tiles of one kernel they only weigh the epilogue.
        device = gpu(case.arch, case.sms) or replace(A100_RATES, arch=case.arch, sms=case.sms)
        depth = case.k if columns == case.n else case.n  # dX's reduction is N
        inner = padded(case.rank) if kernel == "single_pass" else 0
        heavy = masked or padded(case.rank) > 32
        return min(
            allowed,
            key=lambda tile: gemm_us(
                tile, device, rows, columns, depth, tma=kernel.endswith("tma"), rank=inner, heavy=heavy
            ),
        )
    for tile in allowed:
        blocks = ceil(rows / tile.bm) * (ceil(columns / tile.bn) if tile.bn else 1)
        if blocks >= tile.min_waves * case.sms:
            return _narrowed(kernel, tile, case)
    return _narrowed(kernel, allowed[-1], case)


#: The kernels that read A or B, or dS', beside a stream, and the side of the tile that lies along it.
_ALONG_THE_STREAM = {
    "project": "bk", "branch_gradients": "bn", "branch_gradients_da": "bn", "skinny": "bn", "skinny_parts": "bn",
}  # fmt: skip


def _narrowed(kernel: str, tile: Tile, case: Case) -> Tile:
    """Half the tile where fp32 adapters of a large rank need it: they take twice the shared memory (project 16x128,
    rank 64: 108 KiB, of 99 on sm_86), and over fp16 a second accumulator (branch_gradients 64x64 spilled 316 bytes on
    sm_80)."""
    side = _ALONG_THE_STREAM.get(kernel)
    if side is None or not case.fp32_adapters or padded(case.rank) <= 32:
        return tile
    return replace(tile, **{side: getattr(tile, side) // 2})


def parts_for(blocks: int, steps: int, case: Case, most: int = 4) -> int:
    """Into how many parts a long loop of `steps` is split so that blocks * parts fill most SMs: a power of two.

    Whoever reads S or dS in parts loads each of them: four at most, two above rank 32. Four fp32 parts of rank 64
    beside an accumulator spilled 208 bytes on sm_90 (128x256 by TMA), and 1400 on sm_120.
    """
    if padded(case.rank) > 32:
        most = min(most, 2)
    parts = 1
    while parts < most and blocks * parts < 0.75 * case.sms and steps >= 4 * parts:
        parts *= 2
    return parts
