"""Measured peaks: what this machine reaches at best in one big matrix multiplication and in one big copy.

Efficiency is given against these and against the maker's peaks. No device reaches the maker's, and two devices of one
name differ."""

from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch

Timer = Callable[[Callable[[], object]], float]  # a call -> the ms that it took
MeasuredPeaks = dict[str, Any]  # plain values, as run.json takes them

WARMUP_MS = 200.0  # a GPU's clocks ramp up: earlier calls are slower
MEASURE_MS = 300.0
CPU_SHARE = 0.3  # of both, on a CPU: every run on one waits for this, and its calls take long enough
MIN_CALLS, MAX_CALLS = 5, 1000


def measure_peaks(device: torch.device | str, timer: Timer | None = None, size: int = 0, mib: int = 0) -> MeasuredPeaks:
    """Rates as medians, each with its count of calls n and its shape.

    On a GPU bf16_tflops and fp16_tflops (size^3 by default 8192^3) and copy_tbs (1 GiB read and 1 GiB written); on a
    CPU fp32_gflops (1024^3) and copy_gbs (128 MiB), in about a second. A copy counts what it reads and what it writes.
    The numbers are random: multiplying zeros draws less power and runs faster. Frees its memory again; raises what
    torch raises where there is not enough.
    """
    device = torch.device(device)
    gpu = device.type == "cuda"
    timer = timer or (_cuda_timer(device) if gpu else _cpu_timer)
    size, mib = size or (8192 if gpu else 1024), mib or (1024 if gpu else 128)
    scale, flops, rate = (1e12, "tflops", "tbs") if gpu else (1e9, "gflops", "gbs")
    found: MeasuredPeaks = {"device": str(device), "gemm_size": size, "copy_mib": mib}
    for name, dtype in {"bf16": torch.bfloat16, "fp16": torch.float16}.items() if gpu else [("fp32", torch.float32)]:
        ms, n = _median(make_gemm(size, dtype, device), timer, 1.0 if gpu else CPU_SHARE)
        found |= {f"{name}_{flops}": 2 * size**3 / (ms * 1e-3) / scale, f"{name}_n": n}
    ms, n = _median(make_copy(mib, device), timer, 1.0 if gpu else CPU_SHARE)
    found |= {f"copy_{rate}": 2 * mib * 2**20 / (ms * 1e-3) / scale, "copy_n": n}
    if gpu:
        torch.cuda.empty_cache()
    return found


def make_gemm(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def make_copy(mib: int, device: torch.device) -> Callable[[], object]:
    source = torch.randint(256, (2**20,), device=device, dtype=torch.uint8).repeat(mib)  # drawing all takes a second
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _median(call: Callable[[], object], timer: Timer, share: float) -> tuple[float, int]:
    """(ms, count of calls) after a warm-up; `share` of the usual times."""
    _repeat(call, timer, share * WARMUP_MS, 2)
    samples = _repeat(call, timer, share * MEASURE_MS, MIN_CALLS)
    return median(samples), len(samples)


def _repeat(call: Callable[[], object], timer: Timer, budget_ms: float, least: int) -> list[float]:
    samples: list[float] = []
    while len(samples) < least or (sum(samples) < budget_ms and len(samples) < MAX_CALLS):
        samples.append(timer(call))
    return samples


def _cpu_timer(call: Callable[[], object]) -> float:
    """As the headline clock of a CPU: of one thread without its waiting for a core, of several the time that passes."""
    start, worked = perf_counter(), process_time()
    call()
    worked = process_time() - worked
    # CPU time does not move at each call on every kind of machine.
    return (worked if worked > 0 and torch.get_num_threads() == 1 else perf_counter() - start) * 1e3


def _cuda_timer(device: torch.device) -> Timer:
    def timer(call: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(device):
            start.record()
            call()
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end))

    return timer
