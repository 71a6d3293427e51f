"""python -m kernels.audit --estimate: how long every kernel might take on a GPU, from its machine code and a shape.

An estimate, for finding what binds a kernel and for comparing tiles before there is a GPU. estimate_model.py has the
arithmetic, estimate_machine.py the rates of the GPUs, sass.py what is counted, estimate_report.py the tables,
docs/kernels.md how far it was off what others have published.
"""

import argparse
import os
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from ..runtime.architectures import features
from .compilation import Compilation, build, facts
from .estimate_machine import MACHINES
from .estimate_model import estimate, shared_bytes
from .estimate_runs import ESTIMATED, Subject, run_of, subjects
from .sass import Program, disassemble, missing_tool, work_of

#: out_features and in_features of the projections of gpt2-medium, gpt2-xl, TinyLlama and LLaMA2-7B, each once.
PROJECTIONS = (
    (3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096),
    (4800, 1600), (1600, 1600), (6400, 1600), (1600, 6400),
    (2048, 2048), (256, 2048), (5632, 2048), (2048, 5632),
    (4096, 4096), (11008, 4096), (4096, 11008),
)  # fmt: skip
TOKENS = 4096


def gpu_names(text: str) -> list[str]:
    """The GPUs of --gpu, separated by commas."""
    names = text.split(",")
    if unknown := [name for name in names if name not in MACHINES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown, expected some of {', '.join(MACHINES)}")
    return list(dict.fromkeys(names))


def check(gpus: list[str], kernels: list[str] | None) -> None:
    """ValueError where --kernel names one that cannot be estimated or that no GPU of --gpu can run, or where a part of
    the compiler is missing."""
    archs = dict.fromkeys(MACHINES[name].arch for name in gpus)
    for name in kernels or ():
        if name not in ESTIMATED:
            raise ValueError(f"--kernel: {name!r} cannot be estimated, expected some of {', '.join(ESTIMATED)}")
        if "_tma_" in name and not any(features(arch).tma for arch in archs):
            fitting = [gpu for gpu, machine in MACHINES.items() if features(machine.arch).tma]
            raise ValueError(
                f"--kernel: {name!r} needs TMA, not there on {', '.join(gpus)}, expected --gpu {' or '.join(fitting)}"
            )
    if missing := missing_tool(archs):
        raise ValueError(missing)


def shape(text: str) -> tuple[int, int, int]:
    """The tokens, out_features and in_features of --shape; every kernel can run multiples of 16."""
    if not re.fullmatch(r"[1-9]\d{0,6}x[1-9]\d{0,6}x[1-9]\d{0,6}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape, expected TOKENSxOUTxIN, as 4096x3072x1024")
    m, n, k = map(int, text.split("x"))
    if n % 16 or k % 16:
        raise argparse.ArgumentTypeError(
            f"{text!r} has features that are no multiple of 16; expected ones that are, which all kernels can run"
        )
    return m, n, k


def program_of(job: tuple[Compilation, int]) -> Program | str:
    """Compiles and counts; what is wrong with it, where it cannot be run."""
    asked, arch = job
    try:
        built, log = build(asked, arch)
        row = facts(asked.kernel, arch, built, log)
        listing = disassemble(built.asm["cubin"])
    except Exception as failure:
        return f"{type(failure).__name__}: {str(failure).strip().splitlines()[-1]}"
    if row["shared_bytes"] > row["shared_limit"]:
        return f"{row['shared_bytes']} bytes of shared memory, of {row['shared_limit']}"
    warps = dict(asked.options)["num_warps"]
    step, rest = work_of(listing, warps)
    waits = row["mma"] in ("mma", "none") or row["mma_waits"]
    return Program(row["registers"], row["shared_bytes"], warps, step, rest, waits, built.metadata.tmem_size)


def _cache_in(folder: str) -> None:
    os.environ["TRITON_CACHE_DIR"] = folder


def compiled(found: list[Subject], arch: int, jobs: int) -> list[Program | str]:
    """The programs of the subjects, in their order."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(jobs, get_context("spawn"), _cache_in, (folder,)) as pool,
    ):
        return list(pool.map(program_of, [(each.compilation, arch) for each in found]))


def estimates(
    gpus: list[str], shapes: list[tuple[int, int, int]], kernels: list[str] | None = None, jobs: int = 2
) -> list[dict[str, Any]]:
    """Rows of every kernel, tile, shape and GPU. Where a kernel cannot be compiled or run, a row with its error."""
    rows: list[dict[str, Any]] = []
    programs: dict[int, tuple[list[Subject], list[Program | str]]] = {}
    for name in gpus:
        arch = MACHINES[name].arch
        if arch not in programs:
            found = list(subjects(arch, kernels))
            programs[arch] = found, compiled(found, arch, jobs)
        for subject, program in zip(*programs[arch], strict=True):
            rows += [row_of(subject, program, name, shape) for shape in dict.fromkeys(shapes)]
    return rows


def row_of(subject: Subject, program: Program | str, gpu: str, layer: tuple[int, int, int]) -> dict[str, Any]:
    """One row; layer: tokens, out_features, in_features. step_clocks and rest_clocks: of an SM, by resource, for one
    step of the main loop and for the rest of a tile. Bytes: shared memory and L2 for a step, memory for the launch."""
    machine = MACHINES[gpu]
    t = subject.tile
    row: dict[str, Any] = {
        "estimate": True, "kernel": subject.kernel, "computes": subject.computes,
        "tile": f"{t.bm}x{t.bn}x{t.bk} s{t.stages} w{t.warps}", "shape": "x".join(map(str, layer)), "gpu": gpu,
    }  # fmt: skip
    if isinstance(program, str):
        return row | {"error": program}
    run = run_of(subject.at(machine, *layer))
    found = estimate(program, run, machine)
    if run.product:
        against, other = "cuBLAS", machine.cublas_us(*run.product)
    else:
        against, other = "memory", run.unique_bytes / (machine.memory * 1e3)
    return row | {
        "bound": found.bound, "us": round(found.us, 1), "share": round(other / found.us, 2), "of": against,
        "blocks": found.blocks, "waves": found.waves, "steps": run.steps, "outside": round(found.outside, 2),
        "step_clocks": {name: round(value) for name, value in found.step.items()},
        "rest_clocks": {name: round(value) for name, value in found.rest.items()},
        "step_shared_bytes": shared_bytes(program.step, run.copied_bytes), "step_l2_bytes": run.copied_bytes,
        "memory_bytes": run.unique_bytes, "chosen": subject.is_chosen(machine, *layer),
    }  # fmt: skip
