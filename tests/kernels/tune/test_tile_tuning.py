"""kernels.tune without a GPU: its logic under a fake timer, and what it says when there is no GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from kernels.runtime import dispatch
from kernels.runtime import tile_tables as tables
from kernels.runtime.dispatch import Case
from kernels.tune import __main__ as tune


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fake(clock: Clock, seconds: float, fastest: str):
    seen: list[tune.Candidate] = []

    def timer(candidate: tune.Candidate) -> float | None:
        clock.now += seconds
        seen.append(candidate)
        if candidate.scheme == "f1":
            return None
        return 0.010 if candidate.scheme == fastest else 0.020 + 0.001 * len(seen)

    return timer, seen


def test_winners_are_written_and_then_dispatched(tmp_path: Path, monkeypatch) -> None:
    clock = Clock()
    timer, _seen = fake(clock, 0.01, "f0")
    best = tune.tune(90, [(4096, 4096), (1600, 1600)], 4096, 16, False, timer, tmp_path / "times", clock)
    forward = [entry for entry in best if entry.passed == "forward"]
    assert [(entry.n, entry.scheme, entry.tile) for entry in forward] == [(4096, "f0", None), (1600, "f0", None)]
    assert len(best) == 4 and all("us: " in entry.reason for entry in best)
    lines = tune.changes(best)
    assert any("f1t -> f0" in line for line in lines)
    source = Path(tables.__file__).read_text()
    changed = tune.written(source, best)
    module: dict = {"__name__": "changed"}
    monkeypatch.setitem(sys.modules, "changed", tables)
    exec(compile(changed, "tables.py", "exec"), module)
    assert [entry.scheme for entry in module["MEASURED"]] == [entry.scheme for entry in best]
    assert changed.startswith(source[: source.index("MEASURED: tuple")])
    monkeypatch.setattr(tables, "MEASURED", tuple(best))
    case = Case(m=4096, n=4096, k=4096, rank=16, arch=90, sms=132)
    assert dispatch.choose_forward(case).scheme == "f0" and "us: " in dispatch.choose_forward(case).reason
    assert tune.written(changed, best).count("Measured(") == changed.count("Measured("), "written twice, entered once"


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    timer, seen = fake(clock, 1.0, "f2")
    record = tmp_path / "times"
    said: list[str] = []
    tune.tune(90, [(1024, 1024)], 4096, 16, False, timer, record, clock, said.append)
    first = len(seen)
    assert said and "left for the next run" in said[0], "the budget of a shape holds"
    assert first <= tune.SECONDS_A_SHAPE + 2
    with record.open("a") as file:
        file.write('{"key": "torn')
    clock.now = 0.0
    for _ in range(5):
        tune.tune(90, [(1024, 1024)], 4096, 16, False, timer, record, clock, said.append)
    assert len(seen) == len(set(seen)) == len(tune.candidates(90, 4096, 1024, 1024, 16, False))


def test_the_budget_for_15_shapes_is_90_seconds() -> None:
    assert len(tune.WIDTHS) == 15 and len(tune.WIDTHS) * tune.SECONDS_A_SHAPE <= 90


def test_candidates_are_those_of_the_architecture() -> None:
    schemes = {c.scheme for c in tune.candidates(80, 4096, 1024, 1024, 16, False)}
    assert "f1t" not in schemes and {"f0", "f1", "f2", "b1", "b2", "b2r"} <= schemes
    dropped = {c.scheme for c in tune.candidates(90, 4096, 1024, 1024, 16, True)}
    assert "f2" not in dropped and "b2t" not in dropped


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run([sys.executable, "-m", "kernels.tune"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "needs an NVIDIA GPU" in done.stderr and not done.stdout
