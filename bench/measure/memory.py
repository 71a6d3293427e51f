"""Peak memory of one forward and backward, in a call that nobody times."""

from typing import Any

from bench.measure.clocks import Timed


def peak_mib(work: Timed, device: Any) -> float | None:
    """Peak of the CUDA allocator in MiB over one forward and backward, weights included; None on the CPU, whose
    allocator keeps no count."""
    if device.type != "cuda":
        return None
    import torch

    work.clear()
    torch.cuda.reset_peak_memory_stats(device)
    work.backward(work.forward())
    torch.cuda.synchronize(device)
    work.clear()
    return torch.cuda.max_memory_allocated(device) / 2**20
