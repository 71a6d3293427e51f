"""One thread of a CPU as rates, and what the time of a matrix product on it is made of. No torch."""

from dataclasses import dataclass

from bench.predict.predicted import Half

GEMM_CLASSES = ("wide", "narrow", "flat", "short")
_NARROW = 32


@dataclass(frozen=True)
class CpuBoard:
    """One thread of a CPU. Times in microseconds."""

    name: str
    gemm: dict[str, list[float]]  # by gemm_class: us a multiplication, a value of w, of x, of y, and a call
    fresh: float  # us a byte of results above MAPPED
    memory: dict[str, tuple[float, float]]  # us a byte by class of operators, in the cache and beyond it
    attention: tuple[float, float]  # us a FLOP, forward and backward
    operator: tuple[float, float]  # of Python, the dispatcher and autograd, forward and backward
    errors: dict[str, Half]  # half widths of the 80 and 90 % intervals of an operator, by its own microbenchmarks
    source: str


def gemm_class(m: int, n: int, k: int) -> str:
    """Below 32 a side has code of its own in libraries: a narrow result, a flat one, a short sum; else wide."""
    return "narrow" if n < _NARROW else "flat" if m < _NARROW else "short" if k < _NARROW else "wide"


def gemm_terms(m: int, n: int, k: int, batch: int = 1) -> tuple[int, int, int, int, int]:
    """Multiplications, values of w, of x and of y, and 1: what a GEMM's time is a sum of."""
    return batch * m * n * k, batch * n * k, batch * m * k, batch * m * n, 1
