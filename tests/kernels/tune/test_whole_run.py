"""A run of kernels.tune under a fake timer: however it ends, what was timed is written; failures are no times."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

from kernels.runtime.dispatch import Case
from kernels.runtime.tuned import read_tuned, tuned_path
from kernels.tune.candidates import Candidate, in_order
from kernels.tune.search import TimingFailed
from kernels.tune.whole_run import run

DEVICE = "NVIDIA Test 9000"
CASES = [Case(4096, n, 1024, 16, 90, 132, device=DEVICE) for n in (1024, 3072)]


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The device's file, in a folder of this test."""
    monkeypatch.setenv("LORABENCH_TUNED", str(tmp_path / "tuned"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield tuned_path(DEVICE)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    signal.signal(signal.SIGINT, before)


def started(
    tmp_path: Path, timer: Callable[[Candidate], float | None], seconds: float = 60.0, write: bool = True,
    without: tuple[str, ...] = (), failed: tuple[Candidate, ...] = (),
) -> int:  # fmt: skip
    return run(
        CASES, DEVICE, tmp_path / "times", until=time.perf_counter() + seconds, write=write, without=without,
        timer=timer, compiled=lambda candidates, seconds: {c.key(): "no room" for c in failed},
    )  # fmt: skip


def times(tmp_path: Path) -> dict[str, float]:
    return json.loads((tmp_path / "times").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_writes_what_it_has_and_the_next_goes_on(number: int, tuned: Path, tmp_path: Path) -> None:
    seen: list[Candidate] = []

    def timer(candidate: Candidate) -> float:
        seen.append(candidate)
        if len(seen) == 7:
            os.kill(os.getpid(), number)
            time.sleep(5)  # until the signal is delivered
        return 1.0 / len(seen)

    assert started(tmp_path, timer) == 130
    assert len(read_tuned(tuned).entries) == 2, "two cases have been compared"
    found = times(tmp_path)
    assert len(found) == 6
    assert started(tmp_path, timer) == 0
    assert len(read_tuned(tuned).entries) >= 4 and len(seen) == len(in_order(CASES)) + 1

    stale = {key[:3] + "z" + key[4:]: ms for key, ms in times(tmp_path).items()}  # of other kernels or versions
    (tmp_path / "times").write_text(json.dumps(stale))
    assert started(tmp_path, timer) == 0
    assert len(seen) == 2 * len(in_order(CASES)) + 1 and found.keys() < times(tmp_path).keys(), "timed again"


def test_a_failure_is_no_time_and_leaves_what_was_timed(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def timer(candidate: Candidate) -> float | None:
        if candidate.scheme == "epilogue_tma":
            raise TimingFailed(f"{candidate.describe()}: RuntimeError: CUDA error")
        return None if candidate.scheme == "bordered" else 1.0

    assert started(tmp_path, timer) == 1
    assert "error: " in (said := capsys.readouterr().err) and "epilogue_tma 128x" in said and "--without" in said
    found = times(tmp_path)
    assert found and None not in found.values()
    assert not any(f'"{scheme}"' in key for scheme in ("epilogue_tma", "bordered") for key in found)
    assert started(tmp_path, timer, without=("epilogue_tma",)) == 0, "the rest is timed without it"
    assert "single_pass" in str(times(tmp_path)) and read_tuned(tuned).entries


def test_what_did_not_compile_is_not_timed(tuned: Path, tmp_path: Path) -> None:
    failed = tuple(c for c in in_order(CASES) if c.scheme == "single_pass")
    seen: list[Candidate] = []

    def timer(candidate: Candidate) -> float:
        seen.append(candidate)
        return 1.0

    assert started(tmp_path, timer, failed=failed) == 0
    assert failed and set(seen) == set(in_order(CASES)) - set(failed)


def test_time_is_over_and_nothing_is_written_that_was_not_asked_for(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(tmp_path, lambda candidate: 1.0, seconds=0.0) == 0
    said = capsys.readouterr().out
    assert "Out of time in round 1" in said and "No case has been compared yet." in said and not tuned.exists()
    assert started(tmp_path, lambda candidate: 2.0 if candidate.scheme == "cublas" else 3.0, write=False) == 0
    assert "-> cublas" in capsys.readouterr().out and not tuned.exists()


def test_there_may_be_nothing_to_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = [replace(case, arch=75) for case in CASES]
    assert run(old, DEVICE, tmp_path / "times", until=0.0, write=True, without=(), timer=lambda candidate: 1.0) == 0
    assert "everything runs in cuBLAS" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_a_tuned_file_without_layouts_is_refused_with_advice(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(tmp_path, lambda candidate: 1.0) == 0
    old = json.loads(tuned.read_text())
    for entry in old["entries"]:
        del entry["conv1d"], entry["bias"]
    tuned.write_text(json.dumps(old))
    assert started(tmp_path, lambda candidate: 1.0) == 2
    assert "has no key 'bias'. Delete the file and tune again" in capsys.readouterr().err
