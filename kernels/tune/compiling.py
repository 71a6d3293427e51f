"""Compiles every candidate before any is timed: processes side by side launch each once, which fills Triton's cache."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import active_children, get_context

from .candidates import Candidate

Launched = dict[str, str]  # why a candidate failed, by its key


def groups(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Candidates that share compiled kernels, which one process launches one after the other, so that none is compiled
    in two; in the order in which they are first wanted."""
    found: dict[tuple[object, ...], list[Candidate]] = {}
    for c in candidates:
        found.setdefault((c.passed, c.scheme, c.tile, c.rank, c.dropout, c.conv1d, c.bias), []).append(c)
    return list(found.values())


_spoiled = False


def launch_group(group: list[Candidate]) -> Launched:
    """In a child: launches each candidate once. A CUDA error that stays ends the child's part: what it then leaves
    uncompiled is compiled when it is timed."""
    global _spoiled
    import torch

    from .timer import make_call, tiles_given

    failed: Launched = {}
    for c in group:
        if _spoiled:
            break
        try:
            with tiles_given(c):
                make_call(c, torch.device("cuda"))()
                torch.cuda.synchronize()
        except torch.OutOfMemoryError:
            pass  # others share the memory now; alone it may fit
        except Exception as error:
            failed[c.key()] = f"{c.describe()}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            try:
                torch.cuda.synchronize()
            except Exception:
                _spoiled = True
    with suppress(RuntimeError):
        torch.cuda.empty_cache()
    return failed


def _processes(jobs: int) -> Executor:
    """They heed no interrupt: the parent ends them."""
    return ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))


def compile_all(
    candidates: Iterable[Candidate], seconds: float, say: Callable[[str], None] = print,
    launch: Callable[[list[Candidate]], Launched] = launch_group, pool: Callable[[int], Executor] = _processes,
) -> Launched:  # fmt: skip
    """Launches all in at most `seconds`; what failed, by its key, with the reason. What was not reached is compiled
    when it is timed."""
    work = groups(candidates)
    if not work:
        return {}
    jobs = max(1, min(len(work), (os.cpu_count() or 2) - 1, 16))
    failed: Launched = {}
    begin = time.perf_counter()
    running = pool(jobs)
    try:
        for done in as_completed([running.submit(launch, group) for group in work], timeout=seconds):
            failed |= done.result()
        running.shutdown()
    except (TimeoutError, BrokenExecutor) as cut:
        _end(running)
        why = "A process that compiled has died" if isinstance(cut, BrokenExecutor) else f"{seconds:.0f} s are over"
        say(f"{why}; what is not compiled yet is compiled when it is timed.")
        return failed
    except BaseException:
        _end(running)
        raise
    say(f"{len(work)} groups of kernels compiled in {jobs} processes, {time.perf_counter() - begin:.0f} s.")
    for reason in failed.values():
        say(f"Left out: {reason}")
    return failed


def _end(running: Executor) -> None:
    running.shutdown(wait=False, cancel_futures=True)
    for process in active_children():
        process.kill()
