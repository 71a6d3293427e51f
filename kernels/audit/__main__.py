"""python -m kernels.audit: compiles every kernel and tile that the dispatcher can choose, for every architecture,
without a GPU, and says what is wrong with them.

The host code itself is run, on tensors without data, with every tile of the tables in turn; what it would launch is
compiled. Exit status 1 on spills over 64 bytes, shared memory over the limit, a product without tensor cores, a
serialised loop, or a compiler error; 2 on bad arguments.

With --estimate it prints how long each might take on a GPU instead, from its machine code: estimates, not times. Exit
status 1 where something could not be compiled.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ..runtime import launch
from ..runtime.tile_tables import KNOWN
from .compilation import compile_one
from .estimate import PROJECTIONS, TOKENS, check, estimates, gpu_names, shape
from .estimate_machine import MACHINES
from .estimate_report import report
from .launches import launches


def audit(archs: list[int], jobs: int, kernels: list[str] | None = None, full: bool = False) -> list[dict[str, Any]]:
    """The rows of every compilation, in the order of archs; of the named kernels only where there are names."""
    work = [(found, arch) for arch in archs for found in launches(arch, full) if not kernels or found.kernel in kernels]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder  # the children inherit it
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            return list(pool.map(compile_one, work, chunksize=4))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.audit", description=__doc__.splitlines()[0])
    parser.add_argument("--arch", help="sm_80,sm_90 (default: all)")
    parser.add_argument(
        "--kernel", action="append", metavar="NAME", help="only this kernel, as gemm_kernel; repeatable"
    )
    parser.add_argument("--full", action="store_true", help="every rank and dtype in every use, not the hardest alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--estimate", action="store_true", help="estimate times in place of the audit's checks")
    parser.add_argument(
        "--gpu", type=gpu_names, metavar="NAMES", help=f"for --estimate: some of {','.join(MACHINES)} (default: h100)"
    )
    parser.add_argument(
        "--shape", type=shape, action="append", metavar="TOKENSxOUTxIN",
        help="for --estimate: a layer, repeatable (default: those of four models at 4096 tokens)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if not options.estimate and (options.gpu or options.shape):
        parser.error(f"{'--gpu' if options.gpu else '--shape'} is of no use without --estimate")
    if options.estimate and (options.arch or options.full):
        parser.error(f"{'--arch' if options.arch else '--full'} is of no use with --estimate, which takes --gpu")
    if options.jobs < 1:
        parser.error(f"--jobs: {options.jobs} processes are none, expected 1 or more")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: {str(options.json.parent)!r} is no folder, expected a file in one that is there")
    known = {f"sm_{arch}": arch for arch in KNOWN}
    names = options.arch.split(",") if options.arch else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--arch: {unknown[0]!r} is unknown, expected some of {', '.join(known)}")
    if launch.interpreting():
        parser.error("TRITON_INTERPRET is set: interpreted kernels cannot be compiled, run without it")
    if options.estimate:
        gpus = options.gpu or ["h100"]
        try:
            check(gpus, options.kernel)
        except ValueError as error:
            parser.error(str(error))
        shapes = options.shape or [(TOKENS, n, k) for n, k in PROJECTIONS]
        rows = estimates(gpus, shapes, options.kernel, options.jobs)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
        print(report(rows))
        return 1 if any("error" in row for row in rows) else 0
    import triton

    begin = time.perf_counter()
    rows = audit([known[name] for name in names], options.jobs, options.kernel, options.full)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(
        f"{'kernel':25}{'config':72}{'arch':7}{'regs':>5}{'spill':>6}{'shared':>9}{'limit':>8}  mma    loads  verdict"
    )
    for row in rows:
        if "error" in row:
            print(f"{row['kernel']:25}{row['config']:72}{row['arch']:7}{row['error']}")
            continue
        loads = f"{row['async_loads']}+{row['plain_loads']}"
        print(
            f"{row['kernel']:25}{row['config']:72}{row['arch']:7}{row['registers']:5}{row['spill_bytes']:6}"
            f"{row['shared_bytes']:9}{row['shared_limit']:8}  {row['mma']:6} {loads:6} {row['verdict']}"
        )
    bad = [row for row in rows if row["verdict"] != "ok"]
    seconds = time.perf_counter() - begin
    print(f"triton {triton.__version__}: {len(rows)} compiled in {seconds:.0f} s, {len(bad)} at fault.")
    print("loads: asynchronous + plain, inside the loops that hold the product.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
