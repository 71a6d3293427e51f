"""compare --run: two checkouts measured in turns, each by its own `python -m bench run`, into folders a and b.

Round i asks one side after the other for repeat i+1, which measures only what is missing: one fresh set of processes a
round and side, and a cut-off measurement goes on where it stopped. The order is ABBA ABBA, so that a steady drift of
the machine falls on both alike.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.again import to_go_on
from bench.case import AXES
from bench.compare.verdict import MIN_PROCESSES
from bench.devices import choose, gpus
from bench.errors import UserError
from bench.files import complete_move, move_was_cut_off, replace_file, set_aside
from bench.folder import hold, usable
from bench.process import terminate_as_interrupt
from bench.reading import Text, fields_of, read_object, shape_of
from bench.record.environment import source_hash
from bench.record.read import read_kept_rows
from bench.record.store import check_record
from bench.runner.plan import COMPARED, results_folder
from bench.runner.signals import run_command
from bench.sweeps.expand import make_plan
from bench.sweeps.file import sweep_names
from bench.terminal import say
from bench.where import parse_where

STATE = "compare.json"  # which sources the folders a and b beside it were measured from
_SIDE = fields_of({"checkout": Text, "source_hash": Text}, ("source_hash",))
_STATE = shape_of({"a": _SIDE, "b": _SIDE}, ("a", "b"))


class Interrupted(Exception):
    """Ctrl-C or SIGTERM while measuring; what is finished is on disk."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


def measure_both(
    a: Path, b: Path, sweep: str, rounds: int, out: Path | None, gpu: str, where: tuple[str, ...], fresh: bool
) -> tuple[Path, Path]:
    """Measures both checkouts and returns their results folders. Raises UserError before anything is changed where a
    checkout is none; Interrupted when cut off."""
    checkouts = {"a": a.resolve(), "b": b.resolve()}
    for variable in ("LORABENCH_METHODS", "LORABENCH_TUNED", "LORABENCH_LOCKS"):  # each side runs in its own checkout
        if names := os.environ.get(variable):
            os.environ[variable] = os.pathsep.join(str(Path(n).absolute()) for n in names.split(os.pathsep) if n)
    sources = {side: _sources(side, path) for side, path in checkouts.items()}
    device = choose(gpu, gpus())
    sweep = sweep if sweep in sweep_names() or not Path(sweep).exists() else str(Path(sweep).resolve())
    folder = usable("--out", out or results_folder(Path("results") / device.key, Path(sweep), COMPARED)).absolute()
    # compare knows clock as a condition; run, which always measures all clocks of a sweep, does not.
    narrowed = [x for w in where if not w.startswith("clock=") for x in ("--where", w)]
    with _interruptible():
        for side, checkout in checkouts.items():
            _ask(side, checkout, ["list", sweep, "--gpu", gpu, *narrowed])
        _check_clocks(sweep, device.is_cpu, where)
        if not move_was_cut_off(folder):
            _before(folder)
        try:
            with hold(folder, lambda process: say(_waits(process, folder))):
                complete_move(folder)
                _prepare(folder, checkouts, sources, fresh, device.name)
                _measure(folder, checkouts, sources, rounds, ["run", sweep, "--gpu", gpu, *narrowed])
        except OSError as e:
            raise UserError(f"{e.filename or folder}: {e.strerror}; what was measured before is there") from None
    return folder / "a", folder / "b"


def _check_clocks(sweep: str, on_cpu: bool, where: tuple[str, ...]) -> None:
    """Raises UserError for a clock that the sweep does not have; as this checkout knows it, for `list` tells none."""
    asked = [c for c in parse_where(where, (*AXES, "case_id", "pass", "clock")) if c.axis == "clock"]
    if not asked:
        return
    try:
        plan = make_plan(sweep, on_cpu)
    except UserError:  # a sweep that the two checkouts have, and this one does not
        return
    for condition in asked:
        condition.chosen(list(dict.fromkeys(clock for _, clock in plan.row_keys)), "is no clock of this sweep")


def _waits(process: str, folder: Path) -> str:
    return f"another comparison (process {process}) is measuring into {folder}; waiting until it is done"


@contextmanager
def _interruptible() -> Iterator[None]:
    with terminate_as_interrupt() as came:
        try:
            yield
        except KeyboardInterrupt:
            say(f"interrupted; what is finished is on disk. To go on: {to_go_on()}")
            raise Interrupted(128 + (came[0] if came else signal.SIGINT)) from None


def _measure(
    folder: Path, checkouts: dict[str, Path], sources: dict[str, str], rounds: int, command: list[str]
) -> None:
    if rounds < MIN_PROCESSES:
        say(f"--run {rounds}: ratios only; a verdict needs {MIN_PROCESSES} rounds (--run {MIN_PROCESSES})")
    for i in range(rounds):
        for side in "ab" if i % 2 == 0 else "ba":
            checkout = checkouts[side]
            if _sources(side, checkout) != sources[side]:
                raise UserError(
                    f"{checkout}: its sources changed while it was measured; rounds before {i + 1} are in {folder}."
                    " Leave it alone while it is measured, and give the command again"
                )
            say(f"round {i + 1} of {rounds}, {side.upper()}: {checkout}")
            _run(checkout, [*command, "--out", str(folder / side), "--repeat", str(i + 1)], folder / side, i)


def _sources(side: str, checkout: Path) -> str:
    """The hash of a checkout's sources and tuned tiles. Raises UserError for a folder that is no checkout."""
    if not (checkout / "bench" / "__main__.py").is_file():
        found = "no bench/__main__.py in it" if checkout.is_dir() else "no such folder"
        raise UserError(f"checkout {side.upper()}, {checkout}: {found}. Pass a folder with this suite's bench/.")
    try:
        tiles = [path.read_bytes() for path in sorted((checkout / "kernels" / "tuned").glob("*.json"))]
        tuned = hashlib.sha256(b"\0".join(tiles)).hexdigest()[:8] if tiles else ""
        return source_hash(checkout) + tuned
    except OSError as e:
        raise UserError(f"checkout {side.upper()}, {checkout}: {e.filename}: {e.strerror}") from None


def _prepare(folder: Path, checkouts: dict[str, Path], sources: dict[str, str], fresh: bool, gpu: str) -> None:
    """Leaves folders a and b empty, or with earlier rounds of the same sources.

    When either side's sources are others than those measured there, both sides start anew: rounds of yesterday's A
    and today's B would not be interleaved. What was there moves to earlier/.
    """
    state = {s: {"checkout": str(checkouts[s]), "source_hash": sources[s]} for s in "ab"}
    before = _before(folder)
    parts = [p for p in (folder / "a", folder / "b") if p.exists()]
    same = before is not None and all(before[s]["source_hash"] == sources[s] for s in "ab")
    if same and not fresh:
        for part in parts:
            check_record(part, {"gpu": gpu})
    if parts and (fresh or not same):
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        aside = set_aside(folder, name, (*parts, folder / STATE))
        say(f"{'--fresh' if fresh else 'the sources have changed'}: the earlier rounds are in {aside}")
    replace_file(folder / STATE, json.dumps(state, indent=1) + "\n")


def _before(folder: Path) -> dict[str, Any] | None:
    """What was measured in the folder before. Raises UserError where that was no comparison."""
    path = folder / STATE
    if os.path.lexists(path):
        return read_object(path, _STATE, "Pass another --out.")
    for part in (p for p in (folder / "a", folder / "b") if p.exists()):
        raise UserError(f"{folder}: holds {part.name}/ without {STATE}: not made by --run; pass another --out")
    return None


def _ask(side: str, checkout: Path, command: list[str]) -> None:
    """Raises UserError, with the checkout's own words, where it would refuse this sweep."""
    with tempfile.TemporaryFile() as words:
        code = _bench(checkout, command, stderr=words)
        words.seek(0)
        said = words.read().decode(errors="replace").strip().splitlines()
    if code:
        told = (said or ["nothing"])[-1].removeprefix("error: ")
        raise UserError(f"checkout {side.upper()}, {checkout}: {told}")


def _bench(checkout: Path, command: list[str], **options: Any) -> int | None:
    words = [sys.executable, "-m", "bench", *command]
    return run_command(words, checkout, cwd=checkout, stdout=subprocess.DEVNULL, **options)


def _run(checkout: Path, command: list[str], folder: Path, repeat: int) -> None:
    """One `python -m bench run` in a checkout; its progress goes on to standard error."""
    code = _bench(checkout, command)
    measured = code in (0, 1) and any(r["repeat"] == repeat for r in read_kept_rows(folder)[0])
    if not measured:
        raise UserError(
            f"{checkout}: its `python -m bench {' '.join(command[:2])}` ended with status {code}, and left no row of"
            f" repeat {repeat} in {folder}; it has said why above"
        )
