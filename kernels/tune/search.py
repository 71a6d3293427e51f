"""How the tuner decides: plain functions of a timer, so that they can be tested without a GPU."""

import json
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, replace
from pathlib import Path

from ..runtime.dispatch import Case
from ..runtime.files import write_atomically
from ..runtime.tuned import Measured
from .candidates import CHOOSE, Candidate, rounds, shape_words

#: What a candidate is given on the GPU, and what it takes with its tensors, warm-up and capture: an estimate.
SECONDS_A_CANDIDATE = 0.08
WITH_OVERHEAD = 1.5


class TimingFailed(RuntimeError):
    """A candidate failed otherwise than for want of room. The process is of no further use: a capture that failed
    leaves the random generator and the stream in a state in which every later one fails too."""


# ms of one candidate; None where it does not fit the GPU. Raises TimingFailed, naming it, where anything else fails.
Timer = Callable[[Candidate], float | None]
Known = dict[str, float]


def measure(
    cases: Iterable[Case], timer: Timer, record: Path, known: Known, *, until: float = float("inf"),
    left_out: Collection[str] = (), stamp: str = "", after_round: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter, say: Callable[[str], None] = print,
) -> bool:  # fmt: skip
    """Times round by round what `known` does not hold, and adds it there and to the file `record`. False where the
    time `until`, by clock, came first. left_out: keys of candidates that are not to be timed. Raises what the timer
    raises; what was timed before stands in `known` and, each key behind `stamp`, in `record`."""
    all_rounds = list(rounds(cases))
    done = 0
    for number, candidates in enumerate(all_rounds, 1):
        for candidate in candidates:
            key = candidate.key()
            if key not in known and key not in left_out:
                if clock() >= until:
                    rest, of = sum(map(len, all_rounds)) - done, len(all_rounds)
                    say(f"Out of time in round {number} of {of}: {rest} candidates are left for the next run.")
                    return False
                ms = timer(candidate)
                if ms is None:
                    say(f"{candidate.describe()} does not fit this GPU.")
                else:
                    known[key] = ms
                    _write(record, {stamp + key: ms for key, ms in known.items()})
            done += 1
        after_round()
    return True


def _write(record: Path, times: Known) -> None:
    write_atomically(record, lambda path: path.write_text(json.dumps(times, indent=0), encoding="utf-8"))


def winners(cases: Iterable[Case], known: Known) -> list[Measured]:
    """The fastest of each pass and case of which at least two candidates were timed.

    Where that is bordered, which needs a weight made for it, the fastest of the others follows.
    """
    times: dict[tuple[object, ...], dict[Candidate, float]] = {}
    for candidates in rounds(cases):
        for candidate in candidates:
            if candidate.key() in known:
                times.setdefault(candidate.case, {})[candidate] = known[candidate.key()]
    best: list[Measured] = []
    for measured in times.values():
        if len(measured) < 2:
            continue
        best.append(_winner(measured))
        others = {candidate: ms for candidate, ms in measured.items() if candidate.scheme != "bordered"}
        if best[-1].scheme == "bordered":
            best.append(_winner(others))
    return best


def _winner(times: dict[Candidate, float]) -> Measured:
    """The fastest; its reason names the best time of every scheme, in us."""
    ordered = sorted(times, key=times.__getitem__)
    least = {candidate.scheme: times[candidate] for candidate in reversed(ordered)}
    words = ", ".join(f"{scheme} {ms * 1e3:.1f}" for scheme, ms in sorted(least.items(), key=lambda item: item[1]))
    return Measured(reason=f"us: {words}", **asdict(ordered[0]))


def read_record(record: Path, stamp: str = "") -> Known:
    """What an earlier run of the same stamp timed: ms by candidate. A null, which earlier versions wrote for any
    failure, is left out, so that the candidate is timed again.

    Raises ValueError, naming the file, for one that measure() did not write.
    """
    if not record.is_file():
        return {}
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # the second: nested too deeply
        raise ValueError(f"{record} is no JSON: {error}. Delete it, or name another file by --record") from None
    times = found.values() if isinstance(found, dict) else [found]
    if not isinstance(found, dict) or any(ms is not None and not (type(ms) is float and 0 < ms < 1e9) for ms in times):
        raise ValueError(f"{record} is no record of times. Delete it, or name another file by --record")
    return {key.removeprefix(stamp): ms for key, ms in found.items() if ms is not None and key.startswith(stamp)}


def changes(best: Iterable[Measured], cases: Iterable[Case]) -> list[str]:
    """A line for every case where what was measured differs from what the dispatcher chooses now."""
    by_shape = {shape_words(case): case for case in cases}
    lines = []
    for entry in best:
        words = shape_words(entry)
        case = replace(by_shape[words], bordered=entry.scheme == "bordered")
        now = CHOOSE[entry.passed](case)
        tile = None if now.tile is None else (now.tile.bm, now.tile.bn, now.tile.bk, now.tile.stages, now.tile.warps)
        if (now.scheme, tile) != (entry.scheme, entry.tile):
            lines.append(f"{entry.passed} {words}: {now.scheme} -> {entry.scheme} {entry.tile or ''} ({entry.reason})")
    return lines


def merged(old: Iterable[Measured], best: Iterable[Measured]) -> tuple[Measured, ...]:
    """Entries of the same pass and case are replaced, others stay."""

    def same(entry: Measured) -> tuple[object, ...]:
        return (
            entry.passed, entry.m, entry.n, entry.k, entry.rank, entry.dropout, entry.conv1d, entry.bias,
        )  # fmt: skip

    new = list(best)
    replaced = {same(entry) for entry in new}
    return (*(entry for entry in old if same(entry) not in replaced), *new)
