"""kernels.tune without a GPU: its logic under a fake timer, and what it says when there is no GPU."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch

pytest.importorskip("triton")

from kernels.runtime.dispatch import Case, choose_backward, choose_forward
from kernels.runtime.tuned import Tuned, read_tuned, tuned_path, write_tuned
from kernels.tune import __main__ as command
from kernels.tune import search
from kernels.tune.candidates import Candidate, candidates, in_order, rounds
from kernels.tune.cases import sweep_cases
from kernels.tune.compiling import compile_all, groups

DEVICE = "NVIDIA Test 9000"
H100 = Case(4096, 4096, 4096, 16, 90, 132)
SMALL = replace(H100, n=1024, k=1024)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fake(clock: Clock, seconds: float, fastest: str) -> tuple[Callable[[Candidate], float | None], list[Candidate]]:
    seen: list[Candidate] = []

    def timer(candidate: Candidate) -> float | None:
        clock.now += seconds
        seen.append(candidate)
        if candidate.scheme == "epilogue":
            return None
        return 0.010 if candidate.scheme == fastest else 0.020 + 0.001 * len(seen)

    return timer, seen


def test_winners_are_written_and_then_dispatched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_TUNED", str(tmp_path / "tuned"))
    timer, _seen = fake(Clock(), 0.01, "cublas")
    cases = [H100, replace(H100, n=1600, k=1600)]
    known: search.Known = {}
    assert search.measure(cases, timer, tmp_path / "times", known, say=lambda _: None)
    best = search.winners(cases, known)
    forward = [entry for entry in best if entry.passed == "forward"]
    assert [(e.n, e.scheme, e.tile) for e in forward] == [(4096, "cublas", None), (1600, "cublas", None)]
    assert len(best) == 4 and all("us: " in entry.reason for entry in best)
    lines = search.changes(best, cases)
    assert any("epilogue_tma -> cublas" in line for line in lines)
    entries = search.merged((), best)
    write_tuned(tuned_path(DEVICE), Tuned(DEVICE, 90, "3.7.1", "2.13.0", "2026-01-31", entries))
    choice = choose_forward(replace(H100, device=DEVICE))
    assert choice.scheme == "cublas" and "us: " in choice.reason
    assert search.changes(best, [replace(case, device=DEVICE) for case in cases]) == []
    again = search.merged(read_tuned(tuned_path(DEVICE)).entries, best[:1])
    assert set(again) == set(entries) and len(again) == 4, "written twice, entered once"
    for other in (replace(best[0], m=512), replace(best[0], conv1d=True), replace(best[0], bias=True)):
        assert set(search.merged(entries, [other])) == {*entries, other}


def test_where_bordered_wins_the_best_of_the_others_is_entered_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORABENCH_TUNED", str(tmp_path / "tuned"))
    known = {c.key(): {"bordered": 0.010, "cublas": 0.015}.get(c.scheme, 0.020) for c in candidates(H100, "forward")}
    best = search.winners([H100], known)
    assert [entry.scheme for entry in best] == ["bordered", "cublas"]
    write_tuned(tuned_path(DEVICE), Tuned(DEVICE, 90, "3.7.1", "2.13.0", "2026-01-31", tuple(best)))
    here = replace(H100, device=DEVICE)
    assert choose_forward(replace(here, bordered=True)).scheme == "bordered"
    assert choose_forward(here).scheme == "cublas", "a weight without room for the branch"
    known = {key: ms / 2 if "cublas" in key else ms for key, ms in known.items()}
    assert [e.scheme for e in search.merged(best, search.winners([H100], known))] == ["cublas"], "no stale bordered"


def test_a_run_whose_time_was_over_goes_on(tmp_path: Path) -> None:
    clock, record = Clock(), tmp_path / "times"
    timer, seen = fake(clock, 1.0, "single_pass")
    said: list[str] = []
    cases, known = [H100, SMALL], {}
    assert not search.measure(cases, timer, record, known, until=6.0, clock=clock, say=said.append)
    assert len(seen) == 6 and "Out of time in round 2" in said[-1]
    assert search.read_record(record) == known != {}, "what was timed is on disk"
    assert len(search.winners(cases, known)) == 2, "no entry without a comparison"
    known = search.read_record(record)
    assert search.measure(cases, timer, record, known, clock=clock, say=said.append)
    fitting = [candidate for candidate in seen if candidate.scheme != "epilogue"]
    assert len(fitting) == len(set(fitting)) and set(seen) == set(in_order(cases))


def test_nulls_of_an_old_record_are_timed_again(tmp_path: Path) -> None:
    record = tmp_path / "times"
    first, second = in_order([SMALL])[:2]
    record.write_text(json.dumps({first.key(): None, second.key(): 2.0}))
    known = search.read_record(record)
    assert known == {second.key(): 2.0}
    timer, seen = fake(Clock(), 1.0, "cublas")
    search.measure([SMALL], timer, record, known, say=lambda _: None)
    assert first in seen and second not in seen and None not in json.loads(record.read_text()).values()


@pytest.mark.parametrize("text", ["{torn", "[1]", '{"key": "fast"}', '{"key": NaN}', "[" * 100_000])
def test_a_record_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    record = tmp_path / "times"
    record.write_text(text)
    with pytest.raises(ValueError, match=r"times is no .*Delete it, or name another file by --record"):
        search.read_record(record)
    assert record.read_text() == text


def test_two_rounds_over_all_cases_fit_90_seconds_on_an_h100() -> None:
    first, second = list(rounds(sweep_cases(90, 132)))[:2]
    assert len(first) == len(second) == 2 * len(sweep_cases(90, 132))
    assert (len(first) + len(second)) * search.SECONDS_A_CANDIDATE * search.WITH_OVERHEAD <= 90


def test_every_case_is_compared_before_any_goes_on() -> None:
    cases = sweep_cases(90, 132)
    ordered = list(rounds(cases))
    schemes = [{c.case: c.scheme for c in each} for each in ordered[:2]]
    for case in cases:
        for passed, choose in (("forward", choose_forward), ("backward", choose_backward)):
            key = candidates(case, passed)[0].case
            untuned = choose(case).scheme
            pair = schemes[0][key], schemes[1][key]
            assert pair[0] == untuned and ("cublas" in pair), "the untuned choice and cuBLAS first"
    assert [c.passed for c in ordered[0][:4]] == ["forward", "backward"] * 2


def test_candidates_are_those_of_the_architecture() -> None:
    def schemes(case: Case) -> set[str]:
        return {c.scheme for passed in ("forward", "backward") for c in candidates(case, passed)}

    ampere = schemes(replace(SMALL, arch=80))
    assert ampere == {"cublas", "epilogue", "single_pass", "bordered", "cublas_fused_da", "epilogue_fused_da"}
    assert schemes(SMALL) == ampere | {"epilogue_tma", "epilogue_tma_fused_da"}
    assert schemes(replace(SMALL, fits_tma=False)) == ampere
    dropped = candidates(replace(SMALL, dropout=True), "forward")
    assert {c.scheme for c in dropped} == {"cublas", "epilogue", "epilogue_tma", "bordered"}
    assert all(c.tile != (128, 256, 64, 3, 8) for c in candidates(replace(SMALL, dropout=True), "backward"))
    assert candidates(replace(SMALL, rank=128), "forward") == [], "no table is asked above rank 64"


def test_compiling_ahead_launches_every_candidate_once_and_kernels_in_one_process() -> None:
    wanted = in_order([H100, SMALL, replace(SMALL, dropout=True)])
    seen: list[Candidate] = []
    said: list[str] = []

    def launched(group: list[Candidate]) -> dict[str, str]:
        seen.extend(group)
        return {c.key(): f"{c.describe()}: no room" for c in group if c.scheme == "single_pass"}

    failed = compile_all(wanted, 60.0, said.append, launched, ThreadPoolExecutor)
    assert sorted(map(repr, seen)) == sorted(map(repr, wanted))
    assert failed.keys() == {c.key() for c in wanted if c.scheme == "single_pass"}
    assert sum(line.startswith("Left out: forward single_pass") for line in said) == len(failed)
    assert all(len({(c.scheme, c.tile, c.dropout) for c in group}) == 1 for group in groups(wanted))
    assert groups(wanted)[0][0] == wanted[0]
    timer, timed = fake(Clock(), 0.0, "cublas")
    search.measure([SMALL], timer, Path("unused"), dict.fromkeys((c.key() for c in wanted), 1.0), left_out=failed)
    assert timed == []


def test_compiling_ahead_ends_when_its_time_is_over() -> None:
    released, said = Event(), list[str]()

    def waits(group: list[Candidate]) -> dict[str, str]:
        released.wait(60)
        return {}

    try:
        assert compile_all(in_order([SMALL]), 0.01, said.append, waits, ThreadPoolExecutor) == {}
    finally:
        released.set()
    assert len(said) == 1 and "compiled when it is timed" in said[0]


def test_the_list_needs_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--arch", "sm_90", "--sms", "132"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cases = sweep_cases(90, 132)
    assert len(lines) == len(cases) + 1
    line = next(line for line in lines if line.startswith("M 2048 N 4800 K 1600 r 8 dropout Conv1D bias: "))
    case = next(c for c in cases if (c.m, c.n, c.k) == (2048, 4800, 1600))
    assert line.endswith(f"forward {len(candidates(case, 'forward'))}, backward {len(candidates(case, 'backward'))}")
    assert f"{len(cases)} cases, {len(in_order(cases))} candidates. Estimated" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--time", "soon"], "'soon' is no duration, expected one such as 90s or 2m"),
        (["--time", "0s"], "'0s' is no duration"),
        (["--list", "--arch", "hopper"], "'hopper' is no architecture, expected one such as sm_90"),
        (["--arch", "sm_90"], "--arch stands beside --list"),
        (["--rank", "8"], "--rank and --dropout stand beside --tokens"),
        (["--without", "f9"], "--without is 'f9', expected one of bordered, cublas"),
    ],
)
def test_odd_options_are_refused_in_words(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run([sys.executable, "-m", "kernels.tune"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "needs an NVIDIA GPU" in done.stderr and not done.stdout
