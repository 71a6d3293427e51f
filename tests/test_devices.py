"""Which GPU is here: a fake NVML, keys, --gpu, CUDA_VISIBLE_DEVICES."""

import pytest

from bench.devices import ELSEWHERE, choose, choose_any, cpu_device, device_key, gpus, known_devices
from bench.errors import UserError
from bench.roofline.peaks import peaks_of
from tests.fake_nvml import FakeNvml

A100 = ("NVIDIA A100-SXM4-80GB", (8, 0), 6912, "GPU-aaaa")
H200 = ("NVIDIA H200", (9, 0), 16896, "GPU-hhhh")


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_boards_are_described() -> None:
    nvml = FakeNvml(A100, H200)
    first, second = gpus(nvml)
    assert (first.key, first.sm_count, first.driver, first.memory_mib) == ("a100", 108, "580.159.03", 81920)
    assert (second.key, second.sm_count, second.index) == ("h200", 132, 1)
    assert nvml.opened == 0, "NVML is closed again"


@pytest.mark.parametrize(
    ("name", "sm_count", "key"),
    [
        ("NVIDIA A100-SXM4-40GB", 108, "a100"),
        ("NVIDIA A100 80GB PCIe", 108, "a100"),
        ("NVIDIA RTX A6000", 84, "a6000"),
        ("NVIDIA H100 80GB HBM3", 132, "h100"),
        ("NVIDIA H100 PCIe", 114, "h100"),
        ("NVIDIA H100 NVL", 132, "h100"),
        ("NVIDIA H200", 132, "h200"),
        ("NVIDIA H200", None, "h200"),
        ("NVIDIA L40S", 142, "l40s"),
        ("NVIDIA GeForce RTX 4090", 128, "rtx4090"),
        ("NVIDIA B200", 148, "b200"),
        ("NVIDIA GeForce RTX 5090", 170, "rtx5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 188, "rtxpro6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 188, "rtxpro6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 188, "rtxpro6000"),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", 82, "rtx-5090-laptop"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 14, "a100-sxm4-80gb-mig-1g-10gb"),
        ("NVIDIA GeForce RTX 3060 Ti", 38, "rtx-3060-ti"),
        ("NVIDIA GH200 480GB", 132, "gh200-480gb"),
        ("???", None, "unknown-gpu"),
    ],
)
def test_a_board_has_a_key(name: str, sm_count: int | None, key: str) -> None:
    assert device_key(name, sm_count) == key


@pytest.mark.parametrize(
    ("name", "bf16", "memory_tbs"),
    [
        ("NVIDIA GeForce RTX 5090", 209.5, 1.792),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8, 1.792),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 438.9, 1.792),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 467.8, 1.597),
    ],
)
def test_editions_of_one_chip_have_peaks_of_their_own(name: str, bf16: float, memory_tbs: float) -> None:
    (device,) = gpus(FakeNvml((name, (12, 0), 128 * (170 if "5090" in name else 188), "GPU-bbbb")))
    found = peaks_of(device.name, device.sm_count)
    assert found is not None and (found.bf16_tflops, found.memory_tbs) == (bf16, memory_tbs)


def test_no_driver_and_old_drivers() -> None:
    assert gpus(FakeNvml(broken=True)) == []
    (old,) = gpus(FakeNvml(("NVIDIA A100-SXM4-80GB", (8, 0), -1, "GPU-1")))
    assert (old.key, old.sm_count) == ("a100", None)


@pytest.mark.parametrize(
    ("setting", "keys"),
    [("", []), ("-1", []), ("1", ["h200"]), ("1,0", ["h200", "a100"]), ("GPU-a", ["a100"]), ("0,7,1", ["a100"])],
)
def test_visible_devices_as_cuda_reads_them(monkeypatch: pytest.MonkeyPatch, setting: str, keys: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [d.key for d in gpus(FakeNvml(A100, H200))] == keys


def test_the_flag_chooses() -> None:
    found = gpus(FakeNvml(A100, H200))
    assert choose("auto", found).key == "a100"
    assert choose("h200", found).uuid == "GPU-hhhh"
    assert choose("cpu", found).is_cpu and choose("auto", []).is_cpu
    with pytest.raises(UserError, match=r"--gpu h100: .*A100-SXM4-80GB.*Valid here: auto, a100, h200, cpu"):
        choose("h100", found)
    with pytest.raises(UserError, match="--gpu a100: ") as e:
        choose("a100", [])
    assert "no NVIDIA GPU" in str(e.value) and cpu_device().name in str(e.value)
    with pytest.raises(UserError, match=r"--gpu zx81: .*Known keys: a100"):
        choose("zx81", [])


def test_a_gpu_that_need_not_be_here() -> None:
    found = gpus(FakeNvml(A100))
    for flag in ("auto", "cpu", "a100"):
        assert choose_any(flag, found) == choose(flag, found)
    first = choose_any("a100", [])
    assert (first.key, first.name, first.memory_mib) == ("a100", "A100-SXM4-40GB", 40960)
    assert first.index == ELSEWHERE and not first.is_cpu
    assert choose_any("a100-80gb-pcie", found).name == "A100 80GB PCIe"
    assert choose_any("h200", found).name == "H200", "the entry of just that name, not the first of the key"
    assert choose_any("a100-sxm4-80gb", found) is found[0], "it is here after all"
    for key in known_devices():
        assert choose_any(key, []).memory_mib, key
    with pytest.raises(UserError, match=r"--gpu zx81: .*Known keys: a100"):
        choose_any("zx81", found)
