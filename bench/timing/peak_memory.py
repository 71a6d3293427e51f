"""Peak memory of what is timed, in a call that nobody times."""

from typing import Any

from bench.timing.base import Timed


def peak_mib(work: Timed, device: Any, step: bool = False) -> float | None:
    """Peak of the CUDA allocator in MiB over one forward and backward, weights included; with `step` over a whole
    optimizer step, once the optimizer has its state. None on the CPU, whose allocator keeps no count."""
    if device.type != "cuda":
        return None
    import torch

    work.clear()
    if step:
        work.backward(work.forward())
        work.optimizer_step()  # makes its state, which stays
        work.clear()
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(work.micro_steps if step else 1):
        work.backward(work.forward())
    if step:
        work.optimizer_step()
        work.refresh()
    torch.cuda.synchronize(device)
    work.clear()
    return torch.cuda.max_memory_allocated(device) / 2**20
