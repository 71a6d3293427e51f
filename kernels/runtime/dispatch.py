"""From a case to a scheme and tiles, by the tables; a plain function of shapes, so that it can be asked anywhere.

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
from .schemes import TMA_FALLBACK
from .sizes import padded
from .tile_tables import Rule, Tile
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
    """The forward scheme: the override, else what was measured, else the first rule that holds."""
    return _choose("forward", tables.FORWARD, case, scheme)


def choose_backward(case: Case, scheme: str | None = None) -> Choice:
    """The backward scheme, likewise."""
    return _choose("backward", tables.BACKWARD, case, scheme)


def _choose(passed: str, rules: tuple[Rule, ...], case: Case, scheme: str | None) -> Choice:
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
    rule = next(rule for rule in rules if _holds(rule, case))
    if rule.scheme in TMA_FALLBACK and not case.fits_tma:
        return Choice(TMA_FALLBACK[rule.scheme], "rows are not multiples of 16 bytes, which TMA needs")
    return Choice(rule.scheme, rule.reason)


def _holds(rule: Rule, case: Case) -> bool:
    # The interpreter takes the rules of sm_80, so that tests go through the kernels and not only through cuBLAS.
    arch = 80 if case.interpreted else case.arch
    return (
        (not rule.archs or arch in rule.archs)
        and (rule.dropout is None or rule.dropout == case.dropout)
        and case.n <= rule.max_n
        and case.k <= rule.max_k
        and case.n + case.k <= rule.max_n_plus_k
        and padded(case.rank) <= rule.max_rank
        and (case.bordered or not rule.bordered)
    )


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
    """The first tile of the kernel's list that allows the rank and the mask and leaves few SMs idle; else the last."""
    if kernel in _given_tiles:
        return _narrowed(kernel, _given_tiles[kernel], case)
    if case.interpreted:
        return tables.INTERPRETED[kernel]
    tiles = tiles_of(kernel, case.arch)
    allowed = [tile for tile in tiles if allows(tile, case.rank, masked)] or [tiles[-1]]
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

    Whoever reads S or dS in parts loads each of them: four at most.
    """
    parts = 1
    while parts < most and blocks * parts < 0.75 * case.sms and steps >= 4 * parts:
        parts *= 2
    return parts
