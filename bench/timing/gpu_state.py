"""Is the GPU in a fit state? Asked of NVML between blocks of samples, never inside a timed part.

What NVML does not tell is None: unknown, never a failure. Clocks are read, never set.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.timing.settings import MeasureSettings

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h), here so that an older nvidia-ml-py without the names will do.
CLOCKS_SET = 0x2  # somebody set or locked the clocks, and that is what holds them
POWER_CAP = 0x4
SLOWDOWNS = {0x8: "HwSlowdown", 0x20: "SwThermalSlowdown", 0x40: "HwThermalSlowdown", 0x80: "HwPowerBrakeSlowdown"}

SM, MEMORY, TEMPERATURE = 1, 2, 0  # NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU


@dataclass(frozen=True)
class Reading:
    """What NVML said at one moment."""

    sm_clock_mhz: int | None = None
    mem_clock_mhz: int | None = None
    power_w: float | None = None
    temperature_c: int | None = None
    reasons: int | None = None  # bits, see above
    others: tuple[int, ...] = ()  # process ids of others with a CUDA context on this GPU

    @property
    def slowdowns(self) -> list[str]:
        """Why the GPU runs below the clocks it should have, in NVML's words."""
        return [name for bit, name in SLOWDOWNS.items() if (self.reasons or 0) & bit]


class GpuState:
    """One GPU as NVML sees it. Make it before the process has a CUDA context, and call `mark_own` when it has one.

    nvml: the module pynvml, initialized, or a fake of it. NVML's process ids are those of the host: inside a container
    with process ids of its own a process does not find itself. The one that came with the context is then taken to be
    this one.
    """

    def __init__(self, nvml: Any, handle: Any, pid: int | None = None) -> None:
        self._nvml = nvml
        self._handle = handle
        self._pid = os.getpid() if pid is None else pid
        self._before = self._processes()
        self.own: set[int] = {self._pid}
        self.siblings: set[int] = set()  # processes of the same run, which are idle while this one measures

    def mark_own(self) -> None:
        """The CUDA context is there: whichever process is new on the GPU is this one."""
        new = self._processes() - self._before
        if self._pid not in new and new:
            self.own = {min(new)}  # of several, one is this process and the others are others, whichever it is

    def read(self) -> Reading:
        power = self._ask("nvmlDeviceGetPowerUsage")
        return Reading(
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", SM),
            mem_clock_mhz=self._ask("nvmlDeviceGetClockInfo", MEMORY),
            power_w=None if power is None else power / 1e3,
            temperature_c=self._ask("nvmlDeviceGetTemperature", TEMPERATURE),
            reasons=self._reasons(),
            others=tuple(sorted(self._processes() - self.own - self.siblings)),
        )

    def energy_mj(self) -> int | None:
        """What the GPU has used since its driver was loaded, in mJ; None where it does not count."""
        found: int | None = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return found

    def clocks(self) -> dict[str, Any]:
        """How the clocks are set, in MHz, for the record. `locked` is None where NVML does not tell.

        NVML tells of application clocks that differ from the default, and by an event reason that set or locked clocks
        hold the GPU back; a lock (nvidia-smi -lgc) above what the GPU would choose itself stays unseen.
        """
        found = {
            "sm_max_mhz": self._ask("nvmlDeviceGetMaxClockInfo", SM),
            "mem_max_mhz": self._ask("nvmlDeviceGetMaxClockInfo", MEMORY),
            "sm_application_mhz": self._ask("nvmlDeviceGetApplicationsClock", SM),
            "sm_default_mhz": self._ask("nvmlDeviceGetDefaultApplicationsClock", SM),
        }
        reasons, chosen, default = self._reasons(), found["sm_application_mhz"], found["sm_default_mhz"]
        known = reasons is not None or None not in (chosen, default)
        locked = bool((reasons or 0) & CLOCKS_SET) or (None not in (chosen, default) and chosen != default)
        return found | {"locked": locked if known else None}

    def _reasons(self) -> int | None:
        found = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        return self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") if found is None else found

    def _processes(self) -> set[int]:
        return {p.pid for p in self._ask("nvmlDeviceGetComputeRunningProcesses") or []}

    def _ask(self, function: str, *arguments: int) -> Any:
        """The answer, or None where this NVML, driver or GPU has none."""
        try:
            return getattr(self._nvml, function)(self._handle, *arguments)
        except (self._nvml.NVMLError, AttributeError):
            return None


def open_state(uuid: str | None, nvml: Any = None) -> GpuState | None:
    """The state of the GPU with this UUID; None without NVML. NVML stays open for the rest of the process."""
    if uuid is None:
        return None
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return None
        nvml = pynvml
    try:
        nvml.nvmlInit()
        return GpuState(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError:
        return None


def summary(readings: list[Reading]) -> dict[str, Any]:
    """The readings of a measurement as columns of its rows: medians; of the temperature the highest; and in which share
    of them the power cap held the clocks."""

    def known(name: str) -> list[Any]:
        return [value for r in readings if (value := getattr(r, name)) is not None]

    reasons = known("reasons")
    return {
        "sm_clock_mhz": median(known("sm_clock_mhz")) if known("sm_clock_mhz") else None,
        "mem_clock_mhz": median(known("mem_clock_mhz")) if known("mem_clock_mhz") else None,
        "power_w": round(median(known("power_w")), 1) if known("power_w") else None,
        "temperature_c": max(known("temperature_c"), default=None),
        "power_capped": round(sum(bool(r & POWER_CAP) for r in reasons) / len(reasons), 3) if reasons else None,
    }


class Rests:
    """Pauses for a throttled GPU: each longer than the last, up to a limit, and only so many."""

    def __init__(self, settings: MeasureSettings, sleep: Callable[[float], None]) -> None:
        self._settings = settings
        self._sleep = sleep
        self.taken = 0

    def take(self) -> bool:
        """Sleeps once. False, without sleeping, where it has rested as often as it may."""
        s = self._settings
        if self.taken >= s.max_rests:
            return False
        self._sleep(min(s.rest_s * s.rest_growth**self.taken, s.rest_max_s))
        self.taken += 1
        return True
