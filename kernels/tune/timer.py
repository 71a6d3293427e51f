"""Times a candidate on the current GPU by CUDA graphs."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch

from ..lora import lora_linear
from ..runtime.dispatch import using_tiles
from ..runtime.schemes import TILED
from ..runtime.tile_tables import Tile
from .search import Candidate, Timer


def gpu_timer(budget_s: float = 0.25) -> Timer:
    """A timer whose results are medians in ms; None where a candidate does not fit the GPU."""
    best: dict[tuple[str, int, int, int], float] = {}

    def timer(c: Candidate) -> float | None:
        kernel = TILED.get(c.scheme)
        tiles = {} if kernel is None or c.tile is None else {kernel: Tile(*c.tile, "timed")}
        try:
            with using_tiles(tiles):
                return _median_ms(c, best, budget_s)
        except (RuntimeError, ValueError) as failure:
            if "illegal" in str(failure):
                raise
            return None

    return timer


def _median_ms(c: Candidate, best: dict[tuple[str, int, int, int], float], budget_s: float) -> float:
    device, dtype = torch.device("cuda"), torch.bfloat16
    size = 2 * (c.m * c.k + c.m * c.n + c.n * c.k)
    rotations = max(1, min(8, 2 * torch.cuda.get_device_properties(device).L2_cache_size // size + 1))
    scheme = c.scheme if c.passed == "forward" else f"cublas/{c.scheme}"
    calls: list[Callable[[], Any]] = []
    for _ in range(rotations):
        x = torch.randn(c.m, c.k, device=device, dtype=dtype, requires_grad=True)
        weight = torch.randn(c.n, c.k, device=device, dtype=dtype) / c.k**0.5
        a = torch.randn(c.rank, c.k, device=device, dtype=dtype, requires_grad=True)
        b = torch.randn(c.n, c.rank, device=device, dtype=dtype, requires_grad=True)
        dy = torch.randn(c.m, c.n, device=device, dtype=dtype)
        p = 0.1 if c.dropout else 0.0
        forward = partial(lora_linear, x, weight, a, b, scale=2.0, dropout_p=p, scheme=scheme)
        if c.passed == "forward":
            calls.append(forward)
        else:
            calls.append(partial(torch.autograd.grad, forward(), (x, a, b), dy, retain_graph=True))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            for call in calls:
                call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            call()
    key = (c.passed, c.m, c.n, c.k)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin < budget_s and len(times) < 200):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / rotations)
        if len(times) == 5 and median(times) > 2 * best.get(key, float("inf")):
            break
    best[key] = min(best.get(key, float("inf")), median(times))
    return median(times)
