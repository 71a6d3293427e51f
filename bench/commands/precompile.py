"""python -m bench precompile SWEEP [SWEEP ...]: fills Triton's cache with what these sweeps will launch.

Triton compiles a kernel at its first launch, one after the other, a second or so each; here processes share the layers
and compile side by side. Nothing is timed meanwhile. Exit status 1 where a layer failed: its case will tell why.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import active_children, get_context
from time import perf_counter

from bench.case import Case
from bench.commands.campaign.stages import Part, part_of
from bench.devices import gpus
from bench.errors import UserError
from bench.process import output_failure, terminate_as_interrupt
from bench.sweeps.expand import make_plan
from bench.terminal import output


def layers_of(cases: Iterable[Case]) -> list[Case]:
    """The single layers behind the cases whose impl is triton, each once: those of a model or block one by one, at the
    case's tokens and at those of its correctness check, which comes first and would compile them."""
    found: dict[tuple[object, ...], Case] = {}
    for case in cases:
        if case.impl != "triton":
            continue
        names = [case.layer] if case.level == "linear" else [p.name for p in case.target_projections]
        for name in names:
            whole = replace(
                case, level="linear", layer=name, trainable_layers="all", targets=None, accumulation=None, l2="cold"
            )
            for one in (whole, *_checked(whole, case)):
                shapes = tuple((p.in_features, p.out_features, p.bias, p.conv1d) for p in one.projections)
                how = (one.method, one.rank, one.dropout, one.adapter_dtype, one.precision, one.tokens)
                found.setdefault((*how, shapes), one)
    return list(found.values())


def _checked(layer: Case, case: Case) -> list[Case]:
    """A layer as the check of its case has it: without dropout, and for the masks with it."""
    import torch

    from bench.correctness.shrink import default_tokens, shrink

    small = shrink(layer, default_tokens(case, torch.device("cuda")))
    if not layer.dropout:
        return [small]
    return [replace(small, dropout=0.0), small]


def launch(case: Case, device: str) -> str | None:
    """One forward and backward of a layer; what went wrong, or None."""
    from bench.models.build import build

    try:
        work = build(case, device)
        work.backward(work.forward())
    except Exception as e:
        return f"{case.describe()}: {type(e).__name__}: {' '.join(str(e).split())[:200]}"
    return None


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone when an interrupt comes, and do not heed it themselves."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for process in active_children():
                process.kill()
            raise


def precompile(sweeps: list[str], device: str = "cuda", as_campaign: bool = False) -> int:
    """Compiles for all sweeps and prints how many layers that took. Raises UserError without a GPU to compile for.

    as_campaign: the names are stages of a campaign, which measures a part of each sweep."""
    if device == "cuda" and not gpus():
        raise UserError("precompile needs an NVIDIA GPU, since Triton compiles for one. None was found.")
    started = perf_counter()
    parts = [part_of(name) if as_campaign else Part(name) for name in sweeps]
    layers = layers_of(c for part in parts for c in make_plan(part.sweep, on_cpu=False, where=part.where).cases)
    jobs = max(1, min(len(layers), (os.cpu_count() or 2) - 1))
    failed = []
    with terminate_as_interrupt(), _pool(jobs) as pool:
        for done in as_completed([pool.submit(launch, case, device) for case in layers]):
            if reason := done.result():
                failed.append(reason)
    console = output()
    console.print(f"{len(layers)} layers in {jobs} processes, {perf_counter() - started:.0f} s; {len(failed)} failed")
    for reason in failed:
        console.print(reason)
    output_failure(spare=True)  # what was compiled is on disk
    return int(bool(failed))
