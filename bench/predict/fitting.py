"""Finds a board's numbers from timings, and how far its predictions lie from timings. Frames come from published.py."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from bench.predict.boards import Board, Gemm, MemoryKind
from bench.predict.rates import gemm_us, memory_us

# Of each number: where the search starts, and what is physically possible.
_GEMM = {
    "t0_us": (2.5, 0.5, 8.0),
    "e": (0.83, 0.3, 1.3),
    "k0": (130.0, 1.0, 400.0),
    "ebw": (0.75, 0.3, 1.0),
    "pen": (0.1, 0.001, 1.5),
    "sag": (0.2, 0.001, 1.0),
}
_LEAST_ROWS = 6  # of a kind of memory-bound operator, for a share of its own
Ratios = NDArray[Any]  # predicted over measured


def fit_gemm(board: Board, rows: pd.DataFrame, steps: int = 900) -> Gemm:
    """The six numbers by which `gemm_us` lies nearest to the rows (m, n, k, us): least mean absolute log error."""
    start, low, high = np.log(np.array(list(_GEMM.values()))).T

    def numbers(x: NDArray[Any]) -> Gemm:
        return Gemm(**dict(zip(_GEMM, np.exp(np.clip(x, low, high)).tolist(), strict=True)))

    def cost(x: NDArray[Any]) -> float:
        us = predicted_us(replace(board, gemm=numbers(x)), rows)
        return float(np.abs(np.log(us / rows.us)).mean() + np.abs(x - np.clip(x, low, high)).sum())

    options = {"maxfev": steps, "xatol": 1e-3, "fatol": 1e-5, "adaptive": True}
    found = minimize(cost, start, method="Nelder-Mead", options=options)
    return numbers(minimize(cost, found.x, method="Nelder-Mead", options={**options, "maxfev": steps // 2}).x)


def fit_rate(board: Board, squares: pd.DataFrame) -> Gemm:
    """Its numbers with e such that the median square (m, tflops; m of 0: the best of 2048 to 10240) is met."""
    sides = np.array([2048, 4096, 8192, 10240])
    best = (2 * sides**3 / gemm_us(board, sides, sides, sides) / 1e6).max()
    m = squares.m.to_numpy(float)
    side = np.where(m > 0, m, 2048)
    expected = np.where(m > 0, 2 * side**3 / gemm_us(board, side, side, side) / 1e6, best)
    return board.gemm.model_copy(update={"e": board.gemm.e * float(np.median(squares.tflops / expected))})


def fit_shares(board: Board, rows: pd.DataFrame) -> dict[MemoryKind, float]:
    """The share of the bandwidth of each kind that has rows enough (kind, bytes, us)."""
    shares: dict[MemoryKind, float] = {}
    for kind, part in rows.groupby("kind"):
        if len(part) < _LEAST_ROWS:
            continue

        def cost(share: float, kind: Any = kind, part: pd.DataFrame = part) -> float:
            tried = replace(board, shares={kind: share})
            return float(np.abs(np.log(memory_us(tried, part.bytes, kind) / part.us)).mean())

        shares[kind] = float(minimize_scalar(cost, bounds=(0.1, 1.0), method="bounded").x)  # type: ignore[index]
    return shares


def predicted_us(board: Board, rows: pd.DataFrame, fp32: bool = False) -> NDArray[Any]:
    """Of GEMMs (m, n, k), in 16 bits or in fp32."""
    m, n, k = (rows[c].to_numpy(float) for c in "mnk")
    return gemm_us(board, m, n, k, width=4 if fp32 else 2, fp32=fp32)


def gemm_ratios(board: Board, rows: pd.DataFrame, fp32: bool = False) -> Ratios:
    """Of GEMMs (m, n, k, us)."""
    return predicted_us(board, rows, fp32) / rows.us.to_numpy()


def memory_ratios(board: Board, rows: pd.DataFrame) -> Ratios:
    """Of memory-bound kernels (kind, bytes, us)."""
    us = [float(memory_us(board, size, kind)) for size, kind in zip(rows.bytes, rows.kind, strict=True)]
    return np.array(us) / rows.us.to_numpy()


def unseen(rows: pd.DataFrame) -> NDArray[Any]:
    """The rows with an m, n or k that is not among every other value of it: True where a coarse fit had not seen it."""
    return np.logical_or.reduce([rows[c].isin(np.unique(rows[c])[1::2]).to_numpy() for c in "mnk"])


def large(rows: pd.DataFrame) -> NDArray[Any]:
    """The rows that the targets are for: M from 512, N and K from 256."""
    return ((rows.m >= 512) & (rows.n >= 256) & (rows.k >= 256)).to_numpy()


def half_widths(ratios: Ratios) -> list[float]:
    """How far 80 and 90 % of the measured times lie from the predicted ones, as shares of these."""
    return [round(float(q), 3) for q in np.quantile(np.abs(1 / ratios - 1), [0.8, 0.9])]


def within(half_width: float, ratios: Ratios) -> float:
    """The share of measured times within that half width of the predicted ones."""
    return float((np.abs(1 / ratios - 1) <= half_width).mean())


def table(ratios: Mapping[tuple[str, str], Ratios]) -> str:
    """Mean, median and ninth decile of |predicted over measured - 1|, by what was predicted and how."""
    lines = [f"{'':52}  rows   mean median    p90    bias"]
    for what, r in ratios.items():
        e = np.abs(r - 1)
        figures = "".join(f"{x:7.1%}" for x in (e.mean(), np.median(e), np.quantile(e, 0.9)))
        lines.append(f"{what[0]:20}{what[1]:32} {len(e):5d}{figures}{r.mean() - 1:+8.1%}")
    return "\n".join(lines)
