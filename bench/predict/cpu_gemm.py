"""What the time of an fp32 GEMM on a CPU is made of."""

GEMM_CLASSES = ("wide", "narrow", "flat", "short")
_NARROW = 32


def gemm_class(m: int, n: int, k: int) -> str:
    """Below 32 a side has code of its own in libraries: a narrow result, a flat one, a short sum; else wide."""
    return "narrow" if n < _NARROW else "flat" if m < _NARROW else "short" if k < _NARROW else "wide"


def gemm_terms(m: int, n: int, k: int, batch: int = 1) -> tuple[int, int, int, int, int]:
    """Multiplications, values of w, of x and of y, and 1: what a GEMM's time is a sum of."""
    return batch * m * n * k, batch * n * k, batch * m * k, batch * m * n, 1
