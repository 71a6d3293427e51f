"""What the tuner measures is what the sweeps run: every LoRA layer of every sweep finds its measured entry."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from bench.case.shapes import Projection
from bench.sweeps.expand import make_plan
from bench.sweeps.file import sweep_names
from kernels.lora import autograd
from kernels.runtime import launch
from kernels.runtime.dispatch import Case, choose_backward, choose_forward
from kernels.runtime.sizes import padded
from kernels.runtime.tuned import Measured, Tuned, read_tuned, tuned_path, write_tuned
from kernels.tune import search
from kernels.tune.candidates import Candidate, candidates
from kernels.tune.cases import sweep_cases

DEVICE = "NVIDIA Test H100"
CHOOSE = {"forward": choose_forward, "backward": choose_backward}


@pytest.fixture(scope="module")
def wanted() -> set[tuple[str, Projection, int, int, bool, bool]]:
    """Sweep, layer, tokens, rank, whether dropout, whether 16-bit alone, of every LoRA layer that our kernels run."""
    return {
        (sweep, replace(projection, name=""), case.tokens, case.rank or 0, bool(case.dropout), case.precision == "bf16")
        for sweep in sweep_names()
        for case in make_plan(sweep, on_cpu=False).cases
        if case.method == "lora" and case.impl in ("triton", "peft-triton")
        for projection in case.target_projections
    }


def test_every_layer_of_a_sweep_is_near_a_case_of_the_tuner(wanted) -> None:
    cases = sweep_cases(90, 132)
    assert {sweep for sweep, *_ in wanted} >= {"layers", "lengths", "peers", "peft", "table1", "table1-paper", "table2"}
    for sweep, layer, tokens, rank, dropout, _ in wanted:
        assert [
            case
            for case in cases
            if (case.n, case.k, case.conv1d, case.bias)
            == (layer.out_features, layer.in_features, layer.conv1d, layer.bias)
            and (padded(case.rank), case.dropout) == (padded(rank), dropout)
            and max(case.m, tokens) <= 1.5 * min(case.m, tokens)
        ], f"{sweep}: {layer} at {tokens} tokens"


@pytest.fixture
def an_h100(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORABENCH_TUNED", str(tmp_path / "tuned"))
    monkeypatch.setattr(launch, "architecture", lambda _: 90)
    monkeypatch.setattr(launch, "multiprocessors", lambda _: 132)
    monkeypatch.setattr(launch, "device_name", lambda _: DEVICE)


def planned(layer: Projection, tokens: int, rank: int, dropout: bool, bf16: bool) -> autograd.Plan:
    """The plan of such a layer, on tensors without memory."""
    n, k, dtype = layer.out_features, layer.in_features, torch.bfloat16 if bf16 else torch.float16
    with torch.device("meta"):
        x = torch.empty(tokens, k, dtype=dtype)
        weight = torch.empty(k, n, dtype=dtype).t() if layer.conv1d else torch.empty(n, k, dtype=dtype)
        a = torch.empty(rank, k, dtype=dtype if bf16 else torch.float32)
        bias = torch.empty(n, dtype=dtype) if layer.bias else None
    return autograd.make_plan(x, weight, a, bias, dropout, None, keep=True)


def test_every_layer_of_a_sweep_runs_what_was_measured(wanted, an_h100: None, tmp_path: Path) -> None:
    cases = sweep_cases(90, 132, DEVICE)
    ranks = {c.key(): i for case in cases for passed in CHOOSE for i, c in enumerate(candidates(case, passed))}

    def timer(candidate: Candidate) -> float:
        """The last candidate is the fastest, the one that is chosen without measurements the slowest."""
        return 1.0 / (1 + ranks[candidate.key()])

    known: search.Known = {}
    assert search.measure(cases, timer, tmp_path / "record", known)
    path = tuned_path(DEVICE)
    write_tuned(path, Tuned(DEVICE, 90, "3.7.1", "2.13.0", "2026-01-31", tuple(search.winners(cases, known))))
    entries = read_tuned(path).entries
    for sweep, layer, tokens, rank, dropout, bf16 in wanted:
        plan = planned(layer, tokens, rank, dropout, bf16)
        for passed, choose in CHOOSE.items():
            choice = plan.spec.choice if passed == "forward" else choose(plan.spec.case)
            tile = choice.tile and (
                choice.tile.bm, choice.tile.bn, choice.tile.bk, choice.tile.stages, choice.tile.warps,
            )  # fmt: skip
            where = f"{sweep}: {passed} of {layer} at {tokens} tokens: {choice}"
            fitting = [entry for entry in entries if _is_of(entry, passed, plan.spec.case)]
            assert fitting and choice.reason.startswith("us: "), where
            nearest = min(fitting, key=lambda entry: max(entry.m, tokens) / min(entry.m, tokens))
            assert (choice.scheme, tile) == (nearest.scheme, nearest.tile), where
            assert ("(measured at M" in choice.reason) == (nearest.m != tokens), where


def _is_of(entry: Measured, passed: str, case: Case) -> bool:
    return (
        (entry.passed, entry.n, entry.k, entry.conv1d, entry.bias, entry.dropout)
        == (passed, case.n, case.k, case.conv1d, case.bias, case.dropout)
        and padded(entry.rank) == padded(case.rank)
        and entry.scheme != "bordered"
    )


def test_the_nearest_is_taken_and_the_reason_says_how_it_differs(
    an_h100: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Projection("", 1024, 3072, bias=True, conv1d=True)
    entry = Measured("forward", 4096, 3072, 1024, 8, True, "cublas", None, "us: cublas 1.0")
    same = replace(entry, m=3000, conv1d=True, scheme="epilogue", tile=(64, 64, 64, 4, 4))
    for number, (entries, scheme, words) in enumerate([
        ((entry,), "cublas", "us: cublas 1.0 (measured in Linear's layout, without a bias)"),
        ((entry, same), "epilogue", "us: cublas 1.0 (measured at M 3000, without a bias)"),
        ((replace(entry, dropout=False),), None, ""),
        ((replace(entry, rank=64),), None, ""),
    ]):  # fmt: skip
        name = f"{DEVICE} {number}"
        monkeypatch.setattr(launch, "device_name", lambda _, name=name: name)
        write_tuned(tuned_path(name), Tuned(name, 90, "3.7.1", "2.13.0", "2026-01-31", entries))
        choice = planned(layer, 4096, 8, True, True).spec.choice
        if scheme is None:
            assert not choice.reason.startswith("us:")
        else:
            assert (choice.scheme, choice.reason) == (scheme, words)
