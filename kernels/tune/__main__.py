"""python -m kernels.tune: on a GPU, times every scheme and tile at the shapes of the layers sweep, and says what it
would change in the tables; --write changes them.

Every time is the median of CUDA-graph replays with inputs rotated through more than the L2 cache. What was timed is
kept in a file, one line each, so a run that was cut off goes on where it stopped. At most 90 s for 15 shapes: each
shape has a budget, the schemes share it, and a candidate that is twice as slow as the best so far is dropped at once.
Exit status 2 without a GPU.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from ..runtime import dispatch
from ..runtime import tile_tables as tables
from ..runtime.dispatch import BACKWARD_SCHEMES, Case, allows, tiles_of
from ..runtime.tile_tables import Measured, Tile

#: (N, K) of the models' projections and of squares: the layers sweep.
WIDTHS = (
    (1024, 1024), (2048, 2048), (4096, 4096), (8192, 8192),
    (3072, 1024), (4096, 1024), (1024, 4096), (4800, 1600), (1600, 1600), (6400, 1600), (1600, 6400),
    (256, 2048), (5632, 2048), (2048, 5632), (11008, 4096),
)  # fmt: skip
SECONDS_A_SHAPE = 6.0

# ms of one (scheme, tile) at a case; None where it cannot run.
Timer = Callable[["Candidate"], float | None]


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


#: The kernel whose tile a scheme varies.
_TILED = {"f1": "gemm", "f1t": "persistent", "f2": "single", "b2": "gemm", "b2r": "gemm", "b2t": "persistent",
          "b2tr": "persistent"}  # fmt: skip


def candidates(arch: int, m: int, n: int, k: int, rank: int, dropout: bool) -> list[Candidate]:
    """Every scheme and tile for one shape, those that the tables would choose first."""
    case = Case(m, n, k, rank, arch, 132, dropout)
    found = []
    for passed, schemes in (("forward", ("f0", "f1", "f1t", "f2")), ("backward", tuple(BACKWARD_SCHEMES))):
        choose = dispatch.choose_forward if passed == "forward" else dispatch.choose_backward
        first = choose(case).scheme
        for scheme in sorted(schemes, key=lambda s: s != first):
            kernel = _TILED.get(scheme)
            if scheme == "torch" or (scheme == "f2" and dropout) or (kernel == "persistent" and (arch < 90 or dropout)):
                continue
            masked = dropout and passed == "backward"
            tiles: Iterable[Tile | None] = (None,)
            if kernel is not None:
                tiles = (tile for tile in tiles_of(kernel, arch) if allows(tile, rank, masked))
            for tile in tiles:
                shape = None if tile is None else (tile.bm, tile.bn, tile.bk, tile.stages, tile.warps)
                found.append(Candidate(passed, m, n, k, rank, dropout, scheme, shape))
    return found


def tune(
    arch: int, shapes: Iterable[tuple[int, int]], m: int, rank: int, dropout: bool, timer: Timer, record: Path,
    clock: Callable[[], float] = time.perf_counter, say: Callable[[str], None] = print,
) -> list[Measured]:  # fmt: skip
    """The fastest of each pass and shape. What `record` holds already is not timed again."""
    known = read_record(record)
    if record.exists() and not record.read_text().endswith("\n"):
        record.write_text(record.read_text() + "\n")  # a torn line must not swallow the next
    best: list[Measured] = []
    for n, k in shapes:
        end = clock() + SECONDS_A_SHAPE
        times: dict[str, dict[Candidate, float]] = {"forward": {}, "backward": {}}
        for candidate in candidates(arch, m, n, k, rank, dropout):
            key = candidate.key()
            if key not in known:
                if clock() > end:
                    say(f"({n}, {k}): out of its {SECONDS_A_SHAPE:g} s, {candidate.scheme} left for the next run")
                    continue
                known[key] = timer(candidate)
                with record.open("a") as file:
                    file.write(json.dumps({"key": key, "ms": known[key]}) + "\n")
            ms = known[key]
            if ms is not None:
                times[candidate.passed][candidate] = ms
        for passed, measured in times.items():
            if not measured:
                continue
            winner = min(measured, key=measured.__getitem__)
            others = {c.scheme: ms for c, ms in sorted(measured.items(), key=lambda item: -item[1])}
            words = ", ".join(
                f"{scheme} {ms * 1e3:.1f}" for scheme, ms in sorted(others.items(), key=lambda item: item[1])
            )
            best.append(Measured(arch, passed, m, n, k, rank, dropout, winner.scheme, winner.tile, f"us: {words}"))
    return best


def read_record(record: Path) -> dict[str, float | None]:
    """What an earlier run timed; a torn last line is dropped."""
    known: dict[str, float | None] = {}
    if record.exists():
        for line in record.read_text().splitlines():
            try:
                row = json.loads(line)
                known[row["key"]] = row["ms"]
            except (json.JSONDecodeError, KeyError):
                continue
    return known


def changes(best: list[Measured]) -> list[str]:
    """A line for every shape where what was measured differs from what the tables choose now."""
    lines = []
    for entry in best:
        case = Case(entry.m, entry.n, entry.k, entry.rank, entry.arch, 132, entry.dropout)
        choose = dispatch.choose_forward if entry.passed == "forward" else dispatch.choose_backward
        now = choose(case)
        if now.scheme != entry.scheme or now.tile is None:
            lines.append(
                f"sm_{entry.arch} {entry.passed} M {entry.m} N {entry.n} K {entry.k} r {entry.rank}: "
                f"{now.scheme} -> {entry.scheme} {entry.tile or ''} ({entry.reason})"
            )
    return lines


def written(source: str, best: list[Measured]) -> str:
    """The source of tables.py with `best` in MEASURED, in place of older entries of the same cases."""

    def same(entry: Measured) -> tuple[Any, ...]:
        return entry.arch, entry.passed, entry.m, entry.n, entry.k, entry.rank, entry.dropout

    replaced = {same(entry) for entry in best}
    entries = [entry for entry in tables.MEASURED if same(entry) not in replaced] + best
    block = (
        "MEASURED: tuple[Measured, ...] = (\n" + "".join(f"    {entry!r},\n" for entry in entries) + ")  # fmt: skip\n"
    )
    head, count = re.subn(r"^MEASURED: .*\Z", lambda _: block, source, flags=re.MULTILINE | re.DOTALL)
    if count != 1:
        raise RuntimeError("tables.py does not end with MEASURED")
    return head


def gpu_timer(budget_s: float = 0.25) -> Timer:
    """Times a candidate on the current GPU by CUDA graphs; None where it does not fit."""
    import torch

    from ..lora import lora_linear

    best: dict[tuple[str, int, int, int], float] = {}

    def timer(c: Candidate) -> float | None:
        device, dtype = torch.device("cuda"), torch.bfloat16
        kernel = _TILED.get(c.scheme)
        dispatch.forced_tiles.clear()
        if kernel is not None and c.tile is not None:
            dispatch.forced_tiles[kernel] = Tile(*c.tile, "timed")
        from ..lora.linear import _plans

        _plans.clear()
        size = 2 * (c.m * c.k + c.m * c.n + c.n * c.k)
        rotations = max(1, min(8, 2 * torch.cuda.get_device_properties(device).L2_cache_size // size + 1))
        scheme = c.scheme if c.passed == "forward" else f"f0/{c.scheme}"
        try:
            calls: list[Callable[[], Any]] = []
            for _ in range(rotations):
                x = torch.randn(c.m, c.k, device=device, dtype=dtype, requires_grad=True)
                weight = torch.randn(c.n, c.k, device=device, dtype=dtype) / c.k**0.5
                a = torch.randn(c.rank, c.k, device=device, dtype=dtype, requires_grad=True)
                b = torch.randn(c.n, c.rank, device=device, dtype=dtype, requires_grad=True)
                dy = torch.randn(c.m, c.n, device=device, dtype=dtype)
                p = 0.1 if c.dropout else 0.0
                forward = partial(lora_linear, x, weight, a, b, scale=2.0, dropout_p=p, scheme=scheme)
                if c.passed == "forward":
                    calls.append(forward)
                else:
                    calls.append(partial(torch.autograd.grad, forward(), (x, a, b), dy, retain_graph=True))
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    for call in calls:
                        call()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                for call in calls:
                    call()
            key = (c.passed, c.m, c.n, c.k)
            times: list[float] = []
            begin = time.perf_counter()
            while len(times) < 5 or (time.perf_counter() - begin < budget_s and len(times) < 200):
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                graph.replay()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end) / rotations)
                if len(times) == 5 and median(times) > 2 * best.get(key, float("inf")):
                    break
            best[key] = min(best.get(key, float("inf")), median(times))
            return median(times)
        except (RuntimeError, ValueError) as failure:
            if "illegal" in str(failure):
                raise
            return None
        finally:
            dispatch.forced_tiles.clear()

    return timer


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096, help="M (default: 4096)")
    parser.add_argument("--rank", type=int, default=16, help="rank (default: 16)")
    parser.add_argument("--dropout", action="store_true", help="with dropout 0.1")
    parser.add_argument("--write", action="store_true", help="change kernels/tables.py")
    parser.add_argument("--record", type=Path, help="where times are kept (default: .tune-<GPU>.jsonl here)")
    options = parser.parse_args(argv)
    import torch

    if not torch.cuda.is_available():
        print("kernels.tune needs an NVIDIA GPU and found none; nothing was changed.", file=sys.stderr)
        return 2
    from ..runtime import launch

    arch = launch.architecture(torch.device("cuda", torch.cuda.current_device()))
    name = torch.cuda.get_device_name().replace(" ", "-")
    record = options.record or Path(f".tune-{name}-torch{torch.__version__}.jsonl")
    best = tune(arch, WIDTHS, options.tokens, options.rank, options.dropout, gpu_timer(), record)
    lines = changes(best)
    print("\n".join(lines) if lines else "The tables choose what was measured fastest everywhere.")
    if options.write:
        path = Path(tables.__file__)
        path.write_text(written(path.read_text(), best))
        print(f"{len(best)} entries written to {path}.")
    elif lines:
        print("Nothing was changed; --write does.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
