"""The CPU as a board: known answers by made-up rates, what is kept of measured ones, and the fit of the GEMMs."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from bench.devices import cpu_device
from bench.errors import UserError
from bench.predict import cpu
from bench.predict.boards import MemoryKind
from bench.predict.cpu import CpuBoard, cpu_us, half_widths, price_cpu, remembered_cpu
from bench.predict.cpu_gemm import gemm_class, gemm_terms
from bench.predict.cpu_rates import fit_gemms, seconds
from bench.predict.ops import Op, Trace
from bench.predict.predicted import ratio
from bench.predict.remembered import place

CLASSES = ("power", "tanh", "tanh_backward", "silu", "silu_backward", "norm_backward", "softmax_backward", "rows",
           "one", "columns")  # fmt: skip
BOARD = CpuBoard(
    name="Made Up",
    gemm={"wide": [1e-5, 1e-4, 0.0, 0.0, 3.0], "narrow": [1e-4, 0.0, 0.0, 0.0, 0.0], "flat": [2e-4, 0.0, 0.0, 0.0, 0.0],
          "short": [3e-4, 0.0, 0.0, 0.0, 0.0]},
    memory=dict.fromkeys((*get_args(MemoryKind), *CLASSES), (1e-5, 1e-4)) | {"tanh": (1e-3, 2e-3)},
    attention=(1e-5, 2e-5),
    operator=(10.0, 5.0),
    errors=dict.fromkeys(("gemm", "skinny", "memory", "attention"), (0.1, 0.2)),
    source="made up",
)  # fmt: skip


def gemm(m: int, n: int, k: int, cause: str = "base_forward", batch: int = 1) -> Op:
    return Op("aten::mm", cause, "gemm", (m, n, k, batch), 4, True)


def plain(bytes_: float, name: str = "aten::mul") -> Op:
    return Op(name, "norms", "elementwise", bytes=bytes_)


def test_a_product_is_the_sum_of_its_terms() -> None:
    assert cpu_us(BOARD, gemm(64, 100, 200)) == pytest.approx(1e-5 * 64 * 100 * 200 + 1e-4 * 100 * 200 + 3.0)
    assert cpu_us(BOARD, gemm(64, 100, 200, batch=3)) == pytest.approx(3 * (12.8 + 2.0) + 3.0)


@pytest.mark.parametrize("sizes, rate", [((64, 8, 1000), 1e-4), ((8, 64, 1000), 2e-4), ((64, 1000, 8), 3e-4)])
def test_a_short_side_has_a_rate_of_its_own(sizes: tuple[int, int, int], rate: float) -> None:
    assert cpu_us(BOARD, gemm(*sizes)) == pytest.approx(rate * 64 * 8 * 1000)


def test_what_no_cache_holds_costs_more_and_never_less_with_more_bytes() -> None:
    us = [cpu_us(BOARD, plain(2.0**i)) for i in range(10, 31)]
    assert us == sorted(us)
    assert us[10] == pytest.approx(1e-5 * 2**20)
    assert us[20] == pytest.approx(1e-4 * 2**30)


def test_an_operator_has_the_rate_of_what_it_computes() -> None:
    assert cpu_us(BOARD, plain(1000.0, "aten::tanh")) == pytest.approx(1.0)
    assert cpu_us(BOARD, plain(1000.0, "aten::tanh_backward")) == pytest.approx(0.01)
    attention = Op("aten::sdpa", "attention", "attention", width=4, flops=1e6)
    assert cpu_us(BOARD, attention) == pytest.approx(10.0)
    assert cpu_us(BOARD, replace(attention, backward=True)) == pytest.approx(20.0)


def test_the_parts_of_a_pass_add_up() -> None:
    forward, backward = (gemm(64, 100, 200), plain(1e6)), (gemm(64, 200, 100, "base_dx"),) * 2
    trace = Trace({"forward": forward, "backward": backward, "optimizer": (plain(2e6, "aten::_fused_adamw_"),)})
    found = price_cpu(trace, BOARD, ["forward", "backward", "forward-backward", "step"], micro_steps=3)
    for p in found.values():
        assert sum(p.parts.values()) == pytest.approx(p.ms)
        assert not p.launch_bound and p.host_limit_us == 0 and p.clock == "cpu-time"
    ms = {pass_: p.ms for (pass_, _), p in found.items()}
    assert ms["forward"] == pytest.approx((12.8 + 2.0 + 3.0 + 10.0 + 2 * 10.0) / 1e3)
    assert found["backward", "cpu-time"].parts["gaps"] == pytest.approx(2 * 5.0 / 1e3)
    assert ms["forward-backward"] == pytest.approx(ms["forward"] + ms["backward"])
    assert ms["step"] == pytest.approx(3 * ms["forward-backward"] + (20.0 + 10.0) / 1e3)


def test_what_two_cases_share_cancels_in_their_ratio() -> None:
    base = price_cpu(Trace({"forward": (gemm(640, 1000, 1000),)}), BOARD, ["forward"])["forward", "cpu-time"]
    more = Trace({"forward": (gemm(640, 1000, 1000), plain(1e7))})
    other = price_cpu(more, BOARD, ["forward"])["forward", "cpu-time"]
    assert ratio(base, base).half == (0.0, 0.0)
    again = price_cpu(Trace({"forward": (gemm(640, 1000, 1000),)}), BOARD, ["forward"])["forward", "cpu-time"]
    assert 0 < ratio(again, base).half[1] < 0.1, "the same in another process"
    for at in (0, 1):
        assert 0 < ratio(other, base).half[at] < base.half[at]


@pytest.mark.parametrize(
    "op, said",
    [(Op("lorabench::lora_forward", "fused", "lora_forward", (64, 64, 64, 8)), "needs an NVIDIA GPU"),
     (replace(gemm(64, 64, 64), width=2), "Take precision fp32")],
)  # fmt: skip
def test_what_a_cpu_has_no_rates_for_is_refused(op: Op, said: str) -> None:
    with pytest.raises(UserError, match=said):
        price_cpu(Trace({"forward": (op,)}), BOARD, ["forward"])


def test_the_fit_finds_the_numbers_that_made_its_rows() -> None:
    true = np.array([2e-5, 1e-4, 3e-4, 0.0, 5.0])
    shapes = [
        (64, 1024, 1024),
        (128, 64, 512),
        (1000, 40, 70),
        (32, 32, 4096),
        (4096, 64, 64),
        (70, 80, 90),
        (99, 64, 999),
    ]
    rows = np.array([gemm_terms(*s) for s in shapes], dtype=float)
    numbers, ratios = fit_gemms(rows, rows @ true)
    assert numbers == pytest.approx(true, rel=1e-3, abs=1e-9)
    assert ratios == pytest.approx(np.ones(len(shapes)), abs=1e-3)
    assert {gemm_class(*s) for s in shapes} == {"wide"}


def test_a_call_costs_the_median_of_its_samples() -> None:
    ticks = iter(np.cumsum([0, 1, 0, 2, 0, 9, 0, 3, 0, 4]).tolist())
    assert seconds(lambda: None, least=5.0, now=lambda: next(ticks)) == 3


def test_half_widths_hold_their_part_of_the_errors() -> None:
    assert half_widths([i / 10 for i in range(1, 11)]) == (0.9, 1.0)
    assert half_widths([0.2]) == (0.2, 0.2)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file where this machine's rates would be kept."""
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path))
    path = place("cpu", cpu_device().name)
    assert path is not None
    return path


def test_what_is_kept_is_read(kept: Path) -> None:
    assert remembered_cpu() is None
    kept.write_text(json.dumps(asdict(BOARD)))
    assert remembered_cpu() == BOARD


@pytest.mark.parametrize(
    "damage",
    [{"operator": [1, -1]}, {"memory": {}}, {"gemm": {"wide": [1, 2, 3, 4, 5]}}, {"operator": [1.0]}, {"errors": {}}],
)
def test_damaged_rates_are_not_taken(damage: dict[str, object], kept: Path) -> None:
    kept.write_text(json.dumps(asdict(BOARD) | damage))
    assert remembered_cpu() is None


def test_a_board_of_a_process_that_gave_its_memory_back_is_not_taken(kept: Path) -> None:
    """Such a board has a rate of new memory, `fresh`, beside all that a board has now."""
    kept.write_text(json.dumps(asdict(BOARD) | {"fresh": 1e-3}))
    assert remembered_cpu() is None


@pytest.mark.slow
def test_this_machine_has_rates(kept: Path) -> None:
    threads = torch.get_num_threads()
    board = cpu.measured_cpu()
    assert remembered_cpu() == board and kept.exists()
    assert torch.get_num_threads() == threads
    assert cpu_us(board, gemm(64, 4096, 1024)) > cpu_us(board, gemm(64, 1024, 1024)) > 0
