"""One try whether a case fits: a whole optimizer step in this process, under a limit of memory. For largest.py.

Arguments: a job as JSON (case, device, limit in bytes) and the file that gets what was found.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

CUDA_CONTEXT = 600 * 2**20  # bytes that a context and its libraries take of the GPU, which the allocator does not see


def main() -> None:
    job, out = json.loads(sys.argv[1]), Path(sys.argv[2])
    from bench.case import Case
    from bench.timing.peak_memory import brief, out_of_memory

    case = Case(**job["case"])
    try:
        found = {"fits": True, "peak": _step(case, job["device"], job["limit"]), "detail": ""}
    except Exception as e:
        if not out_of_memory(e):
            out.write_text(json.dumps({"detail": brief(e)}))
            raise
        found = {"fits": False, "peak": None, "detail": brief(e)}
    out.write_text(json.dumps(found))


def _step(case: Any, device: str, limit: int) -> int:
    """Peak bytes of two steps, the second with the optimizer's state: of the CUDA allocator, or of this process."""
    import torch

    from bench.models.build import build

    if device == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(device)
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, max(limit - CUDA_CONTEXT, 1) / whole), device)
    work = build(case, device)
    for _ in range(2):
        work.clear()
        for _ in range(work.micro_steps):
            work.backward(work.forward())
        work.optimizer_step()
        work.refresh()
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


if __name__ == "__main__":
    main()
