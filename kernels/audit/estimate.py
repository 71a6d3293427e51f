"""python -m kernels.audit --estimate: how long every kernel might take on a GPU, from its machine code and a shape.

An estimate, for finding what binds a kernel and for comparing tiles before there is a GPU. estimate_model.py has the
arithmetic, estimate_machine.py the rates of the GPUs, sass.py what is counted, docs/kernels.md how far it was off what
others have published.
"""

import argparse
import os
import re
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any

from .compilation import Compilation, build, facts
from .estimate_machine import MACHINES
from .estimate_model import estimate
from .estimate_runs import ESTIMATED, Subject, product, run_of, subjects
from .sass import Program, disassemble, work_of

HEADLINE = "Estimates from machine code and shapes; nothing here was measured."

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
    return names


def kernel_names(names: list[str] | None) -> None:
    """ValueError where --kernel names one that cannot be estimated."""
    if unknown := [name for name in names or () if name not in ESTIMATED]:
        raise ValueError(f"--kernel: {unknown[0]!r} cannot be estimated, expected some of {', '.join(ESTIMATED)}")


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
    except Exception as failure:
        return f"{type(failure).__name__}: {str(failure).strip().splitlines()[-1]}"
    row = facts(asked.kernel, arch, built, log)
    if row["shared_bytes"] > row["shared_limit"]:
        return f"{row['shared_bytes']} bytes of shared memory, of {row['shared_limit']}"
    warps = dict(asked.options)["num_warps"]
    step, rest = work_of(disassemble(built.asm["cubin"]), warps)
    waits = row["mma"] != "wgmma" or row["mma_waits"]
    return Program(row["registers"], row["shared_bytes"], warps, step, rest, waits)


def compiled(found: list[Subject], arch: int, jobs: int) -> list[Program | str]:
    """The programs of the subjects, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder  # the children inherit it
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
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
            rows += [row_of(subject, program, name, shape) for shape in shapes]
    return rows


def row_of(subject: Subject, program: Program | str, gpu: str, layer: tuple[int, int, int]) -> dict[str, Any]:
    """One row; layer: tokens, out_features, in_features."""
    machine = MACHINES[gpu]
    t = subject.tile
    row: dict[str, Any] = {
        "estimate": True, "kernel": subject.kernel, "computes": subject.computes,
        "tile": f"{t.bm}x{t.bn}x{t.bk} s{t.stages} w{t.warps}", "shape": "x".join(map(str, layer)), "gpu": gpu,
    }  # fmt: skip
    if isinstance(program, str):
        return row | {"error": program}
    run = run_of(subject.at(machine.arch, *layer))
    found = estimate(program, run, machine)
    if subject.computes.startswith(("forward", "dX")):
        against, other = "cuBLAS", machine.cublas_us(*product(subject.computes, *layer))
    else:
        against, other = "memory", run.unique_bytes / (machine.memory * 1e3)
    return row | {
        "bound": found.bound, "us": round(found.us, 1), "share": round(other / found.us, 2), "of": against,
        "blocks": found.blocks, "waves": found.waves, "outside": round(found.outside, 2),
        "chosen": subject.is_chosen(machine.arch, *layer),
    }  # fmt: skip


def report(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, and for each kernel a line about the tiles that the dispatcher takes."""
    lines = [
        HEADLINE,
        "Rank 16, bf16. Shapes: tokens x out_features x in_features of the layer. *: what the dispatcher takes there.",
        f"{'kernel':25}{'computes':28}{'tile':20}{'shape':18}{'gpu':9}{'bound':15}{'us':>8}  share of",
    ]
    ranges = defaultdict(list)
    for row in rows:
        named = f"{row['kernel']:25}{row['computes']:28}{row['tile']:20}{row['shape']:18}{row['gpu']:9}"
        if "error" in row:
            lines.append(named + row["error"])
            continue
        mark = " *" if row["chosen"] else ""
        lines.append(f"{named}{row['bound']:15}{row['us']:8.1f}  {row['share']:.2f} {row['of']}{mark}")
        if row["chosen"]:
            ranges[row["gpu"], row["kernel"], row["computes"], row["of"]].append(row["share"])
    lines.append("What the dispatcher takes: lowest, median and highest estimated share.")
    for (gpu, kernel, computes, of), shares in ranges.items():
        low, middle, high = min(shares), median(shares), max(shares)
        lines.append(f"{gpu:9}{kernel:25}{computes:28}{low:.2f} {middle:.2f} {high:.2f} of {of}, {len(shares)} shapes")
    lines.append("cuBLAS: by a formula fitted to published times. memory: the bytes at the data sheet's bandwidth.")
    return "\n".join(lines)
