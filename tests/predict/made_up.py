"""A board with round numbers."""

from typing import Any

from bench.predict.boards import Board, Gemm
from bench.predict.ops import MEMORY_KINDS

EASY = Gemm(t0_us=2.0, e=1.0, k0=0.0, ebw=1.0, pen=0.0, sag=0.0)


def made_up(**fields: Any) -> Board:
    """100 SMs of 1e12 operations and 0.02e12 bytes a second each, unless said otherwise."""
    known: dict[str, Any] = {
        "key": "made-up",
        "name": "Made Up",
        "arch": 80,
        "sms": 100,
        "tflops": 100.0,
        "fp32_tflops": 10.0,
        "bandwidth_tbs": 2.0,
        "l2_mib": 40.0,
        "l2_tbs": 10.0,
        "warm": 0.0,
        "gemm": EASY,
        "shares": dict.fromkeys(MEMORY_KINDS, 0.8) | {"norm": 0.5},
        "attention": {"forward": 0.5, "backward": 0.25},
        "launch_us": 2.5,
        "graph_us": 1.0,
        "errors": {"gemm": (0.1, 0.2), "memory": (0.3, 0.5), "attention": (0.25, 0.4)},
        "fitted": "grid",
        "sources": {},
    }
    return Board(**{**known, **fields})
