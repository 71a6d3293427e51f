"""What one thread of this machine's CPU takes for the operators of a decoder: measured once, in about 10 s of CPU time.

Each number has a physical meaning; none comes from a measured case.
"""

from collections.abc import Callable
from time import process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench.predict.cpu_gemm import GEMM_CLASSES, gemm_class, gemm_terms

MIB = 2**20
# (rows, out, in) of x W^T, dY W and dY^T x, in this order by `_product`: wide ones, an adapter's, and of short sums.
_WIDE = [(64, 1024, 1024), (64, 4096, 1024), (64, 1024, 4096), (128, 1024, 1024), (128, 3072, 1024), (128, 1600, 6400),
         (128, 2048, 256), (64, 256, 2048)]  # fmt: skip
_SKINNY = [(64, 8, 1024), (128, 8, 4096), (64, 1024, 8), (128, 4096, 8), (128, 16, 2048), (64, 2048, 16)]
_SUMS = [(1024, 1024, 64), (4096, 1024, 64), (1024, 4096, 128), (2048, 2048, 128), (1024, 8, 64), (8, 4096, 128),
         (4096, 16, 64), (2048, 16, 128), (8, 1024, 64), (16, 2048, 64), (8, 2048, 128)]  # fmt: skip


def seconds(call: Callable[[], object], least: float = 0.02, now: Callable[[], float] = process_time) -> float:
    """CPU time of a call: the median of at least five after two more, and of `least` seconds."""
    call()
    call()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < least and len(times) < 200):
        start = now()
        call()
        times.append(now() - start)
    return float(np.median(times))


def fit_gemms(features: NDArray[Any], us: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numbers >= 0 by least squares of the relative errors, and predicted over measured of each row without itself."""
    scaled = features / us[:, None]
    largest = scaled.max(axis=0)

    def fit(rows: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(nnls(scaled[rows] / largest, np.ones(int(rows.sum())))[0] / largest)

    every = np.ones(len(us), dtype=bool)
    out = [float(scaled[i] @ fit(np.arange(len(us)) != i)) for i in range(len(us))]
    return fit(every), np.array(out)


def _product(m: int, n: int, k: int, how: str) -> float:
    """us of one GEMM whose weight is read from memory: copies of it take turns. how: as autograd lays operands out."""
    copies = max(1, min(64, 48 * MIB // (4 * n * k)))
    if how == "sum":  # dY^T x: both are activations
        a, b, y = torch.randn(k, m), torch.randn(k, n), torch.empty(m, n)
        return 1e6 * seconds(lambda: torch.mm(a.t(), b, out=y))
    weights = [torch.randn(n, k) if how == "forward" else torch.randn(k, n) for _ in range(copies)]
    x, y, at = torch.randn(m, k), torch.empty(m, n), [0]

    def call() -> None:
        at[0] = (at[0] + 1) % copies
        w = weights[at[0]]
        torch.mm(x, w.t() if how == "forward" else w, out=y)

    return 1e6 * seconds(call)


def gemm_rates() -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The five numbers of each class, and |predicted over measured - 1| of shapes held out."""
    shapes = [(s, how) for s in _WIDE + _SKINNY for how in ("forward", "dx")] + [(s, "sum") for s in _SUMS]
    rows = [(gemm_class(*s), gemm_terms(*s), _product(*s, how)) for s, how in shapes]
    x, y = torch.randn(16, 64, 64), torch.randn(16, 64, 64)
    rows.append(("wide", gemm_terms(64, 64, 64, 16), 1e6 * seconds(lambda: torch.bmm(x, y))))
    numbers, errors = {}, {}
    for one in GEMM_CLASSES:
        of = [(f, us) for c, f, us in rows if c == one]
        found, ratios = fit_gemms(np.array([f for f, _ in of], dtype=float), np.array([us for _, us in of]))
        numbers[one], errors[one] = found.tolist(), np.abs(ratios - 1).tolist()
    return numbers, errors


def _calls(values: int) -> dict[str, tuple[float, Callable[[], object]]]:
    """For each class of memory-bound operators the bytes by a trace's count, and a call of one of it."""
    width = 1024
    x, y = torch.randn(values // width, width), torch.randn(values // width, width)
    weight, out, aten = torch.randn(width), torch.empty(values // width, width), torch.ops.aten
    normed = aten.native_layer_norm(x, [width], weight, weight, 1e-5)
    heads = x.view(-1, 64)
    soft, index = torch.softmax(heads, -1), torch.arange(0, width, 2)
    size = 4.0 * values
    return {
        "elementwise": (3 * size, lambda: x * y),
        "one": (2 * size, lambda: x * 3.0),
        "power": (2 * size, lambda: torch.pow(x, 3.0)),
        "tanh": (2 * size, lambda: torch.tanh(x)),
        "tanh_backward": (3 * size, lambda: aten.tanh_backward(x, y)),
        "silu": (2 * size, lambda: torch.nn.functional.silu(x)),
        "silu_backward": (3 * size, lambda: aten.silu_backward(x, y)),
        "norm": (2 * size, lambda: aten.native_layer_norm(x, [width], weight, weight, 1e-5)),
        "norm_backward": (3 * size, lambda: aten.native_layer_norm_backward(
            x, y, [width], normed[1], normed[2], weight, weight, [True, True, True])),
        "softmax": (2 * size, lambda: torch.softmax(heads, -1)),
        "softmax_backward": (3 * size, lambda: aten._softmax_backward_data(soft, soft, -1, torch.float32)),
        "random": (size, lambda: out.bernoulli_(0.9)),
        "broadcast": (2 * size, lambda: x * weight),
        "copy": (2 * size, lambda: x.t().contiguous()),
        "rows": (2 * size, lambda: torch.cat([x, x[:0]])),
        "reduction": (size, lambda: x.sum(-1)),
        "columns": (size, lambda: x.sum(0)),
        "gather": (size, lambda: x.index_select(-1, index)),
    }  # fmt: skip


def memory_rates(small: int, large: int) -> tuple[dict[str, tuple[float, float]], list[float]]:
    """us a byte of each class with `small` values and with `large` ones, and errors of a size between by the first."""
    empty = seconds(lambda: torch.empty(8))
    found = []
    for values in (small, large, small * 4):
        found.append({c: 1e6 * (seconds(call, 0.01) - empty) / b for c, (b, call) in _calls(values).items()})
    rates = {c: (found[0][c], max(found[0][c], found[1][c])) for c in found[0]}
    return rates, [abs(found[0][c] / found[2][c] - 1) for c in found[0]]


def attention_rates() -> tuple[tuple[float, float], list[float]]:
    """us a FLOP of causal attention by a trace's count, forward and backward, and errors of a longer sequence."""
    each = []
    for length in (64, 128):
        q, k, v = (torch.randn(1, 16, length, 64, requires_grad=True) for _ in range(3))
        flops = 2 * 16 * 64 * length**2

        def forward(q: Tensor = q, k: Tensor = k, v: Tensor = v) -> Tensor:
            return scaled_dot_product_attention(q, k, v, is_causal=True)

        def both(forward: Callable[[], Tensor] = forward, leaves: tuple[Tensor, ...] = (q, k, v)) -> object:
            out = forward()
            return torch.autograd.grad(out, leaves, out.detach())

        one = seconds(forward)
        each.append((1e6 * one / flops, 1e6 * max(1e-9, seconds(both) - one) / (2.5 * flops)))
    (a, b), (c, d) = each
    return ((a + c) / 2, (b + d) / 2), [abs(a / c - 1), abs(b / d - 1)]
