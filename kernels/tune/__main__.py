"""python -m kernels.tune: on a GPU, times every scheme and tile at the sweeps' layers, and says what it would change.

--write writes the device's file under kernels/tuned, or in the folder that LORABENCH_TUNED names, after every round.
First everything is compiled, in processes side by side; then the candidates of all cases are timed in rounds, the
strongest of every case first, until all are timed, --time is over or an interrupt comes: what was timed until then
counts. Every time is the median of CUDA-graph replays with inputs rotated through more than the L2 cache. What was
timed is kept in a file, so a run that was cut off goes on where it stopped.
Exit status 1 where a candidate failed, 2 without a GPU, 130 after an interrupt.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..runtime.dispatch import Case
from ..runtime.schemes import BACKWARD_SCHEMES, FORWARD_SCHEMES
from ..runtime.tuned import tuned_path
from .candidates import CHOOSE, candidates, rounds, shape_words
from .cases import LAYERS_RANK, cases_at, sweep_cases
from .search import SECONDS_A_CANDIDATE, WITH_OVERHEAD


def seconds_of(text: str) -> float:
    """90, 90s or 2m in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|)", text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration, expected one such as 90s or 2m")
    return float(found[1]) * (60 if found[2] == "m" else 1)


def arch_of(text: str) -> int:
    """sm_90 -> 90."""
    found = re.fullmatch(r"sm_(\d{2,3})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no architecture, expected one such as sm_90")
    return int(found[1])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--time", type=seconds_of, default=90.0, help="at most so long, as 90s or 2m (default: 90s)")
    parser.add_argument("--write", action="store_true", help="write the device's file under kernels/tuned")
    parser.add_argument("--record", type=Path, help="where times are kept (default: .tune-<GPU>.json here)")
    parser.add_argument("--tokens", type=int, help="M: the layers at these tokens alone, in place of the sweeps' cases")
    parser.add_argument("--rank", type=int, help="rank, beside --tokens (default: 16)")
    parser.add_argument("--dropout", action="store_true", help="with dropout 0.1, beside --tokens")
    parser.add_argument("--without", action="append", default=[], metavar="SCHEME", help="leave a scheme out")
    parser.add_argument("--list", action="store_true", help="print the cases and how many candidates each has")
    parser.add_argument("--arch", type=arch_of, help="beside --list: of this architecture, as sm_90")
    parser.add_argument("--sms", type=int, default=132, help="beside --arch: with so many SMs (default: 132)")
    options = parser.parse_args(argv)
    if options.tokens is None and (options.dropout or options.rank is not None):
        parser.error("--rank and --dropout stand beside --tokens; without it the sweeps' own cases are measured")
    if options.arch and not options.list:
        parser.error("--arch stands beside --list; what is timed is the GPU that is there")
    names = sorted({*FORWARD_SCHEMES, *BACKWARD_SCHEMES})
    if odd := [scheme for scheme in options.without if scheme not in names]:
        parser.error(f"--without is {odd[0]!r}, expected one of {', '.join(names)}")
    if options.list and options.arch:
        return _list(_cases(options, options.arch, options.sms, ""))
    begin = time.perf_counter()
    import torch

    if not torch.cuda.is_available():
        print("kernels.tune needs an NVIDIA GPU and found none; nothing was changed.", file=sys.stderr)
        return 2
    from ..runtime import launch

    here = torch.device("cuda", torch.cuda.current_device())
    name = launch.device_name(here)
    cases = _cases(options, launch.architecture(here), launch.multiprocessors(here), name)
    if options.list:
        return _list(cases)
    from .timer import GpuTimer
    from .whole_run import run

    record = options.record or Path(f".tune-{tuned_path(name).stem}-torch{torch.__version__}.json")
    return run(
        cases, name, record, until=begin + options.time, write=options.write, without=options.without, timer=GpuTimer()
    )


def _cases(options: Any, arch: int, sms: int, device: str) -> list[Case]:
    if options.tokens is None:
        return sweep_cases(arch, sms, device)
    return cases_at(arch, sms, device, options.tokens, options.rank or LAYERS_RANK, options.dropout)


def _list(cases: Sequence[Case]) -> int:
    total = 0
    for case in cases:
        counts = {passed: len(candidates(case, passed)) for passed in CHOOSE}
        total += sum(counts.values())
        print(f"{shape_words(case)}: " + ", ".join(f"{passed} {count}" for passed, count in counts.items()))
    each, two = SECONDS_A_CANDIDATE * WITH_OVERHEAD, sum(map(len, list(rounds(cases))[:2]))
    print(
        f"{len(cases)} cases, {total} candidates. Estimated at {each:.2f} s each: {total * each:.0f} s, of which the "
        f"first two of every case take {two * each:.0f} s. Compiling comes on top."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
