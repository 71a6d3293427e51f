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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.compare.verdict import MIN_PROCESSES
from bench.devices import choose, gpus
from bench.errors import UserError
from bench.files import replace_file, set_aside
from bench.record.environment import command_to_go_on, source_hash
from bench.record.read import read_kept_rows
from bench.runner.signals import run_command, terminate_as_interrupt
from bench.sweeps.file import sweep_names
from bench.terminal import say

STATE = "compare.json"  # which sources the folders a and b beside it were measured from


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
    for variable in ("LORABENCH_METHODS", "LORABENCH_TUNED"):  # each side runs in its own checkout's folder
        if names := os.environ.get(variable):
            os.environ[variable] = os.pathsep.join(str(Path(n).absolute()) for n in names.split(os.pathsep) if n)
    sources = {side: _sources(side, path) for side, path in checkouts.items()}
    sweep = sweep if sweep in sweep_names() or not Path(sweep).exists() else str(Path(sweep).resolve())
    folder = (out or Path("results") / choose(gpu, gpus()).key / f"compare-{Path(sweep).stem}").absolute()
    try:
        _prepare(folder, checkouts, sources, fresh)
    except OSError as e:
        raise UserError(f"{e.filename or folder}: {e.strerror}; nothing was measured") from None
    if rounds < MIN_PROCESSES:
        say(f"--run {rounds}: ratios only; a verdict needs {MIN_PROCESSES} rounds (--run {MIN_PROCESSES})")
    # compare knows clock as a condition; run, which always measures all clocks of a sweep, does not.
    narrowed = [x for w in where if not w.startswith("clock=") for x in ("--where", w)]
    for i in range(rounds):
        for side in "ab" if i % 2 == 0 else "ba":
            checkout = checkouts[side]
            if _sources(side, checkout) != sources[side]:
                raise UserError(
                    f"{checkout}: its sources changed while it was measured; rounds before {i + 1} are in {folder}."
                    " Leave it alone while it is measured, and give the command again"
                )
            say(f"round {i + 1} of {rounds}, {side.upper()}: {checkout}")
            command = ["run", sweep, "--gpu", gpu, "--out", str(folder / side), "--repeat", str(i + 1), *narrowed]
            _run(checkout, command, folder / side, i)
    return folder / "a", folder / "b"


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


def _prepare(folder: Path, checkouts: dict[str, Path], sources: dict[str, str], fresh: bool) -> None:
    """Leaves folders a and b empty, or with earlier rounds of the same sources.

    When either side's sources are others than those measured there, both sides start anew: rounds of yesterday's A
    and today's B would not be interleaved. What was there moves to earlier/.
    """
    state = {s: {"checkout": str(checkouts[s]), "source_hash": sources[s]} for s in "ab"}
    path = folder / STATE
    parts = [p for p in (folder / "a", folder / "b") if p.exists()]
    before = _read_state(path)
    if parts and before is None:
        raise UserError(f"{folder}: holds {parts[0].name}/ without {STATE}: not made by --run; pass another --out")
    same = before is not None and all(before.get(s, {}).get("source_hash") == sources[s] for s in "ab")
    if parts and (fresh or not same):
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        aside = set_aside(folder, name, (*parts, path))  # the state last: cut off, the rest moves the next time
        say(f"{'--fresh' if fresh else 'the sources have changed'}: the earlier rounds are in {aside}")
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(state, indent=1) + "\n")


def _read_state(path: Path) -> dict[str, Any] | None:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}); pass another --out") from None
    return state if isinstance(state, dict) else None


def _run(checkout: Path, command: list[str], folder: Path, repeat: int) -> None:
    """One `python -m bench run` in a checkout; its progress goes on to standard error."""
    with terminate_as_interrupt() as came:
        try:
            words = [sys.executable, "-m", "bench", *command]
            code = run_command(words, checkout, cwd=checkout, stdout=subprocess.DEVNULL)
        except KeyboardInterrupt:
            say(f"interrupted; what is finished is on disk. To go on: {command_to_go_on()}")
            raise Interrupted(128 + (came[0] if came else signal.SIGINT)) from None
    measured = code in (0, 1) and any(r["repeat"] == repeat for r in read_kept_rows(folder)[0])
    if not measured:
        raise UserError(
            f"{checkout}: its `python -m bench {' '.join(command[:2])}` ended with status {code}, and left no row of"
            f" repeat {repeat} in {folder}; it has said why above"
        )
