"""How long each scheme takes, as arithmetic over tile_model's estimates: the GEMM, the S kernel, and what passes over
memory besides. What all schemes of a pass share (dS', dB, dA) is left out."""

from .schemes import BACKWARD_SCHEMES
from .sizes import padded
from .tile_model import Gpu, cublas_us, gemm_us, stream_us
from .tile_tables import Tile

#: The S kernel under dropout draws a mask for every element: integer instructions for twice the time of its bytes.
DRAWING = 2


def forward_us(scheme: str, tile: Tile | None, device: Gpu, m: int, n: int, k: int, rank: int, dropout: bool) -> float:
    """Microseconds of a forward. tile: that of the scheme's GEMM, None where cuBLAS computes it.

    cublas adds a pass of addmm_, which reads and writes Y; bordered a copy of X beside S' and a copy of B into the
    border, and its K is wider by the padded rank.
    """
    width = padded(rank)
    if scheme == "single_pass":
        assert tile is not None
        return gemm_us(tile, device, m, n, k, rank=width, heavy=width > 32)
    read = 2 * m * k * (DRAWING if dropout else 1)
    if scheme == "bordered":
        return (
            stream_us(device, read + 2 * m * k) + stream_us(device, 4 * n * width) + cublas_us(device, m, n, k + width)
        )
    projected = stream_us(device, read)
    if scheme == "cublas":
        return projected + cublas_us(device, m, n, k) + stream_us(device, 4 * m * n)
    assert tile is not None
    return projected + gemm_us(tile, device, m, n, k + width, tma=scheme == "epilogue_tma", heavy=width > 32)


def backward_us(
    scheme: str, tile: Tile | None, device: Gpu, m: int, n: int, k: int, rank: int, dropout: bool
) -> float:  # fmt: skip
    """Microseconds of dX (m, k) alone, whose reduction is n. tile: as in forward_us."""
    dx_by, _ = BACKWARD_SCHEMES[scheme]
    if dx_by == "cublas":
        return cublas_us(device, m, k, n) + stream_us(device, 4 * m * k)
    assert tile is not None
    heavy = dropout or padded(rank) > 32
    return gemm_us(tile, device, m, k, n + padded(rank), tma=dx_by == "epilogue_tma", heavy=heavy)
