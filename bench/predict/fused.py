"""This project's kernels as GEMMs and passes over memory that a board has rates for. No kernel is run or compiled.

How much longer than cuBLAS's product alone the best scheme takes is taken from kernels/runtime/scheme_model.py, and the
board's own time of that product is multiplied by it. Assumed, for none of these kernels was ever timed on a GPU:

- the scheme that the dispatcher chooses without measurements, and its modelled time over cuBLAS's, never below 1. What
  a scheme does besides (S', the pass that adds the branch) scales with the product: too much on GeForce boards of sm_89
  and sm_120, whose tensor rate is half of what the model has.
- what the model leaves out of a backward pass, at the rate of reductions, all bytes from memory: one pass over dY for
  dS' and dB, one over x for dA, writing and reading their fp32 addends. Those of small layers would stay in the L2.
- adapters in 16 bits, no bias, and that dX, dA and dB are all asked for.

HALF is the half width of the 80 and 90 % interval of the times over cuBLAS: a guess. The product's own comes on top.
"""

from dataclasses import dataclass
from functools import cache, partial
from math import ceil

from bench.predict.ops import Op

HALF = (0.2, 0.3)


@dataclass(frozen=True)
class Piece:
    """Part of one of our kernels' work: as much as `times` an operator that a board has a rate for."""

    op: Op
    times: float = 1.0


@dataclass(frozen=True)
class Pieces:
    """A call of one of our kernels."""

    of: tuple[Piece, ...]
    launches: int


@cache
def taken_apart(op: Op, arch: int, sms: int) -> Pieces:
    """The pieces of a lora_forward, lora_backward or paca_product on a board of sm_<arch>, by the dispatcher's choice.

    Where that is torch, or the architecture's rates are not known, and in fp32: one operator after another. Imports
    torch, by way of the dispatcher.
    """
    apart = {"lora_forward": _forward, "lora_backward": _backward, "paca_product": _product}
    return apart[op.kind](op, arch, sms)


def _forward(op: Op, arch: int, sms: int) -> Pieces:
    from kernels.runtime.dispatch import Case, choose_forward, choose_tile
    from kernels.runtime.scheme_model import forward_us
    from kernels.runtime.schemes import TILED
    from kernels.runtime.tile_model import cublas_us, gpu

    m, n, k, rank = op.sizes
    case = Case(m, n, k, rank, arch, sms, op.dropout)
    scheme, device = choose_forward(case).scheme, gpu(arch, sms)
    if scheme == "torch" or device is None or op.width != 2:
        return _forward_by_torch(op)
    tile = choose_tile(TILED[scheme], case, m, n) if scheme in TILED else None
    share = forward_us(scheme, tile, device, m, n, k, rank, op.dropout) / cublas_us(device, m, n, k)
    launches = {"single_pass": 1, "cublas": 3, "bordered": 3}.get(scheme, 2)
    return Pieces((Piece(_gemm(op, "base_forward", m, n, k), max(1.0, share)),), launches)


def _backward(op: Op, arch: int, sms: int) -> Pieces:
    from kernels.runtime.dispatch import Case, choose_backward, choose_tile, parts_for
    from kernels.runtime.scheme_model import backward_us
    from kernels.runtime.schemes import BACKWARD_SCHEMES, TILED
    from kernels.runtime.sizes import padded
    from kernels.runtime.tile_model import cublas_us, gpu

    m, n, k, rank = op.sizes
    case = Case(m, n, k, rank, arch, sms, op.dropout)
    scheme, device = choose_backward(case).scheme, gpu(arch, sms)
    if scheme == "torch" or device is None or op.width != 2:
        return _backward_by_torch(op)
    dx_by, fused_da = BACKWARD_SCHEMES[scheme]
    tile = choose_tile(TILED[scheme], case, m, k, op.dropout) if scheme in TILED else None
    share = backward_us(scheme, tile, device, m, n, k, rank, op.dropout) / cublas_us(device, m, k, n)
    # Addends as kernels/lora/backward.py has them: a set for each block of rows, or for each part of a skinny product.
    ds = choose_tile("branch_gradients_da" if fused_da else "branch_gradients", case, m, 0 if fused_da else n)
    sets = (ceil(m / ds.bm), ceil(m / ds.bm))
    if not fused_da:
        skinny = choose_tile("skinny", case, m, k)
        sets = sets[0], parts_for(ceil(k / skinny.bn), ceil(m / skinny.bm), case, most=16)
    addends = [4 * padded(rank) * of * wide for of, wide in zip(sets, (n, k), strict=True)]
    over_dy = 2 * m * n + 4 * m * padded(rank) + addends[0]
    over_x = 2 * m * k + 2 * m * padded(rank) + addends[1] + (m * k / 8 if op.dropout else 0)
    passes = [over_dy + over_x] if fused_da else [over_dy, over_x]
    passes.append(sum(addends) + 2 * rank * (n + k))
    streamed = (Piece(_pass(op, bytes_)) for bytes_ in passes)
    launches = len(passes) + (2 if dx_by == "cublas" else 1)
    return Pieces((Piece(_gemm(op, "base_dx", m, k, n), max(1.0, share)), *streamed), launches)


def _product(op: Op, arch: int, sms: int) -> Pieces:
    """dP (rank, n): one pass over dY, and one that sums the parts into which it was split (kernels/paca/autograd.py).
    Memory-bound up to every rank that there are tiles for: 64 FLOPs a byte of dY."""
    from kernels.runtime.dispatch import MOST_RANK, Case, choose_tile, parts_for
    from kernels.runtime.sizes import padded

    m, n, rank = op.sizes
    if padded(rank) > MOST_RANK or op.width != 2 or arch < 80:
        return Pieces((Piece(_gemm(op, op.cause, rank, n, m)),), 1)
    case = Case(m, n, rank, rank, arch, sms)
    tile = choose_tile("skinny", case, m, n)
    parts = parts_for(ceil(n / tile.bn), ceil(m / tile.bm), case, most=16)
    addends, out, read = 4 * parts * padded(rank) * n, 2 * rank * n, 2 * m * (n + rank)
    passes = [read + out] if parts == 1 else [read + addends, addends + out]
    return Pieces(tuple(Piece(_pass(op, bytes_)) for bytes_ in passes), len(passes))


def _forward_by_torch(op: Op) -> Pieces:
    m, n, k, rank = op.sizes
    gemm = partial(_gemm, op)
    ops = [gemm("base_forward", m, n, k), gemm(op.cause, m, rank, k), gemm(op.cause, m, n, rank)]
    ops.append(_pass(op, 2 * op.width * m * n, "elementwise"))
    if op.dropout:
        ops.append(_pass(op, 2 * op.width * m * k, "random"))
    return Pieces(tuple(map(Piece, ops)), len(ops))


def _backward_by_torch(op: Op) -> Pieces:
    m, n, k, rank = op.sizes
    gemm = partial(_gemm, op)
    ops = [gemm("base_dx", m, k, n), gemm(op.cause, m, rank, n), gemm(op.cause, n, rank, m)]
    ops += [gemm(op.cause, rank, k, m), gemm(op.cause, m, k, rank)]
    ops += [_pass(op, 2 * op.width * m * k, "elementwise")] * (2 if op.dropout else 1)
    return Pieces(tuple(map(Piece, ops)), len(ops))


def _gemm(op: Op, cause: str, m: int, n: int, k: int) -> Op:
    return Op(op.name, cause, "gemm", (m, n, k, 1), op.width, op.fp32)


def _pass(op: Op, bytes_: float, kind: str = "reduction") -> Op:
    return Op(op.name, op.cause, kind, bytes=bytes_)  # type: ignore[arg-type]
