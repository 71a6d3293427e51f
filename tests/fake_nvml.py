"""A fake of the module pynvml: the GPUs of a machine, and what they say of themselves while something runs."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class FakeNvml:
    """As much of pynvml as is asked for.

    devices: (name, compute capability, cores, uuid) each; cores below zero: an old driver does not tell them. `reasons`
    and `pids` are what the next readings find, the last of them for ever; `lacks` is a call, or "everything", that this
    driver does not support; `broken`: no driver is loaded.
    """

    class NVMLError(Exception):
        pass

    def __init__(
        self,
        *devices: tuple[str, tuple[int, int], int, str],
        reasons: list[int] | None = None,
        pids: list[list[int]] | None = None,
        lacks: str = "",
        broken: bool = False,
    ) -> None:
        self.devices, self.broken, self.opened = devices, broken, 0
        self.reasons, self.pids, self.lacks = reasons or [0], pids or [[]], lacks
        self.sm_mhz = [1980]
        self.energy_mj: Callable[[], int] = lambda: 5_000_000  # a counter that stands still
        self.application_mhz = self.default_mhz = 1980

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and object.__getattribute__(self, "lacks") in (name, "everything"):
            raise self.NVMLError("Not Supported")
        return object.__getattribute__(self, name)

    @staticmethod
    def _next(values: list[Any]) -> Any:
        return values.pop(0) if len(values) > 1 else values[0]

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError("driver not loaded")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.159.03"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, i: int) -> Any:
        return self.devices[i]

    def nvmlDeviceGetName(self, device: Any) -> str:
        return device[0]

    def nvmlDeviceGetCudaComputeCapability(self, device: Any) -> tuple[int, int]:
        return device[1]

    def nvmlDeviceGetNumGpuCores(self, device: Any) -> int:
        if device[2] < 0:
            raise self.NVMLError("not supported")
        return device[2]

    def nvmlDeviceGetMemoryInfo(self, device: Any) -> Any:
        return type("Memory", (), {"total": 80 * 2**30})

    def nvmlDeviceGetUUID(self, device: Any) -> str:
        return device[3]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return self._next(self.sm_mhz) if kind == 1 else 3201

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:
        return 1980 if kind == 1 else 3201

    def nvmlDeviceGetApplicationsClock(self, handle: str, kind: int) -> int:
        return self.application_mhz

    def nvmlDeviceGetDefaultApplicationsClock(self, handle: str, kind: int) -> int:
        return self.default_mhz

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 412_345

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.energy_mj()

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 61

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return self._next(self.reasons)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self._next(self.reasons)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in self._next(self.pids)]
