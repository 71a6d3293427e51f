"""A run of the tuner from the first compilation to the file that is written, however it ends."""

import gc
import hashlib
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from ..runtime.dispatch import Case
from ..runtime.tuned import Tuned, read_tuned, tuned_path, write_tuned
from .candidates import Candidate, in_order
from .compiling import Launched, compile_all
from .search import Timer, TimingFailed, changes, measure, merged, read_record, winners

#: The most of the time that compiling ahead may take.
COMPILING = 0.5


def stamp_of(device: str) -> str:
    """What a time depends on beside its candidate, as a prefix of its key: device, versions, and what is run."""
    words = [device, torch.__version__, version("triton")]
    here = Path(__file__).parents[1]
    sources = sorted(path for folder in ("lora", "runtime", "tune") for path in (here / folder).glob("*.py"))
    text = "\n".join([*words, *(path.read_text(encoding="utf-8") for path in sources)])
    return hashlib.sha256(text.encode()).hexdigest()[:16] + " "


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does; afterwards both are handled as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    cases: Sequence[Case], device: str, record: Path, *, until: float, write: bool, without: Collection[str],
    timer: Timer, compiled: Callable[[Iterable[Candidate], float], Launched] = compile_all,
) -> int:  # fmt: skip
    """Compiles, times until time.perf_counter() is `until`, prints what changes and writes the device's file.

    Returns the exit status: 0, 1 where a candidate failed, 2 where a file that is there cannot be read, 130 after an
    interrupt; whatever was timed before counts.
    """
    path, everything, stamp = tuned_path(device), in_order(cases), stamp_of(device)
    if not everything:
        print(f"Nothing to time: on {device} at this rank everything runs in cuBLAS.")
        return 0
    try:
        old = read_tuned(path).entries if path.exists() else ()
        known = read_record(record, stamp)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def save() -> None:
        if write and (best := winners(cases, known)):
            today = datetime.now(UTC).date().isoformat()
            entries = merged(old, best)
            write_tuned(path, Tuned(device, cases[0].arch, version("triton"), torch.__version__, today, entries))

    status = 0
    with terminated_as_interrupted():
        try:
            left_out = {c.key() for c in everything if c.scheme in without}
            wanted = [c for c in everything if c.key() not in known and c.key() not in left_out]
            left_out |= compiled(wanted, COMPILING * (until - time.perf_counter())).keys()
            gc.collect()
            gc.freeze()  # torch collects at every capture: what was imported need not be searched each time
            measure(cases, timer, record, known, until=until, left_out=left_out, stamp=stamp, after_round=save)
        except KeyboardInterrupt:
            print("Interrupted: what was timed until now is kept.")
            status = 130
        except TimingFailed as failure:
            print(f"error: {failure}. No time is kept for it; --without leaves its scheme out.", file=sys.stderr)
            status = 1
        gc.unfreeze()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second one must not lose what the first has kept
        best = winners(cases, known)
        lines = changes(best, cases)
        agreed = "The dispatcher chooses what was measured fastest." if best else "No case has been compared yet."
        print("\n".join(lines) if lines else agreed)
        save()
    if write and best:
        print(f"{len(best)} entries written to {path}.")
    elif lines:
        print("Nothing was changed; --write does.")
    return status
