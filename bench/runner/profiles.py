"""Profiles a case in a worker of its own, which nothing is timed in."""

from collections.abc import Mapping
from pathlib import Path

from bench.case import Case
from bench.devices import Device, visible_index
from bench.record.causes import Part, Split
from bench.runner.lane import Lane
from bench.runner.worker_process import Worker
from bench.timing.settings import MeasureSettings

PassClock = tuple[str, str]


def profile(
    case: Case,
    medians: Mapping[PassClock, float],
    device: Device,
    threads: int | None,
    log: Path,
    trace: Path | None = None,
) -> dict[PassClock, Split]:
    """What the time of each pass and clock goes into.

    medians: in ms, which the causes add up to. threads: that a CPU computes with. log: what the worker prints goes
    there. trace: where a Chrome trace goes. Raises Lost where the worker failed at it, died or hung.
    """
    settings = MeasureSettings()
    job = {
        "device": "cpu" if device.is_cpu else f"cuda:{visible_index(device)}",
        "gpu_uuid": device.uuid,
        "threads": threads,
        "passes": list(dict.fromkeys(pass_ for pass_, _ in medians)),
        "settings": settings.model_dump(),
        "ceilings": False,
    }
    lane = Lane(Worker(log, settings.timeout_s, models=case.level != "linear"))
    try:
        lane.greet(job)
        given = [[*key, ms] for key, ms in medians.items()]
        lane.send("explain", case=case.axes(), medians=given, trace=None if trace is None else str(trace.absolute()))
        splits = lane.hear("explained")["splits"]
    finally:
        lane.close()
    return {
        (pass_, clock): Split(**split | {"parts": {cause: Part(**part) for cause, part in split["parts"].items()}})
        for pass_, clock, split in splits
    }
