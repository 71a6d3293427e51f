"""Measured peaks: rates from a fake timer; the real thing on this machine's CPU, small."""

from collections.abc import Callable

import pytest
import torch

from bench.roofline import measured_peaks
from bench.roofline.measured_peaks import MAX_CALLS, MIN_CALLS, measure_peaks


class FakeTimer:
    """Runs the call and says what it took from a list; the last one stands for all that follow."""

    def __init__(self, *ms: float) -> None:
        self.ms, self.calls = list(ms), 0

    def __call__(self, call: Callable[[], object]) -> float:
        call()
        self.calls += 1
        return self.ms.pop(0) if len(self.ms) > 1 else self.ms[0]


def test_rates_are_work_over_the_median() -> None:
    found = measure_peaks("cpu", FakeTimer(100.0), size=32, mib=1)
    assert found["fp32_gflops"] == pytest.approx(2 * 32**3 / 0.1 / 1e9)
    assert found["copy_gbs"] == pytest.approx(2 * 2**20 / 0.1 / 1e9)
    assert (found["fp32_n"], found["copy_n"]) == (MIN_CALLS, MIN_CALLS)
    assert (found["device"], found["gemm_size"], found["copy_mib"]) == ("cpu", 32, 1)


def test_a_warm_up_and_an_outlier_do_not_count() -> None:
    # Product: two calls of warm-up, then five; of the copy likewise.
    timer = FakeTimer(900.0, 900.0, 70.0, 70.0, 70.0, 70.0, 5000.0, 80.0)
    found = measure_peaks("cpu", timer, size=32, mib=1)
    assert found["fp32_gflops"] == pytest.approx(2 * 32**3 / 0.07 / 1e9)
    assert found["copy_gbs"] == pytest.approx(2 * 2**20 / 0.08 / 1e9)


def test_it_ends_for_calls_that_take_nothing() -> None:
    with pytest.raises(ZeroDivisionError):
        measure_peaks("cpu", timer := FakeTimer(0.0), size=8, mib=1)
    assert timer.calls == 2 * MAX_CALLS


def test_on_a_gpu_both_16_bit_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same arithmetic with the tensors on the CPU."""
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(measured_peaks, "make_gemm", lambda *args: made.append(args) or (lambda: None))
    monkeypatch.setattr(measured_peaks, "make_copy", lambda *args: made.append(args) or (lambda: None))
    found = measure_peaks("cuda:0", FakeTimer(2.0))
    device = torch.device("cuda:0")
    assert made == [(8192, torch.bfloat16, device), (8192, torch.float16, device), (1024, device)]
    assert found["bf16_tflops"] == found["fp16_tflops"] == pytest.approx(2 * 8192**3 / 2e-3 / 1e12)
    assert found["copy_tbs"] == pytest.approx(2 * 2**30 / 2e-3 / 1e12)
    assert found["bf16_n"] == found["copy_n"] == 150


def test_the_gemm_and_the_copy_do_what_they_say() -> None:
    copied = measured_peaks.make_copy(1, torch.device("cpu"))()
    assert isinstance(copied, torch.Tensor) and copied.numel() == 2**20 and copied.float().std() > 70
    product = measured_peaks.make_gemm(16, torch.float32, torch.device("cpu"))()
    assert isinstance(product, torch.Tensor) and product.shape == (16, 16) and 2 < product.std() < 8


def test_this_machine() -> None:
    found = measure_peaks("cpu", size=256, mib=8)
    assert found["fp32_gflops"] > 0.1 and found["copy_gbs"] > 0.1
    assert found["fp32_n"] >= MIN_CALLS


@pytest.mark.gpu
def test_this_gpu() -> None:
    found = measure_peaks("cuda")
    assert found["bf16_tflops"] > 1 and found["fp16_tflops"] > 1 and found["copy_tbs"] > 0.05
