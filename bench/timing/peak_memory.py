"""Peak memory of what is timed, in a call that nobody times; and whether it was memory that something failed for."""

from typing import Any

from bench.timing.base import Timed

FULL = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


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


def out_of_memory(e: BaseException) -> bool:
    """Whether an error says so. torch's CPU allocator and a cuBLAS without room for its workspace raise a plain
    RuntimeError; its text is all there is to go by."""
    import torch

    if isinstance(e, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(e, RuntimeError) and any(word in str(e) for word in FULL)


def brief(e: BaseException) -> str:
    """An error in a line."""
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text[:300]}" if text else type(e).__name__
