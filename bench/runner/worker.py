"""The worker: measures the cases of one (model, method, impl) group in a process of its own.

Imports torch, without CUDA, and reads one JSON job from standard input; so it may be started while another worker
still measures. Writes one JSON event a line to the pipe whose number is its argument. Standard output and error go to
the group's log. A CUDA error or an out of memory ends this process, not the sweep.

Events: hello, phase, estimate, measured (one clock of a case), done, failed, bye. Standard input stays open; when it
closes, the scheduler is gone, and this process ends itself.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from time import perf_counter
from typing import Any

from bench.case import Case
from bench.case.schema import Status
from bench.record.stats import Summary
from bench.timing.gpu_state import GpuState, open_state
from bench.timing.settings import MeasureSettings

Emit = Callable[..., None]

_compiled_s: list[float] = []  # seconds of each Triton compilation since the last case
_dynamo_s: list[float] = []  # seconds of torch.compile in each case so far

BEFORE, AFTER = 0, 1  # seeds of the correctness check's weights and inputs


def _end_with_scheduler() -> None:
    """Dies when the scheduler does, even where this process hangs: the kernel sends SIGKILL on Linux; elsewhere, and
    where the scheduler was gone before we asked, the closed standard input tells (see _watch_scheduler)."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # linux/prctl.h
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch_scheduler() -> None:
    """Ends this process when its standard input closes; from when the job is read."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the scheduler's to handle
    pipe = os.fdopen(int(sys.argv[1]), "w", buffering=1, encoding="utf-8")

    def emit(event: str, **values: Any) -> None:
        pipe.write(json.dumps({"event": event, **values}) + "\n")

    _end_with_scheduler()
    import torch

    if sys.argv[2:] == ["ahead"]:
        import bench.models.decoder  # noqa: F401  transformers, which a job of single layers does without

    job = json.loads(_read_job())
    _watch_scheduler()
    device = torch.device(job["device"])
    state = _enter_cuda(device, job["gpu_uuid"]) if device.type == "cuda" else None
    emit("hello", pid=os.getpid(), cuda=torch.version.cuda, gpu_clocks=state.clocks() if state else None)
    if job["ceilings"]:
        from bench.roofline.measured_peaks import measure_peaks

        emit("ceilings", found=measure_peaks(device))
    if device.type == "cuda":
        _listen_to_triton()
    settings = MeasureSettings(**job["settings"])
    for axes in job["cases"]:
        case = Case(**axes)
        if not _one(case, device, job, settings, emit, state):
            break
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    emit("bye")


def _read_job() -> str:
    """One line of standard input, unbuffered: what follows it is nobody's, only its end counts."""
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            sys.exit("no job on standard input")
        line += chunk
    return line.decode()


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


def _one(
    case: Case, device: Any, job: dict[str, Any], settings: MeasureSettings, emit: Emit, state: GpuState | None
) -> bool:
    """Measures one case. False where this process must not go on: its memory or its CUDA context is spent."""
    import torch

    try:
        return _measure(case, device, job, settings, emit, state)
    except (torch.OutOfMemoryError, MemoryError) as e:
        emit("failed", case_id=case.case_id, status=Status.oom, detail=_brief(e))
    except Exception as e:
        status = Status.oom if _is_cpu_oom(e) else Status.error
        if status is Status.error:
            import traceback

            traceback.print_exc()  # to the group's log
        emit("failed", case_id=case.case_id, status=status, detail=_brief(e))
        if status is Status.error and device.type == "cpu":
            return True
    return False


def _is_cpu_oom(e: BaseException) -> bool:
    """torch's CPU allocator raises a plain RuntimeError; its text is all there is to go by."""
    return isinstance(e, RuntimeError) and "DefaultCPUAllocator" in str(e)


def _brief(e: BaseException) -> str:
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text[:300]}" if text else type(e).__name__


def _measure(
    case: Case, device: Any, job: dict[str, Any], settings: MeasureSettings, emit: Emit, state: GpuState | None
) -> bool:
    """Measures one case under every clock; what one clock found is told before the next begins. False as in _one."""
    started = perf_counter()
    from bench.case.clocks import in_order
    from bench.correctness.check import check, default_tokens, finite, shrink
    from bench.methods.registry import impl_of, note
    from bench.models.build import build
    from bench.timing.clocks import make_clock
    from bench.timing.peak_memory import peak_mib
    from bench.timing.sampler import measure

    impl = impl_of(case)

    def begin(phase: str) -> None:
        """Any first call compiles, and so does one under another autocast cache, as clock graph has it."""
        patience = {"patience_s": settings.compile_timeout_s} if impl.compiles else {}
        emit("phase", case_id=case.case_id, phase=f"compiling, {phase}" if impl.compiles else phase, **patience)

    begin("checking")
    wrong = _before(shrink(case, default_tokens(case, device)), device)  # before there is a model beside its copies
    if wrong:
        emit("failed", case_id=case.case_id, status=Status.wrong, detail=wrong)
        return True
    checked = perf_counter()
    begin("building")
    work = build(case, str(device))
    built = perf_counter()
    if wrong := finite(work):
        emit("failed", case_id=case.case_id, status=Status.wrong, detail=wrong)
        return True
    checking_s = checked - started + perf_counter() - built
    peak = peak_mib(work, device, "step" in job["passes"])
    for name in in_order(job["clocks"]):
        begin(f"measuring {name}")
        clock = make_clock(name, device, case.l2 == "cold", settings)

        def tell(pass_: str, e: Summary) -> None:
            emit("estimate", case_id=case.case_id, **{"pass": pass_}, **asdict(e))

        m = measure(work, clock, tuple(job["passes"]), case.level, settings, tell, state=state, never=impl.cannot)
        emit(
            "measured",
            case_id=case.case_id,
            series=m.series(name, job["passes"]),
            peak_mib=peak,
            model_dropout=work.model_dropout,
            note=note(work.model, case),
            clocks_set=m.clocks_set,
            spent={"warming up": m.warmup_s, "measuring": m.wall_s},
        )
        if m.spoiled:
            break  # graph is the last; what a failed capture left behind ends with this process
    if m.spoiled:
        emit("done", case_id=case.case_id, spent=_spent(built - checked, checking_s))
        return False
    begin("checking again")
    again = perf_counter()
    del work  # its memory is the check's now
    found = check(case, device, AFTER, brief=True)
    if not found.passed:
        emit("failed", case_id=case.case_id, status=Status.wrong, detail=f"after timing: {found.detail}")
        return True
    checking_s += perf_counter() - again
    emit("done", case_id=case.case_id, spent=_spent(built - checked, checking_s))
    return True


def _spent(building_s: float, checking_s: float) -> dict[str, float]:
    """Where a case's time beside its samples went. The check is the first to run a kernel, and so to compile it."""
    compiling_s = sum(_compiled_s)
    _compiled_s.clear()
    if (compiled := sys.modules.get("bench.methods.compiled")) is not None:
        in_all_s: float = compiled.compiling_s()
        compiling_s += in_all_s - sum(_dynamo_s)
        _dynamo_s.append(in_all_s - sum(_dynamo_s))
    return {"building": building_s, "compiling": compiling_s, "checking": max(0.0, checking_s - compiling_s)}


def _listen_to_triton() -> None:
    """Notes how long each compilation takes; loads from Triton's cache take next to nothing and count too."""
    if find_spec("triton") is None:
        return
    import triton

    triton.knobs.compilation.listener = lambda *, times, **_: _compiled_s.append(times.total / 1e6)


@cache
def _before(case: Case, device: Any) -> str | None:
    """What is wrong with the impl of a case cut down to the check's size, in a sentence, or None. Cut down, the lengths
    of a group are mostly the same case, and are checked once."""
    from bench.correctness.check import check

    found = check(case, device, BEFORE)
    return None if found.passed else found.detail


if __name__ == "__main__":
    main()
