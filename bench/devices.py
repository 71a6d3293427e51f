"""Which GPU is here, asked of NVML, without torch and without a CUDA context in this process."""

import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.yamlfile import load_yaml

# CUDA cores of a streaming multiprocessor by compute capability (CUDA C++ Programming Guide, 'Compute Capabilities').
CORES_PER_SM = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 7): 128, (8, 9): 128, (9, 0): 128, (10, 0): 128}


@dataclass(frozen=True)
class Device:
    """The device a run measures on."""

    key: str  # cpu, a100, ...: names the results folder
    name: str  # the board's full name, or the CPU's
    index: int | None = None  # of the GPU in PCI order; None for the CPU
    uuid: str = "cpu"
    driver: str | None = None
    sm_count: int | None = None
    memory_mib: int | None = None

    @property
    def is_cpu(self) -> bool:
        return self.index is None


@cache
def board_table() -> dict[str, list[dict[str, Any]]]:
    """gpus.yaml: for each key its boards."""
    return load_yaml(Path(__file__).parent / "gpus.yaml").value


def board_key(name: str, sm_count: int | None) -> str:
    """The key of a board; one made from its name where gpus.yaml does not know it."""
    for key, boards in board_table().items():
        for board in boards:
            whole = rf"\b{re.escape(board['name'])}\b"  # H200 is no part of GH200
            if re.search(whole, name) and sm_count in (None, board["sm_count"]):
                return key
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
    return Device(board_key(name, sm_count), name, index, uuid, driver, sm_count, memory)


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
    known = "" if flag in board_table() else f"; known keys: {', '.join(board_table())}"
    raise UserError(f"--gpu {flag}: not on this machine; found {here}; valid here: auto, {_keys(found)}{known}")


def _keys(found: list[Device]) -> str:
    return ", ".join([*dict.fromkeys(d.key for d in found), "cpu"])
