"""From a case to a scheme and tiles, by the tables; a plain function of shapes, so that it can be asked anywhere.

Left out, since neither the compiler nor the roofline favours them anywhere:
atomics for dB and dA (a launch to zero the buffers and one to cast them, against one reduction; and other bits each
time); F2's counterpart for dX, with dS in its loop (breaks the pipelining, and dB needs dS from a pass over dY anyway);
F2 with dropout (the mask once per column of tiles); TMA for dX under a mask (128x256 spills there, and at 128x128 the
pointer kernel is as good); a flattened persistent loop (serialised by one compiler version or the other); S in the norm
before the layer and side streams (1 to 3 %). The gather inside dP's kernel is kept as PaCA's scheme 'fused', to be
measured; its loads are never asynchronous, so no table chooses it. F3 itself, one GEMM with S' for nothing, computes no
layer: it is the time to be held to, and F3' is what can be run of it.
"""

from dataclasses import dataclass
from math import ceil

from . import tile_tables as tables
from .sizes import padded
from .tile_tables import Measured, Rule, Tile

#: Forward schemes of lora_linear: what each is stands in kernels/lora/forward.py.
FORWARD_SCHEMES = ("f0", "f1", "f1t", "f2", "f3p", "torch")

#: Backward schemes: how dX is computed, and how dS, dB and dA are.
BACKWARD_SCHEMES = {
    "torch": ("torch", "torch"),
    "b1": ("cublas", "sweep"),
    "b1r": ("cublas", "rows"),
    "b2": ("gemm", "sweep"),
    "b2r": ("gemm", "rows"),
    "b2t": ("persistent", "sweep"),
    "b2tr": ("persistent", "rows"),
}

#: The largest padded rank that the tables have tiles for; cuBLAS is at its best above.
MOST_RANK = 64


@dataclass(frozen=True)
class Case:
    """What the dispatcher looks at. arch: 90 for sm_90, 0 in the interpreter. sms: streaming multiprocessors."""

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


@dataclass(frozen=True)
class Choice:
    scheme: str
    reason: str
    tile: Tile | None = None


def split_scheme(scheme: str | None) -> tuple[str | None, str | None]:
    """'f1', 'f1/b2' or '/b2' -> forward and backward override, None where the tables decide."""
    if scheme is None:
        return None, None
    forward, _, backward = scheme.partition("/")
    if (forward and forward not in FORWARD_SCHEMES) or (backward and backward not in BACKWARD_SCHEMES):
        raise ValueError(
            f"scheme is {scheme!r}, expected FORWARD, FORWARD/BACKWARD or /BACKWARD with FORWARD one of "
            f"{', '.join(FORWARD_SCHEMES)} and BACKWARD one of {', '.join(BACKWARD_SCHEMES)}"
        )
    return forward or None, backward or None


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
    if rule.scheme in ("f1t", "b2t") and not case.fits_tma:
        return Choice(rule.scheme[:2], "rows are not multiples of 16 bytes, which TMA needs")
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
    def distance(entry: Measured) -> float:
        return max(entry.m, case.m) / max(1, min(entry.m, case.m))

    fitting = [
        entry
        for entry in tables.MEASURED
        if (entry.passed, entry.arch, entry.n, entry.k) == (passed, case.arch, case.n, case.k)
        and padded(entry.rank) == padded(case.rank)
        and entry.dropout == case.dropout
        and distance(entry) <= 1.5
        and (entry.scheme != "f3p" or case.bordered)
        and (entry.scheme not in ("f1t", "b2t", "b2tr") or case.fits_tma)
    ]
    return min(fitting, key=distance, default=None)


#: Tiles that the audit, kernels.tune and tests set in place of the tables', by kernel.
forced_tiles: dict[str, Tile] = {}


def tiles_of(kernel: str, arch: int) -> tuple[Tile, ...]:
    """The kernel's list for an architecture, the safe one where it has none of its own."""
    by_arch = tables.TILES[kernel]
    return by_arch.get(arch) or by_arch.get(tables.SAFE) or by_arch[max(by_arch)]


def allows(tile: Tile, rank: int, masked: bool) -> bool:
    """Whether the tile was found clean for this rank and use of the mask."""
    return padded(rank) <= tile.max_rank and tile.masked in (None, masked)


def choose_tile(kernel: str, case: Case, rows: int, columns: int, masked: bool = False) -> Tile:
    """The first tile of the kernel's list that allows the rank and the mask and leaves few SMs idle; else the last."""
    if kernel in forced_tiles:
        return forced_tiles[kernel]
    if case.interpreted:
        return tables.INTERPRETED[kernel]
    tiles = tiles_of(kernel, case.arch)
    allowed = [tile for tile in tiles if allows(tile, case.rank, masked)] or [tiles[-1]]
    for tile in allowed:
        blocks = ceil(rows / tile.bm) * (ceil(columns / tile.bn) if tile.bn else 1)
        if blocks >= tile.min_waves * case.sms:
            return tile
    return allowed[-1]


def parts_for(blocks: int, steps: int, case: Case, most: int = 4) -> int:
    """Into how many parts a long loop of `steps` is split so that blocks * parts fill most SMs: a power of two.

    Whoever reads S or dS in parts loads each of them: four at most.
    """
    parts = 1
    while parts < most and blocks * parts < 0.75 * case.sms and steps >= 4 * parts:
        parts *= 2
    return parts


def describe(case: Case, scheme: str | None = None) -> str:
    """One line a pass: what would run for a case, and why."""
    forward, backward = split_scheme(scheme)
    choices = {"forward": choose_forward(case, forward), "backward": choose_backward(case, backward)}
    return "\n".join(f"{passed}: {choice.scheme} ({choice.reason})" for passed, choice in choices.items())
