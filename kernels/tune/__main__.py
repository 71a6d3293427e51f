"""python -m kernels.tune: on a GPU, times every scheme and tile at the shapes of the layers sweep, and says what it
would change; --write writes the device's file under kernels/tuned.

Every time is the median of CUDA-graph replays with inputs rotated through more than the L2 cache. What was timed is
kept in a file, so a run that was cut off goes on where it stopped. At most 90 s for 15 shapes: each
shape has a budget, the schemes share it, and a candidate that is twice as slow as the best so far is dropped at once.
Exit status 2 without a GPU.
"""

import argparse
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ..runtime.dispatch import Case
from ..runtime.tuned import Tuned, read_tuned, tuned_path, write_tuned
from .search import WIDTHS, changes, merged, tune


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096, help="M (default: 4096)")
    parser.add_argument("--rank", type=int, default=16, help="rank (default: 16)")
    parser.add_argument("--dropout", action="store_true", help="with dropout 0.1")
    parser.add_argument("--write", action="store_true", help="write the device's file under kernels/tuned")
    parser.add_argument("--record", type=Path, help="where times are kept (default: .tune-<GPU>.json here)")
    options = parser.parse_args(argv)
    import torch

    if not torch.cuda.is_available():
        print("kernels.tune needs an NVIDIA GPU and found none; nothing was changed.", file=sys.stderr)
        return 2
    from ..runtime import launch
    from .timer import gpu_timer

    here = torch.device("cuda", torch.cuda.current_device())
    name, path = launch.device_name(here), tuned_path(launch.device_name(here))
    case = Case(
        options.tokens, *WIDTHS[0], options.rank, launch.architecture(here), launch.multiprocessors(here),
        options.dropout, device=name,
    )  # fmt: skip
    record = options.record or Path(f".tune-{path.stem}-torch{torch.__version__}.json")
    try:
        old = read_tuned(path).entries if path.exists() else ()
        best = tune([replace(case, n=n, k=k) for n, k in WIDTHS], gpu_timer(), record)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = changes(best, case)
    print("\n".join(lines) if lines else "The dispatcher chooses what was measured fastest everywhere.")
    if options.write:
        today = datetime.now(UTC).date().isoformat()
        entries = merged(old, best)
        write_tuned(path, Tuned(name, case.arch, version("triton"), torch.__version__, today, entries))
        print(f"{len(best)} entries written to {path}.")
    elif lines:
        print("Nothing was changed; --write does.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
