"""Traces of a few operators, at random."""

import random

from bench.predict.ops import MEMORY_KINDS, Op, Trace

BASE = Op("aten::mm", "base_forward", "gemm", (4096, 2048, 2048, 1))
BRANCH = Op("aten::mm", "branch", "gemm", (4096, 16, 2048, 1))
CAST = Op("aten::_to_copy", "casts", "cast", bytes=4e7)
NORM = Op("aten::native_layer_norm", "norms", "norm", bytes=2e7)
ATTENTION = Op("aten::_flash", "attention", "attention", flops=2e10)
ADAMW = Op("aten::_fused_adamw", "optimizer", "elementwise", bytes=1e8)
LORA = Op("lorabench::lora_forward", "fused", "lora_forward", (4096, 2048, 2048, 16))
ALL = (BASE, BRANCH, CAST, NORM, ATTENTION)


def a_trace(seed: int, n: int = 200, most_bytes: float = 1e7) -> Trace:
    """Of n operators a phase, from hardly any work to some 100 us."""
    r = random.Random(seed)
    kinds = [Op("aten::x", "norms", r.choice(MEMORY_KINDS), bytes=r.random() ** 4 * most_bytes) for _ in range(20)]
    return Trace({phase: tuple(r.choices([*kinds, *ALL], k=n)) for phase in ("forward", "backward")})
