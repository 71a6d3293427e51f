"""What the tuner tries and how it decides: plain functions of a timer, so that they can be tested without a GPU."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..runtime.architectures import features
from ..runtime.dispatch import Case, allows, choose_backward, choose_forward, tiles_of
from ..runtime.files import write_atomically
from ..runtime.schemes import BACKWARD_SCHEMES, FORWARD_SCHEMES, TILED
from ..runtime.tile_tables import Tile
from ..runtime.tuned import Measured

#: (N, K) of the models' projections and of squares: the layers sweep.
WIDTHS = (
    (1024, 1024), (2048, 2048), (4096, 4096), (8192, 8192),
    (3072, 1024), (4096, 1024), (1024, 4096), (4800, 1600), (1600, 1600), (6400, 1600), (1600, 6400),
    (256, 2048), (5632, 2048), (2048, 5632), (11008, 4096),
)  # fmt: skip
SECONDS_A_SHAPE = 6.0

CHOOSE = {"forward": choose_forward, "backward": choose_backward}


@dataclass(frozen=True)
class Candidate:
    """One thing to time. tile: None where the scheme has no GEMM of ours."""

    passed: str
    m: int
    n: int
    k: int
    rank: int
    dropout: bool
    scheme: str
    tile: tuple[int, int, int, int, int] | None

    def key(self) -> str:
        return json.dumps([self.passed, self.m, self.n, self.k, self.rank, self.dropout, self.scheme, self.tile])


# ms of one (scheme, tile) at a case; None where it cannot run.
Timer = Callable[[Candidate], float | None]


def candidates(case: Case) -> list[Candidate]:
    """Every scheme and tile for one case, those that the tables would choose first."""
    found = []
    for passed, schemes in (("forward", FORWARD_SCHEMES), ("backward", tuple(BACKWARD_SCHEMES))):
        first = CHOOSE[passed](case).scheme
        for scheme in sorted(schemes, key=lambda s: s != first):
            kernel = TILED.get(scheme)
            if scheme in ("torch", "bordered") or (scheme == "single_pass" and case.dropout):
                continue
            if kernel == "gemm_tma" and (not features(case.arch).tma or case.dropout):
                continue
            masked = case.dropout and passed == "backward"
            tiles: Iterable[Tile | None] = (None,)
            if kernel is not None:
                tiles = (tile for tile in tiles_of(kernel, case.arch) if allows(tile, case.rank, masked))
            for tile in tiles:
                shape = None if tile is None else (tile.bm, tile.bn, tile.bk, tile.stages, tile.warps)
                found.append(Candidate(passed, case.m, case.n, case.k, case.rank, case.dropout, scheme, shape))
    return found


def tune(
    cases: Iterable[Case], timer: Timer, record: Path, clock: Callable[[], float] = time.perf_counter,
    say: Callable[[str], None] = print,
) -> list[Measured]:  # fmt: skip
    """The fastest of each pass and case. What `record` holds already is not timed again."""
    known = read_record(record)
    best: list[Measured] = []
    for case in cases:
        end = clock() + SECONDS_A_SHAPE
        times: dict[str, dict[Candidate, float]] = {"forward": {}, "backward": {}}
        for candidate in candidates(case):
            key = candidate.key()
            if key not in known:
                if clock() > end:
                    say(f"({case.n}, {case.k}): out of time, {candidate.scheme} left for the next run")
                    continue
                known[key] = timer(candidate)
                write_atomically(record, lambda path: path.write_text(json.dumps(known, indent=0), encoding="utf-8"))
            ms = known[key]
            if ms is not None:
                times[candidate.passed][candidate] = ms
        best += [_winner(measured) for measured in times.values() if measured]
    return best


def _winner(times: dict[Candidate, float]) -> Measured:
    """The fastest; its reason names the best time of every scheme, in us."""
    ordered = sorted(times, key=times.__getitem__)
    least = {candidate.scheme: times[candidate] for candidate in reversed(ordered)}
    words = ", ".join(f"{scheme} {ms * 1e3:.1f}" for scheme, ms in sorted(least.items(), key=lambda item: item[1]))
    w = ordered[0]
    return Measured(w.passed, w.m, w.n, w.k, w.rank, w.dropout, w.scheme, w.tile, f"us: {words}")


def read_record(record: Path) -> dict[str, float | None]:
    """What an earlier run timed: ms by candidate, None where it could not run.

    Raises ValueError, naming the file, for one that tune() did not write.
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
    return found


def changes(best: list[Measured], case: Case) -> list[str]:
    """A line for every shape where what was measured differs from what the dispatcher chooses now on case's device."""
    lines = []
    for entry in best:
        now = CHOOSE[entry.passed](
            replace(case, m=entry.m, n=entry.n, k=entry.k, rank=entry.rank, dropout=entry.dropout)
        )
        if now.scheme != entry.scheme or now.tile is None:
            lines.append(
                f"{entry.passed} M {entry.m} N {entry.n} K {entry.k} r {entry.rank}: "
                f"{now.scheme} -> {entry.scheme} {entry.tile or ''} ({entry.reason})"
            )
    return lines


def merged(old: Iterable[Measured], best: Iterable[Measured]) -> tuple[Measured, ...]:
    """Entries of the same pass and case are replaced, others stay."""

    def same(entry: Measured) -> tuple[object, ...]:
        return entry.passed, entry.m, entry.n, entry.k, entry.rank, entry.dropout

    return tuple(({same(entry): entry for entry in old} | {same(entry): entry for entry in best}).values())
