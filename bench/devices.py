"""Which GPU is here, asked of NVML, without torch and without a CUDA context in this process."""

import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import UserError, did_you_mean
from bench.yamlfile import load_yaml

# CUDA cores of a streaming multiprocessor by compute capability (CUDA C++ Programming Guide, 'Compute Capabilities').
CORES_PER_SM = {(7, 0): 64, (7, 5): 64, (8, 0): 64} | dict.fromkeys(
    [(8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)], 128
)


ELSEWHERE = -1


@dataclass(frozen=True)
class Device:
    """The device a run measures on."""

    key: str  # cpu, a100, ...: names the results folder
    name: str  # the GPU's full name, or the CPU's
    index: int | None = None  # of the GPU in PCI order; None for the CPU, ELSEWHERE for a GPU that is not here
    uuid: str = "cpu"
    driver: str | None = None
    sm_count: int | None = None
    memory_mib: int | None = None

    @property
    def is_cpu(self) -> bool:
        return self.index is None


@cache
def known_devices() -> dict[str, list[dict[str, Any]]]:
    """gpus.yaml: for each key its devices."""
    return load_yaml(Path(__file__).parent / "gpus.yaml").value


def find_known(name: str, sm_count: int | None, exact: bool = False) -> tuple[str, dict[str, Any]] | None:
    """The key and the entry of gpus.yaml for a device of that name, as NVML gives it; None where there is none.

    sm_count: its count of SMs, None where NVML does not tell it. An entry's name is found as whole words anywhere in
    the device's: H200 is no part of GH200. exact: at its end alone, so that a MIG slice, a laptop's namesake or a
    cut-down sibling is not taken for the device itself.
    """
    start, end = (r"(?<!\S)", r"$") if exact else (r"\b", r"\b")
    for key, entries in known_devices().items():
        for entry in entries:
            if re.search(start + re.escape(entry["name"]) + end, name) and sm_count in (None, entry["sm_count"]):
                return key, entry
    return None


def device_key(name: str, sm_count: int | None) -> str:
    """The key of a device; one made from its name where gpus.yaml does not know it."""
    if known := find_known(name, sm_count):
        return known[0]
    plain = re.sub(r"\b(nvidia|geforce|graphics|gpu)\b", "", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "unknown-gpu"


def cpu_device() -> Device:
    """This machine's CPU as a device."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        name = found.group(1).strip() if found else name
    return Device("cpu", f"{name}, {os.cpu_count()} cores")


def _nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def gpus(nvml: Any = None) -> list[Device]:
    """The NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves visible, in PCI order; none without a driver.

    `nvml` is the module pynvml (nvidia-ml-py), or a fake of it.
    """
    nvml = nvml or _nvml()
    if nvml is None:
        return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        found = [_describe(nvml, i, driver) for i in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()
    return _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _describe(nvml: Any, index: int, driver: str) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = _text(nvml.nvmlDeviceGetName(handle))
    try:
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
        sm_count = nvml.nvmlDeviceGetNumGpuCores(handle) // CORES_PER_SM[capability]
    except (nvml.NVMLError, KeyError):  # an old driver, or a newer architecture than this file knows
        sm_count = None
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total // 2**20
    uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    return Device(device_key(name, sm_count), name, index, uuid, driver, sm_count, memory)


def _visible(found: list[Device], setting: str | None) -> list[Device]:
    """CUDA's own reading of CUDA_VISIBLE_DEVICES: indices or UUID prefixes, up to the first that names nothing."""
    if setting is None:
        return found
    result = []
    for word in (w.strip() for w in setting.split(",")):
        match = [d for d in found if word and (word == str(d.index) or d.uuid.startswith(word))]
        if len(match) != 1:
            break
        result.append(match[0])
    return result


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def choose(flag: str, found: list[Device]) -> Device:
    """The device that --gpu names: auto takes the first GPU, and the CPU where there is none."""
    if flag == "cpu" or (flag == "auto" and not found):
        return cpu_device()
    if flag == "auto":
        return found[0]
    for device in found:
        if device.key == flag:
            return device
    here = ", ".join(f"{d.name} (--gpu {d.key})" for d in found) or f"no NVIDIA GPU, only the CPU {cpu_device().name}"
    valid = ["auto", *dict.fromkeys(d.key for d in found), "cpu"]
    known = list(known_devices())
    hint = did_you_mean(flag, [*valid, *known]) if flag not in known else ""
    keys = f" Known keys: {', '.join(known)}." if flag not in known else ""
    raise UserError(f"--gpu {flag}: not on this machine.{hint} Found: {here}. Valid here: {', '.join(valid)}.{keys}")


def choose_any(flag: str, found: list[Device]) -> Device:
    """As `choose`, or a GPU of gpus.yaml that need not be here, with the memory that it is sold with.

    flag: the `entry_flag` of one of its entries, or a key, which stands for the first of them.
    """
    if flag in ("auto", "cpu", *(d.key for d in found)):
        return choose(flag, found)
    known = [(key, e) for key, entries in known_devices().items() for e in entries if "memory_gib" in e]
    named = [x for x in known if entry_flag(x[1]) == flag] or [x for x in known if x[0] == flag]
    if not named:
        return choose(flag, found)  # which says what is valid
    key, entry = named[0]
    elsewhere = Device(key, entry["name"], ELSEWHERE, "", None, entry["sm_count"], round(entry["memory_gib"] * 1024))
    return next((d for d in found if find_known(d.name, d.sm_count) == named[0]), elsewhere)


def entry_flag(entry: dict[str, Any]) -> str:
    """How --gpu names one entry of gpus.yaml: 'A100 80GB PCIe' is a100-80gb-pcie."""
    return re.sub(r"[^a-z0-9]+", "-", entry["name"].lower())


def visible_index(device: Device, nvml: Any = None) -> int:
    """The GPU's place among the visible ones, which is how torch counts where CUDA_DEVICE_ORDER is PCI_BUS_ID."""
    return [d.uuid for d in gpus(nvml)].index(device.uuid)
