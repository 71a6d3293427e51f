"""The worker: measures cases in a process of its own, one at a time, as the scheduler tells it.

Imports torch, without CUDA, and reads its job from standard input; so it may be started before it is due. Then it obeys
one JSON command a line, and writes one JSON event a line to the pipe whose number is its argument. Between commands it
waits for the next line and does nothing. Standard output and error go to its log. A CUDA error or an out of memory ends
this process, not the sweep.

Commands: prepare (a case), begin, block and end (rounds under one clock), alone (all of one clock), finish,
explain, bye.
Events: hello, ceilings, phase, estimate, prepared, begun, block, measured (one clock of a case), done,
explained, failed, bye.
When standard input closes, the scheduler is gone, and this process ends itself.
"""

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from bench.timing.gpu_state import GpuState, open_state
from bench.timing.heap import keep_freed
from bench.timing.settings import MeasureSettings


def _end_with_scheduler() -> None:
    """Dies when the scheduler does, even where this process hangs: the kernel sends SIGKILL on Linux; elsewhere, and
    where the scheduler was gone before we asked, the closed standard input tells (see _listen)."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # linux/prctl.h
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _listen() -> "queue.SimpleQueue[dict[str, Any]]":
    """The lines of standard input, read by a thread that ends this process when it closes."""
    lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        # Not sys.stdin: Python waits for its lock, which a thread that reads it holds, when it ends; and it has
        # whatever encoding PYTHONIOENCODING asks for.
        with open(0, "rb", closefd=False) as commands:
            for line in commands:
                lines.put(json.loads(line))
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the scheduler's to handle
    if "SUBMITIT_EXECUTOR" in os.environ:  # and so are those by which Slurm warns every process of a job
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    pipe = os.fdopen(int(sys.argv[1]), "w", buffering=1, encoding="utf-8")

    def emit(event: str, **values: Any) -> None:
        pipe.write(json.dumps({"event": event, **values}) + "\n")

    _end_with_scheduler()
    import torch

    if sys.argv[2:] == ["models"]:
        import bench.models.decoder  # noqa: F401  transformers, which a job of single layers does without
    from bench.runner.turns import Turns

    lines = _listen()
    job = lines.get()
    device = torch.device(job["device"])
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    state = _enter_cuda(device, job["gpu_uuid"]) if device.type == "cuda" else None
    if device.type == "cpu":
        keep_freed()
    emit(
        "hello",
        pid=os.getpid(),
        own=sorted(state.own) if state else [],
        cuda=torch.version.cuda,
        gpu_clocks=state.clocks() if state else None,
    )
    if job["ceilings"]:
        from bench.roofline.measured_peaks import measure_peaks

        emit("ceilings", found=measure_peaks(device))
    turns = Turns(device, job["passes"], MeasureSettings(**job["settings"]), emit, state)
    while (command := lines.get())["do"] != "bye" and turns.obey(command):
        pass
    emit("bye")


def _enter_cuda(device: Any, uuid: str) -> GpuState | None:
    """Makes the CUDA context of this process, and NVML's view of the GPU around it."""
    import torch

    state = open_state(uuid)
    torch.cuda.set_device(device)
    torch.empty(1, device=device)  # only now is there a context
    torch.cuda.synchronize(device)
    if state is not None:
        state.mark_own()
    return state


if __name__ == "__main__":
    main()
