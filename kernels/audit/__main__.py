"""python -m kernels.audit: compiles every kernel and tile that the dispatcher can choose, for every architecture,
without a GPU, and says what is wrong with them.

The host code itself is run, on tensors without data, with every tile of the tables in turn; what it would launch is
compiled. Exit status 1 on spills over 64 bytes, shared memory over the limit, a product without tensor cores, a
serialised loop, or a compiler error; 2 on bad arguments.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ..runtime import dispatch, launch
from ..runtime.dispatch import BACKWARD_SCHEMES, Case, Choice, allows, tiles_of
from ..runtime.tile_tables import KNOWN, TILES
from .compilation import Compilation, compilation, compile_one

#: Tokens and widths divisible by every tile, and larger than any.
M, N, K = 4096, 3072, 2048
SMS = {80: 108, 86: 84, 89: 142, 90: 132}


def launches(arch: int, full: bool = False) -> Iterator[Compilation]:
    """Everything that can be launched on sm_<arch>, each specialisation once."""
    seen: set[tuple[Any, ...]] = set()
    for label, calls in _variants(arch, full):
        for run, args in calls:
            found = compilation(run, args, label)
            key = (found.kernel, found.signature, frozenset(found.constants), found.aligned, found.options)
            if key not in seen:
                seen.add(key)
                yield found


def _variants(arch: int, full: bool) -> Iterator[tuple[str, list[tuple[Any, tuple[Any, ...]]]]]:
    bf16, fp16 = torch.bfloat16, torch.float16
    for kernel in TILES:
        for number, tile in enumerate(tiles_of(kernel, arch)):
            if kernel == "persistent" and arch < 90:
                continue
            dispatch.forced_tiles.clear()
            dispatch.forced_tiles[kernel] = tile
            for rank, dtype in ((16, bf16), (64, bf16), (8, bf16), (16, fp16)):
                for position, (scheme, dropout, conv1d) in enumerate(_SCHEMES[kernel]):
                    # Rank 64 is the hardest, so it is compiled in every use; rank 16 and, on sm_90, rank 8 and
                    # fp16, which differ in the loads alone, in the first. --full compiles all.
                    first = position == 0 and ((rank == 16 and dtype == bf16) or (number == 0 and arch == 90))
                    hardest = rank == 64 or not allows(tile, 64, dropout and kernel == "gemm")
                    if not (full or first or (hardest and rank != 8 and dtype == bf16)):
                        continue
                    if not allows(tile, rank, dropout and kernel == "gemm") and tile is not tiles_of(kernel, arch)[-1]:
                        continue
                    label = " ".join(
                        [scheme, "conv1d" if conv1d else "", "dropout" if dropout else "", str(dtype)[6:]]
                    )  # fmt: skip
                    name = {"rows": "sweep", "skinny_parts": "skinny"}.get(kernel, kernel) + "_kernel"
                    calls = _record(arch, rank, dtype, scheme, dropout, conv1d)
                    yield label, [(run, args) for run, args in calls if run.name in (name, *_ALONGSIDE.get(kernel, ()))]
    dispatch.forced_tiles.clear()


_SCHEMES: dict[str, list[tuple[str, bool, bool]]] = {
    "gemm": [("f1/b2", False, False), ("f1/b2", False, True), ("f1/b2", True, False), ("few/b1", True, False)],
    "persistent": [("f1t/b2t", False, False), ("f1t/b2t", False, True)],
    "single": [("f2/b1", False, False), ("f2/b1", False, True)],
    "project": [("f1/b1", False, False), ("f1/b1", True, False), ("f3p/b1", False, False), ("f3p/b1", True, False),
                ("few/b1", True, False), ("dx-only", False, False)],
    "sweep": [("f1/b1", False, False), ("few/b1", False, False)],
    "rows": [("f1/b1r", False, False), ("f1/b1r", True, False)],
    "skinny": [("db-only", False, False), ("f1/b1", True, False), ("paca-gather", False, False),
               ("paca-fused", False, False), ("paca-few", False, False)],
    "skinny_parts": [("few/b1", False, False), ("few/b1", True, False)],
    "gather": [("paca-gather", False, False)],
}  # fmt: skip

#: Kernels without a tile of their own, read beside another.
_ALONGSIDE = {"rows": ("reduce_kernel",), "skinny": ("reduce_kernel",)}


def _record(arch: int, rank: int, dtype: torch.dtype, scheme: str, dropout: bool, conv1d: bool) -> list[Any]:
    """The launches of one forward and backward; 'few' has so few tokens that long loops are split."""
    calls: list[Any] = []
    launch.recorder = lambda run, args: calls.append((run, args))
    try:
        m = 256 if "few" in scheme else M
        if scheme.startswith("paca"):
            _run_paca(arch, m, rank, dtype, "fused" if "fused" in scheme else "gather")
        else:
            _run_lora(arch, m, rank, dtype, scheme, dropout, conv1d)
    finally:
        launch.recorder = None
    return calls


def _run_lora(arch: int, m: int, rank: int, dtype: torch.dtype, scheme: str, dropout: bool, conv1d: bool) -> None:
    from ..lora.backward import build_backward
    from ..lora.bordered_weight import bordered
    from ..lora.forward import Spec, build_forward

    def meta(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    forward, _, backward = scheme.partition("/")
    forward = {"few": "f1", "few-t": "f1t", "dx-only": "f0", "db-only": "f0"}.get(forward, forward)
    needs = {"dx-only": (True, False, False), "db-only": (False, False, True)}.get(scheme, (True, True, True))
    weight = meta(K, N).t() if conv1d else meta(N, K)
    buffer = None
    if forward == "f3p":
        weight, buffer = bordered(weight, rank)
    x, a, b, bias, dy = meta(m, K), meta(rank, K), meta(N, rank), meta(N), meta(m, N)
    case = Case(m, N, K, rank, arch, SMS[arch], dropout, bordered=buffer is not None)
    stride_w = (weight.stride(0), weight.stride(1))
    spec = Spec(case, Choice(forward, ""), dtype, x.device, K, stride_w, bias=True, keep=True, pdl=arch == 90)
    p, seed = (0.1, torch.empty(1, dtype=torch.int64, device="meta")) if dropout else (0.0, None)
    saved = build_forward(spec)(x, weight, a, b, bias, 2.0, p, seed)
    choice = Choice(backward or "b1", "")
    assert choice.scheme in BACKWARD_SCHEMES
    run = build_backward(spec, choice, needs, dtype, N, saved.x.stride(0), saved.s, True)
    run(dy, saved.x, weight, a, b, saved.s, saved.mask, 2.0)


def _run_paca(arch: int, m: int, rank: int, dtype: torch.dtype, scheme: str) -> None:
    from ..paca.autograd import Plan

    x = torch.empty(m, K, dtype=dtype, device="meta")
    index = torch.empty(rank, dtype=torch.int64, device="meta")
    plan = Plan(x, N, rank, dtype, scheme, True)
    plan.case = Case(m, N, K, rank, arch, SMS[arch])
    dy = torch.empty(m, N, dtype=dtype, device="meta")
    plan.grad_columns(dy, plan.selected(x, index), index, 2.0)


def audit(archs: list[int], jobs: int, kernels: list[str] | None = None, full: bool = False) -> list[dict[str, Any]]:
    """The rows of every compilation, in the order of archs; of the named kernels only where there are names."""
    work = [(found, arch) for arch in archs for found in launches(arch, full) if not kernels or found.kernel in kernels]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder  # the children inherit it
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            return list(pool.map(compile_one, work, chunksize=4))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.audit", description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default=",".join(f"sm_{arch}" for arch in KNOWN), help="sm_80,sm_90 (default: all)")
    parser.add_argument(
        "--kernel", action="append", metavar="NAME", help="only this kernel, as gemm_kernel; repeatable"
    )
    parser.add_argument("--full", action="store_true", help="every rank and dtype in every use, not the hardest alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    options = parser.parse_args(argv)
    known = {f"sm_{arch}": arch for arch in KNOWN}
    names = options.arch.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--arch: {unknown[0]!r} is unknown, expected some of {', '.join(known)}")
    if launch.interpreting():
        parser.error("TRITON_INTERPRET is set: interpreted kernels cannot be compiled, run without it")
    import triton

    begin = time.perf_counter()
    rows = audit([known[name] for name in names], options.jobs, options.kernel, options.full)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(
        f"{'kernel':18}{'config':56}{'arch':7}{'regs':>5}{'spill':>6}{'shared':>9}{'limit':>8}  mma    loads  verdict"
    )
    for row in rows:
        if "error" in row:
            print(f"{row['kernel']:18}{row['config']:56}{row['arch']:7}{row['error']}")
            continue
        loads = f"{row['async_loads']}+{row['plain_loads']}"
        print(
            f"{row['kernel']:18}{row['config']:56}{row['arch']:7}{row['registers']:5}{row['spill_bytes']:6}"
            f"{row['shared_bytes']:9}{row['shared_limit']:8}  {row['mma']:6} {loads:6} {row['verdict']}"
        )
    bad = [row for row in rows if row["verdict"] != "ok"]
    seconds = time.perf_counter() - begin
    print(f"triton {triton.__version__}: {len(rows)} compiled in {seconds:.0f} s, {len(bad)} at fault.")
    print("loads: asynchronous + plain, inside the loops that hold the product.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
