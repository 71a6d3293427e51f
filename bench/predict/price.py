"""What operators take on a board, in microseconds of its GPU. Without torch, but for this project's kernels."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from bench.predict.boards import Board, ErrorKind
from bench.predict.fused import HALF, Piece, Pieces, taken_apart
from bench.predict.ops import MEMORY_KINDS, Op
from bench.predict.rates import attention_us, gemm_us, memory_us

FUSED = ("lora_forward", "lora_backward", "paca_product")
THIN = 64  # no published GEMM has a side below; LoRA's branch has
THIN_HALF = (0.5, 0.8)  # of their times: a guess
QUEUED, GRAPH = 0, 1  # rows of us: in a full queue, and replayed from a CUDA graph


@dataclass(frozen=True)
class Source:
    """What may be wrong as one: the rate of one kind of operator in one cause, on one board."""

    board: str
    kind: str  # gemm, thin (a thin GEMM), memory, attention; fused: what our kernels take over cuBLAS
    cause: str
    half: tuple[float, float]  # relative half widths of the 80 and 90 % intervals


@dataclass(frozen=True)
class Prices:
    """What each of some operators takes on a board."""

    us: NDArray[Any]  # (2, operators): by QUEUED and GRAPH
    launches: NDArray[Any]  # (operators,)
    sources: dict[Source, NDArray[Any]]  # (2, operators): how much of us is wrong if the source is


def prices(board: Board, ops: Sequence[Op]) -> Prices:
    """The operators' prices; they should be distinct. All of one kind are priced in one call of numpy: alone each
    would cost 0.2 ms, of some hundred for every case and board."""
    apart = [taken_apart(op, board.arch, board.sms) if op.kind in FUSED else Pieces((Piece(op),), 1) for op in ops]
    flat = [(i, piece) for i, pieces in enumerate(apart) for piece in pieces.of]
    of_piece = _us(board, [piece.op for _, piece in flat]) * np.array([piece.times for _, piece in flat])
    us = np.zeros((2, len(ops)))
    sources: dict[Source, NDArray[Any]] = {}
    for (i, piece), each in zip(flat, of_piece.T, strict=True):
        us[:, i] += each
        wrong = [_source(board, piece.op)]
        if ops[i].kind in FUSED:
            wrong.append(Source(board.key, "fused", ops[i].cause, HALF))
        for source in wrong:
            sources.setdefault(source, np.zeros_like(us))[:, i] += each
    return Prices(us, np.array([pieces.launches for pieces in apart], dtype=int), sources)


def _source(board: Board, op: Op) -> Source:
    if op.kind == "gemm" and min(op.sizes[:3]) < THIN:
        return Source(board.key, "thin", op.cause, THIN_HALF)
    kind: ErrorKind = op.kind if op.kind in get_args(ErrorKind) else "memory"  # type: ignore[assignment]
    return Source(board.key, kind, op.cause, board.errors[kind])


def _us(board: Board, ops: Sequence[Op]) -> NDArray[Any]:
    """(2, len(ops)) of operators that the board has rates for."""
    out = np.zeros((2, len(ops)))
    for key, at in _alike(ops, lambda op: (op.kind, op.width, op.fp32, op.backward)).items():
        out[:, at] = _alike_us(board, key[0], [ops[i] for i in at])  # type: ignore[index]
    return out


def _alike(ops: Sequence[Op], key: Callable[[Op], Hashable]) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = {}
    for i, op in enumerate(ops):
        found.setdefault(key(op), []).append(i)
    return found


def _alike_us(board: Board, kind: str, ops: Sequence[Op]) -> Any:
    """(2, len(ops)), or (len(ops),) where a graph changes nothing. fp32 attention has the same share of its rate."""
    first = ops[0]
    if kind == "gemm":
        m, n, k, batch = np.array([op.sizes for op in ops], dtype=float).T
        return gemm_us(board, m, n, k, batch, first.width, first.fp32)
    if kind in MEMORY_KINDS:
        bytes_ = np.array([op.bytes for op in ops])
        return [memory_us(board, bytes_, first.kind, graph) for graph in (False, True)]  # type: ignore[arg-type]
    rate = board.fp32_tflops if first.fp32 else board.tflops if first.width < 4 else board.tf32_tflops
    flops = np.array([op.flops for op in ops]) * board.tflops / rate
    return [attention_us(board, flops, first.backward, graph) for graph in (False, True)]
