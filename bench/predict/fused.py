"""What this project's kernels take on a board: by their share of cuBLAS, since none of them has run on a GPU.

A board's cuBLAS is fitted to published timings (rates.py). How much longer a scheme of ours takes than cuBLAS alone
follows from the model by which the kernels choose their schemes (kernels/runtime/scheme_model.py): tiles over SMs, the
main loop's rate, and passes over memory. predicted.FUSED_HALF is how wrong that may be: a guess.
"""

from collections.abc import Callable

from bench.predict.boards import Board
from bench.predict.ops import Op
from bench.predict.rates import gemm_us, memory_us
from kernels.runtime.dispatch import Case, choose_backward, choose_forward, choose_tile
from kernels.runtime.scheme_model import backward_us, forward_us
from kernels.runtime.schemes import TILED
from kernels.runtime.sizes import padded
from kernels.runtime.tile_model import A100_RATES, cublas_us, gpu


def fused_us(board: Board, op: Op) -> tuple[float, float]:
    """Microseconds in a full queue, and from a CUDA graph. op: of kind lora_forward, lora_backward or paca_product."""
    price: Callable[[Board, Op, bool], float] = {
        "lora_forward": _forward,
        "lora_backward": _backward,
        "paca_product": _columns,
    }[op.kind]
    return price(board, op, False), price(board, op, True)


def _case(board: Board, op: Op) -> Case:
    m, n, k, rank = op.sizes
    return Case(m=m, n=n, k=k, rank=rank, arch=board.arch, sms=board.sms, dropout=op.dropout, bordered=True,
                fits_tma=n % 8 == 0 and k % 8 == 0)  # fmt: skip


def _forward(board: Board, op: Op, graph: bool) -> float:
    case = _case(board, op)
    scheme = choose_forward(case).scheme
    if scheme == "torch":  # a rank above the tables: three GEMMs, the last of which adds to y
        return _by_cublas(board, op, graph)
    kernel = TILED.get(scheme)
    tile = choose_tile(kernel, case, case.m, case.n) if kernel else None
    device = gpu(board.arch, board.sms) or A100_RATES
    sizes = case.m, case.n, case.k
    over = forward_us(scheme, tile, device, *sizes, case.rank, case.dropout) / cublas_us(device, *sizes)
    return max(1.0, over) * float(gemm_us(board, *sizes, width=op.width))


def _backward(board: Board, op: Op, graph: bool) -> float:
    """dX by its scheme; dS and dB in one pass over dY; dA in one over x, with the mask where there is dropout."""
    case = _case(board, op)
    m, n, k = case.m, case.n, case.k
    scheme = choose_backward(case).scheme
    product = float(gemm_us(board, m, k, n, width=op.width))
    if scheme == "torch":
        dx = product + float(memory_us(board, 3 * op.width * m * k, "elementwise", graph))
    else:
        kernel = TILED.get(scheme)
        tile = choose_tile(kernel, case, m, k, case.dropout) if kernel else None
        device = gpu(board.arch, board.sms) or A100_RATES
        over = backward_us(scheme, tile, device, m, n, k, case.rank, case.dropout) / cublas_us(device, m, k, n)
        dx = max(1.0, over) * product
    wide = op.width * padded(case.rank)
    mask = m * k / 8 if case.dropout else 0
    of_dy, of_x = op.width * m * n + wide * (m + n), op.width * m * k + mask + wide * (m + k)
    return dx + sum(float(memory_us(board, bytes_, "reduction", graph)) for bytes_ in (of_dy, of_x))


def _by_cublas(board: Board, op: Op, graph: bool) -> float:
    m, n, k, rank = op.sizes
    drawn = float(memory_us(board, op.width * 2.5 * m * k, "random", graph)) if op.dropout else 0.0
    products = gemm_us(board, m, n, k, width=op.width) + gemm_us(board, m, rank, k, width=op.width)
    return drawn + float(products + memory_us(board, 2 * op.width * m * n, "elementwise", graph))


def _columns(board: Board, op: Op, graph: bool) -> float:
    """The gradient of PaCA's live columns: one pass over dY."""
    return float(memory_us(board, op.bytes, "reduction", graph))
