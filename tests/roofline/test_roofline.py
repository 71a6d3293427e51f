"""The roofline time, and whose figures a GPU gets."""

from dataclasses import replace

import pytest

from bench.devices import known_devices
from bench.roofline.peaks import Peaks, peaks_of
from bench.roofline.roofline import compulsory_bytes, flops, roofline_ms
from tests.models.tiny import make_case
from tests.roofline.families import METHODS

PEAKS = Peaks("x", "X", 10, 100, 50, 10, 1, 16, "made up", l2_mib=1)  # 1e14, 5e13, 1e13 FLOP/s; 1e12 B/s


def test_floor_of_a_warm_row_is_its_flops() -> None:
    case = make_case(None, "full", "linear", layer="square-1000", batch=1, seq=1000, precision="bf16")
    assert roofline_ms(case, "forward", PEAKS) == pytest.approx(2e9 / 1e14 * 1e3)
    assert roofline_ms(case, "step", PEAKS) == pytest.approx(6e9 / 1e14 * 1e3)
    for precision, peak in (("fp16", 5e13), ("amp-fp16", 5e13), ("amp-bf16", 1e14), ("fp32", 1e13)):
        assert roofline_ms(replace(case, precision=precision), "forward", PEAKS) == pytest.approx(2e9 / peak * 1e3)
    assert roofline_ms(case, "forward", None) is None


def test_floor_of_a_cold_row_counts_what_must_cross_the_bus() -> None:
    """One token, so that bytes decide: W is 8 MB, of which backward finds 1 MiB in L2."""
    case = make_case(None, "full", "linear", layer="square-2000", batch=1, seq=1, precision="bf16", l2="cold")
    w, v, mib = 8_000_000, 4_000, 2**20
    assert roofline_ms(case, "forward", PEAKS) == pytest.approx((w + 2 * v) * 1e-9)
    assert roofline_ms(case, "backward", PEAKS) == pytest.approx((w + 2 * v + (w + v - mib)) * 1e-9)
    assert roofline_ms(case, "forward-backward", PEAKS) == pytest.approx((3 * w + 5 * v - mib) * 1e-9)
    step, both = roofline_ms(case, "step", PEAKS), roofline_ms(case, "forward-backward", PEAKS)
    assert step is not None and both is not None  # two moments read; weight and gradient are still there in part
    assert step - both == pytest.approx((4 * w - mib) * 1e-9)
    unknown_l2 = replace(PEAKS, l2_mib=None)
    assert roofline_ms(case, "backward", unknown_l2) == pytest.approx((w + 2 * v) * 1e-9)
    big = replace(case, batch=64, seq=512)  # now FLOPs decide
    assert roofline_ms(big, "forward", PEAKS) == roofline_ms(replace(big, l2="warm"), "forward", PEAKS)


def test_a_floor_is_never_above_flops_and_all_bytes(models: dict[str, str]) -> None:
    for level in ("block", "model"):
        for method in METHODS:
            case = make_case(models["gpt2"], method, level, l2="cold")
            for part in ("forward", "backward"):
                f, b, least = flops(case, part), compulsory_bytes(case, part), roofline_ms(case, part, PEAKS)
                assert f is not None and b is not None and least is not None
                assert 0 < least <= max(f / 1e13, b / 1e12) * 1e3


@pytest.mark.parametrize(
    ("name", "sm_count", "tbs"),
    [
        ("NVIDIA A100-SXM4-40GB", 108, 1.555),
        ("A100-SXM4-80GB", 108, 2.039),
        ("NVIDIA A100-PCIE-40GB", 108, 1.555),
        ("NVIDIA A100 80GB PCIe", 108, 1.935),
        ("NVIDIA RTX A6000", 84, 0.768),
        ("NVIDIA GeForce RTX 4090", 128, 1.008),
        ("NVIDIA L40S", 142, 0.864),
        ("NVIDIA H100 80GB HBM3", 132, 3.35),
        ("NVIDIA H100 PCIe", 114, 2.0),
        ("NVIDIA H100 NVL", 132, 3.9),
        ("NVIDIA H200", 132, 4.8),
        ("NVIDIA H200 NVL", 132, 4.8),
        ("NVIDIA H200", None, 4.8),
        ("NVIDIA B200", 148, 7.7),
        ("NVIDIA A100-SXM-64GB", 108, None),
        ("NVIDIA A100-SXM4-80GB", 98, None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None, None),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 76, None),
        ("NVIDIA GH200 480GB", 132, None),
        ("NVIDIA GB200", None, None),
        ("NVIDIA RTX 6000 Ada Generation", 142, None),
        ("NVIDIA H100", 132, None),
        ("Tesla V100-SXM2-16GB", 80, None),
        ("???", None, None),
    ],
)
def test_a_gpu_has_its_own_figures_or_none(name: str, sm_count: int | None, tbs: float | None) -> None:
    found = peaks_of(name, sm_count)
    assert (found and found.memory_tbs) == tbs


def test_siblings_are_told_apart() -> None:
    peaks = {
        n: peaks_of(n, 132) for n in ("NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA H200", "NVIDIA H100 80GB HBM3")
    }
    assert [b and b.bf16_tflops for b in peaks.values()] == [835.5, 835.5, 989.5, 989.4]


# FLOPs per clock and SM: dense products of 16-bit numbers summed in fp32; fp32. From the architectures' white papers;
# of the B200 and the RTX 5090, the power of two that puts their rates at a clock they have.
PER_CLOCK = {"a100": (2048, 128), "a6000": (1024, 256), "rtx4090": (512, 256), "l40s": (1024, 256)}
PER_CLOCK |= {"h100": (4096, 256), "h200": (4096, 256), "b200": (8192, 256)}
PER_CLOCK |= {"rtx5090": (512, 256), "rtxpro6000": (1024, 256)}

# Boost clocks in GHz, where rates must be what the clock gives: some are derived from it, and 2617 MHz is above what is
# likely elsewhere. It and 2280 are in the RTX PRO 6000's white paper (table 4); gpus.yaml has the origin of the others.
BOOST = {"RTX 5090": 2.407, "RTX PRO 6000 Blackwell Workstation Edition": 2.617}
BOOST |= {"RTX PRO 6000 Blackwell Max-Q Workstation Edition": 2.280, "RTX PRO 6000 Blackwell Server Edition": 2.430}


def test_every_peak_is_what_its_chip_does_at_a_likely_clock() -> None:
    """Sparse figures and rates with fp16 accumulation are twice as large, and would need twice the clock."""
    boards = [entry | {"key": key} for key, entries in known_devices().items() for entry in entries]
    assert len([b for b in boards if "memory_tbs" in b]) == 17
    for entry in boards:
        if "memory_tbs" in entry:
            b = peaks_of(f"NVIDIA {entry['name']}", entry["sm_count"])
            assert b is not None and b.key == entry["key"] and b.name == entry["name"]
            tensor, plain = PER_CLOCK[b.key]
            low, high = (0.999 * BOOST[b.name], 1.001 * BOOST[b.name]) if b.name in BOOST else (1.40, 2.55)
            for rate, per_clock in ((b.bf16_tflops, tensor), (b.fp16_tflops, tensor), (b.fp32_tflops, plain)):
                assert low <= rate * 1e3 / (b.sm_count * per_clock) <= high, (b.name, rate)
            assert "NVIDIA" in b.source
