"""The state of the GPU while it was measured, and where the wall time went, each in one line."""

from collections.abc import Iterable
from datetime import datetime

from plots.data.load import Folder

GAUGES = (("sm_clock_mhz", "SM clock", "MHz"), ("mem_clock_mhz", "memory clock", "MHz"), ("power_w", "power", "W"),
          ("temperature_c", "temperature", "°C"))  # fmt: skip


def conditions(folder: Folder) -> str:
    """'SM clock 1755 to 1980 MHz, power 312 to 690 W, ...; clocks not locked', or nothing where nothing was read."""
    told = []
    for name, words, unit in GAUGES:
        if found := _range(row.get(name) for row in folder.rows):
            told.append(f"{words} {found} {unit}")
    if not told:
        return ""
    held = sum(1 for row in folder.rows if row.get("power_capped"))
    parts = [", ".join(told), f"clocks {folder.clocks_word}"]
    parts += [f"the power cap held the clocks during {held} of {len(folder.rows)} rows"] if held else []
    return "; ".join(parts)


def _range(values: Iterable[float | None]) -> str:
    known = sorted(v for v in values if v is not None)
    if not known:
        return ""
    ends = [f"{v:.0f}" for v in (known[0], known[-1])]
    return " to ".join(dict.fromkeys(ends))


def spent(folder: Folder) -> str:
    """'measuring 162 s (52 %), building 65 s (21 %), ...' over all runs of the record, or nothing."""
    total: dict[str, float] = {}
    for run in folder.invocations:
        for name, seconds in (run.get("spent_s") or {}).items():
            total[name] = total.get(name, 0.0) + seconds
    whole = sum(total.values())
    if whole <= 0:
        return ""
    by_size = sorted(total.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {_seconds(s)} ({100 * s / whole:.0f} %)" for name, s in by_size)
    took = [_took(run) for run in folder.invocations]
    wall = sum(t for t in took if t is not None)
    return told + (f"; {_seconds(wall)} from start to finish" if wall and None not in took else "")


def _seconds(seconds: float) -> str:
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"


def _took(run: dict[str, object]) -> float | None:
    try:
        started, finished = (datetime.fromisoformat(str(run.get(name))) for name in ("started", "finished"))
        return (finished - started).total_seconds()
    except (ValueError, TypeError):
        return None
