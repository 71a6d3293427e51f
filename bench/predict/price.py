"""What the operators of a trace take on a board, in microseconds of the GPU."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.predict.boards import Board
from bench.predict.ops import MEMORY_KINDS, Op
from bench.predict.rates import attention_us, gemm_us, memory_us

FUSED = ("lora_forward", "lora_backward", "paca_product")


def gpu_us(board: Board, ops: Sequence[Op]) -> NDArray[Any]:
    """(2, len(ops)): each operator's time in a full queue, and replayed from a CUDA graph.

    Operators of one kind are priced in one call of numpy: alone each of some hundred would cost 0.2 ms.
    """
    out = np.zeros((2, len(ops)))
    for kind in dict.fromkeys(op.kind for op in ops):
        at = [i for i, op in enumerate(ops) if op.kind == kind]
        out[:, at] = _of_kind(board, kind, [ops[i] for i in at])
    return out


def _of_kind(board: Board, kind: str, ops: Sequence[Op]) -> NDArray[Any]:
    if kind in MEMORY_KINDS:
        bytes_ = np.array([op.bytes for op in ops])
        return np.stack([memory_us(board, bytes_, kind, graph) for graph in (False, True)])
    if kind in FUSED:
        from bench.predict.fused import fused_us  # imports torch, by way of the dispatcher

        return np.array([fused_us(board, op) for op in ops]).T
    return _by(ops, lambda op: (op.width, op.fp32, op.backward), _gemms if kind == "gemm" else _attentions, board)


def _by(
    ops: Sequence[Op],
    key: Callable[[Op], Hashable],
    price: Callable[[Board, Sequence[Op]], NDArray[Any]],
    board: Board,
) -> NDArray[Any]:
    """The times of operators of which only those with an equal key can be priced in one call."""
    out = np.zeros((2, len(ops)))
    keys = [key(op) for op in ops]
    for one in dict.fromkeys(keys):
        at = [i for i, k in enumerate(keys) if k == one]
        out[:, at] = price(board, [ops[i] for i in at])
    return out


def _gemms(board: Board, ops: Sequence[Op]) -> NDArray[Any]:
    m, n, k, batch = np.array([op.sizes for op in ops], dtype=float).T
    return gemm_us(board, m, n, k, batch, ops[0].width, ops[0].fp32)


def _attentions(board: Board, ops: Sequence[Op]) -> NDArray[Any]:
    """Of fp32 operands the same share of the rate that a GEMM of theirs has."""
    first = ops[0]
    rate = board.fp32_tflops if first.fp32 else board.tflops if first.width < 4 else board.tf32_tflops
    flops = np.array([op.flops for op in ops]) * board.tflops / rate
    return np.stack([attention_us(board, flops, first.backward, graph) for graph in (False, True)])
