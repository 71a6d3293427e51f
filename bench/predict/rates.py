"""How long one operator takes on a board: formulas of a few numbers, each with a physical meaning.

Sizes may be numbers or numpy arrays that broadcast, and the times then have the broadcast shape, in microseconds. The
fit uses the same functions. The forms were chosen by their error on shapes that the fit had not seen.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.predict.boards import Board, MemoryKind

_TILES = np.array([(128, 256), (256, 128), (128, 128), (64, 128), (128, 64), (64, 64), (64, 256), (256, 64)]).T
_BEST_REUSE = 2 * 128 * 256 / (128 + 256)  # FLOPs a loaded element of the largest tiles
_SPLITS = (1, 2, 3, 4, 5, 6, 8)  # parts of K that the libraries give to different SMs
_SPLIT_US = 1.0  # what a second kernel that adds the parts costs at least
_WARM_UP_US = 1000.0  # a GEMM of this length has lost half of what a long one loses to the power limit
_OVERLAP = 4  # of products and memory: the larger counts, and where both are equal the sum is 2^(1/4) times either
_L2_STREAM = 0.6  # of the L2's reading rate, where reads and writes come mixed


# On the ordinary cores, in place of a board's numbers. Mean errors on NeuSight's 1040 products in fp32 each of the A100
# 80GB PCIe, the A100 40GB PCIe and the H100: 11, 8 and 15 %. e and k0 were chosen by these rows.
_ORDINARY = {"e": 0.8, "k0": 20.0, "pen": 0.0, "sag": 0.0}


def gemm_us(
    board: Board,
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    batch: ArrayLike = 1,
    width: int = 2,
    fp32: bool = False,
) -> NDArray[Any]:
    """The time of Y (M, N) = X (M, K) W (K, N), `batch` times in one kernel. In microseconds.

    width: bytes of an element. fp32: on the ordinary cores; else 4 bytes mean TF32. The numbers of `board.gemm`:

        t       = t0 + (products^4 + memory^4)^(1/4)
        products = c (1 + sag c / (c + 1000 us)),  c = min over tiles a x b, parts s of
                  ceil(batch ceil(M/a) ceil(N/b) s / SMs) * 2ab (K/s + k0) / (rate/SMs * e * q^pen) + adding(s)
        q       = the tile's FLOPs a loaded element, over those of the best tile
        adding  = 1 us and the parts' writing and reading through the L2, where s > 1
        memory  = W / (bandwidth * ebw) + (X + Y) as in memory_us, with ebw as share: they were just written, or are
                  read next, and W is cold

    Waves over the SMs, and K's fixed cost: NVIDIA, Matrix Multiplication Background User's Guide (tile and wave
    quantization). The rest by held-out error on bf16 GEMMs of six boards (`make fit`): parts of K take the mean error
    of the RTX PRO 6000 from 7.0 to 4.3 %, of the A100 from 7.1 to 5.3 %. Not in it: that sizes which are no multiple
    of 8 cost more, and the layouts of a backward pass, of which nothing is published.
    Never falls with M, N, K or batch, and never rises with a board's rates where its SMs grow no faster than they.
    """
    m, n, k, batch = (np.asarray(x, dtype=float) for x in (m, n, k, batch))
    g = board.gemm.model_copy(update=_ORDINARY) if fp32 else board.gemm
    bandwidth = board.bandwidth_tbs * 1e6 * g.ebw
    rate = (board.fp32_tflops if fp32 else board.tflops if width < 4 else board.tf32_tflops) * 1e6 / board.sms
    a, b = _TILES.reshape(2, -1, *[1] * np.broadcast(m, n, k, batch).ndim)
    a_wave = 2 * a * b / (rate * g.e * np.minimum(1, 2 * a * b / (a + b) / _BEST_REUSE) ** g.pen)
    tiles = batch * np.ceil(m / a) * np.ceil(n / b)
    products = np.asarray(np.inf)
    for s in _SPLITS:
        adding = _SPLIT_US + 2 * s * 4 * batch * m * n / (board.l2_tbs * 1e6) if s > 1 else 0
        waves = np.ceil(tiles * s / board.sms)
        products = np.minimum(products, (waves * a_wave * (k / s + g.k0)).min(axis=0) + adding)
    products = products * (1 + g.sag * products / (products + _WARM_UP_US))
    memory = width * batch * k * n / bandwidth + _stream_us(board, width * batch * m * (k + n), g.ebw)
    return g.t0_us + (products**_OVERLAP + memory**_OVERLAP) ** (1 / _OVERLAP)


def memory_us(board: Board, bytes_: ArrayLike, kind: MemoryKind, graph: bool = False) -> NDArray[Any]:
    """The time of a memory-bound kernel that reads and writes `bytes_` in all. In microseconds.

        t = launch + bytes (h / L2's rate + (1 - h) / (bandwidth * share of the kind))
        h = what the L2 still holds: `warm` up to 0.7 of its size, falling to 0 at 1.4 of it

    graph: replayed from a CUDA graph, where `graph_us` takes the place of `launch_us`. h falls as reading rates do
    with the working set on A100, H100, H200 and L40 (te42kyfo/gpu-benches, gpu-l2-cache); the first kernels of
    gpu-small-kernels there, of 1 to 8 MB, confirm the sum.
    """
    start = board.graph_us if graph else board.launch_us
    return start + _stream_us(board, np.asarray(bytes_, dtype=float), board.shares[kind])


def attention_us(board: Board, flops: ArrayLike, backward: bool = False, graph: bool = False) -> NDArray[Any]:
    """The time of a fused attention kernel (FlashAttention's family) that does `flops`. In microseconds.

    flops: with what the kernel computes anew, and without what a causal mask lets it leave out.
    """
    share = board.attention["backward" if backward else "forward"]
    start = board.graph_us if graph else board.launch_us
    return start + np.asarray(flops, dtype=float) / (share * board.tflops * 1e6)


def _stream_us(board: Board, bytes_: NDArray[Any], share: float) -> NDArray[Any]:
    memory = board.bandwidth_tbs * 1e6 * share
    l2 = max(memory, board.l2_tbs * 1e6 * _L2_STREAM)
    held = board.warm * np.clip(2 - bytes_ / (0.7 * board.l2_mib * 2**20), 0, 1)
    return bytes_ * (held / l2 + (1 - held) / memory)
