"""kernels.tune without a GPU: its logic under a fake timer, and what it says when there is no GPU."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from kernels.runtime.dispatch import Case, choose_forward
from kernels.runtime.tuned import Tuned, read_tuned, tuned_path, write_tuned
from kernels.tune import search

DEVICE = "NVIDIA Test 9000"
H100 = Case(4096, 4096, 4096, 16, 90, 132)
SMALL = replace(H100, n=1024, k=1024)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fake(clock: Clock, seconds: float, fastest: str):
    seen: list[search.Candidate] = []

    def timer(candidate: search.Candidate) -> float | None:
        clock.now += seconds
        seen.append(candidate)
        if candidate.scheme == "epilogue":
            return None
        return 0.010 if candidate.scheme == fastest else 0.020 + 0.001 * len(seen)

    return timer, seen


def test_winners_are_written_and_then_dispatched(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LORABENCH_TUNED", str(tmp_path / "tuned"))
    clock = Clock()
    timer, _seen = fake(clock, 0.01, "cublas")
    best = search.tune([H100, replace(H100, n=1600, k=1600)], timer, tmp_path / "times", clock)
    forward = [entry for entry in best if entry.passed == "forward"]
    assert [(e.n, e.scheme, e.tile) for e in forward] == [(4096, "cublas", None), (1600, "cublas", None)]
    assert len(best) == 4 and all("us: " in entry.reason for entry in best)
    lines = search.changes(best, H100)
    assert any("epilogue_tma -> cublas" in line for line in lines)
    entries = search.merged((), best)
    write_tuned(tuned_path(DEVICE), Tuned(DEVICE, 90, "3.7.1", "2.13.0", "2026-01-31", entries))
    choice = choose_forward(replace(H100, device=DEVICE))
    assert choice.scheme == "cublas" and "us: " in choice.reason
    again = search.merged(read_tuned(tuned_path(DEVICE)).entries, best[:1])
    assert set(again) == set(entries) and len(again) == 4, "written twice, entered once"
    other = replace(best[0], m=512)
    assert set(search.merged(entries, [other])) == {*entries, other}


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    timer, seen = fake(clock, 1.0, "single_pass")
    record = tmp_path / "times"
    said: list[str] = []
    search.tune([SMALL], timer, record, clock, said.append)
    first = len(seen)
    assert said and "left for the next run" in said[0], "the budget of a shape holds"
    assert first <= search.SECONDS_A_SHAPE + 2
    clock.now = 0.0
    for _ in range(5):
        search.tune([SMALL], timer, record, clock, said.append)
    assert len(seen) == len(set(seen)) == len(search.candidates(SMALL))


@pytest.mark.parametrize("text", ["{torn", "[1]", '{"key": "fast"}', '{"key": NaN}', "[" * 100_000])
def test_a_record_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    record = tmp_path / "times"
    record.write_text(text)
    with pytest.raises(ValueError, match=r"times is no .*Delete it, or name another file by --record"):
        search.tune([SMALL], fake(Clock(), 1.0, "cublas")[0], record)
    assert record.read_text() == text


def test_the_budget_for_15_shapes_is_90_seconds() -> None:
    assert len(search.WIDTHS) == 15 and len(search.WIDTHS) * search.SECONDS_A_SHAPE <= 90


def test_candidates_are_those_of_the_architecture() -> None:
    schemes = {c.scheme for c in search.candidates(replace(SMALL, arch=80))}
    assert schemes == {
        "cublas", "epilogue", "single_pass", "cublas_fused_da", "epilogue_fused_da"
    }  # fmt: skip
    hopper = {c.scheme for c in search.candidates(SMALL)}
    assert hopper == schemes | {"epilogue_tma", "epilogue_tma_fused_da"}
    dropped = {c.scheme for c in search.candidates(replace(SMALL, dropout=True))}
    assert dropped == schemes - {"single_pass"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run([sys.executable, "-m", "kernels.tune"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "needs an NVIDIA GPU" in done.stderr and not done.stdout
