"""What an operator costs the host of this machine: measured once on a model too small to compute anything, then kept.

It is an input of every prediction with the host's queue, and differs by a factor of eight from host to host.
"""

import json
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from bench.case import Case
from bench.devices import cpu_device, gpus
from bench.predict.predicted import Host
from bench.predict.remembered import keep, recall

# Host time of cuLaunchKernel: 3.0 us without arguments, 3.3 with 19 (GB200, meta-pytorch/tritonbench#1017). In traces
# of H100s, slowed down by a profiler, cudaLaunchKernel has medians of 3.3 to 5.3 us (AMD-AGI/TraceLens, tests/traces).
LAUNCH_US = 3.0
QUANTILE = 0.2  # of the wall times: other work on the machine only ever adds
SECONDS = 2.0  # of rounds; building the models takes about one more
ROUNDS = 200  # at most
_TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 16,
}
_HOST: TypeAdapter[Host] = TypeAdapter(Host)


def measured_host(fresh: bool = False, now: Callable[[], float] = perf_counter) -> Host:
    """The host's cost of an operator on this machine: what is remembered, else measured in about 3 s.

    fresh: measured in any case. now: seconds. With a GPU its launches are in it; without, LAUNCH_US stands for each.
    """
    if not fresh and (known := remembered_host()) is not None:
        return known
    host = _measured(now)
    keep("host", machine(), host)
    return host


def remembered_host() -> Host | None:
    """What `measured_host` has kept for this machine, torch and Python; None where it has nothing. No torch."""
    host = recall("host", machine(), _HOST)
    valid = host is not None and all(0 < us < 1e6 for us in (host.forward_us, host.backward_us))
    return host if valid else None


def machine() -> str:
    """The name of the GPU and of the CPU: what the cost is kept for."""
    return ", ".join([*(d.name for d in gpus()[:1]), cpu_device().name])


def _measured(now: Callable[[], float]) -> Host:
    import torch

    on_gpu = torch.cuda.is_available()
    launch = 0.0 if on_gpu else LAUNCH_US
    forward, backward = operator_us(now, on_gpu, torch.cuda.synchronize if on_gpu else None)
    more = f", and {LAUNCH_US:g} us for a launch, which a machine without a GPU cannot measure"
    source = f"measured on this machine {date.today()}: {machine()}{'' if on_gpu else more}"
    return Host(forward + launch, backward + launch, source)


def operator_us(
    now: Callable[[], float], on_gpu: bool, synchronize: Callable[[], None] | None = None, as_gpu: bool = True
) -> tuple[float, float]:
    """Time of a tiny model over its operators that launch something, forward and backward, in microseconds.

    now: seconds. on_gpu: where the model is; synchronize: what waits for it. as_gpu: operators are counted as a GPU
    has them, else as a CPU.
    """
    import torch

    from bench.models.build import build
    from bench.predict.whole import trace_whole

    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder))
        works = [build(case, "cuda" if on_gpu else "cpu") for case in cases]
        traces = [trace_whole(case, as_gpu) for case in cases]
    torch.set_num_threads(1)
    try:
        seconds = _rounds(works, now, synchronize or (lambda: None))
    finally:
        torch.set_num_threads(threads)
    forward, backward = (sum(len(t.phases[phase]) for t in traces) for phase in ("forward", "backward"))
    return float(seconds[0] * 1e6 / forward), float(seconds[1] * 1e6 / backward)


def _cases(folder: Path) -> list[Case]:
    """Full fine-tuning and LoRA of two blocks, eager."""
    path = folder / "config.json"
    path.write_text(json.dumps(_TINY), encoding="utf-8")
    common: dict[str, Any] = {
        "level": "model",
        "model": str(path),
        "layer": None,
        "impl": "eager",
        "trainable_layers": "all",
        "adapter_dtype": None,
        "precision": "fp32",
        "batch": 1,
        "seq": 4,
    }
    full: dict[str, Any] = dict.fromkeys(("rank", "alpha", "dropout", "targets"))
    lora: dict[str, Any] = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}
    return [Case(**common, **full, method="full"), Case(**common, **lora, method="lora")]


def _rounds(works: list[Any], now: Callable[[], float], synchronize: Callable[[], None]) -> list[float]:
    """Seconds of a forward and of a backward of all works together: low quantiles over rounds, in which they alternate.

    Nothing waits for a GPU between the readings of the clock.
    """
    found: list[list[list[float]]] = []
    start = now()
    while len(found) < ROUNDS and (len(found) < 5 or now() - start < SECONDS):
        times = []
        for work in works:
            work.ready()
            synchronize()
            t0 = now()
            out = work.forward()
            t1 = now()
            work.backward(out)
            times.append([t1 - t0, now() - t1])
            synchronize()
        found.append(times)
    return list(np.quantile(np.array(found[2:]), QUANTILE, axis=0).sum(axis=0))  # the first two warm up
