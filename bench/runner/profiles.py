"""Profiles cases, in workers in which nothing is timed."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.case import Case
from bench.devices import Device
from bench.record.causes import Part, Split
from bench.runner.lane import Lane, Lost, job_for
from bench.runner.worker_process import Worker
from bench.timing.settings import MeasureSettings

PassClock = tuple[str, str]


@dataclass(frozen=True)
class Job:
    """One case to profile. medians: in ms, which its causes add up to. log: what its worker prints goes there; jobs of
    one log have one worker, until a case ends it. trace: where a Chrome trace goes."""

    case: Case
    medians: Mapping[PassClock, float]
    log: Path
    trace: Path | None = None


def profiles(
    jobs: Sequence[Job], device: Device, threads: int | None
) -> Generator[dict[PassClock, Split] | Lost, None, None]:
    """What the time of each pass and clock goes into, job by job; or how the worker failed at it, died or hung. Close
    this generator: then no worker is left.

    threads: that a CPU computes with. While a job is at work, the worker of the next one imports what it needs.
    """
    settings = MeasureSettings()
    lanes: dict[Path, Lane] = {}
    try:
        for i, job in enumerate(jobs):
            for due in jobs[i : i + 2]:
                there = lanes.get(due.log)
                if there is None or not there.alive:
                    if there is not None:
                        there.close()
                    models = any(j.case.level != "linear" for j in jobs[i:] if j.log == due.log)
                    lanes[due.log] = Lane(Worker(due.log, settings.timeout_s, models))
            try:
                yield _profile(lanes[job.log], job, device, threads, settings)
            except Lost as e:
                yield e
            if all(later.log != job.log for later in jobs[i + 1 :]):
                lanes.pop(job.log).close()
    finally:
        for lane in lanes.values():
            lane.close()


def _profile(
    lane: Lane, job: Job, device: Device, threads: int | None, settings: MeasureSettings
) -> dict[PassClock, Split]:
    if not lane.greeted:
        lane.greet(job_for(device, settings, threads))
    medians = [[*key, ms] for key, ms in job.medians.items()]
    trace = None if job.trace is None else str(job.trace.absolute())
    splits = lane.ask("explain", "explained", case=job.case.axes(), medians=medians, trace=trace)["splits"]
    return {
        (pass_, clock): Split(**split | {"parts": {cause: Part(**part) for cause, part in split["parts"].items()}})
        for pass_, clock, split in splits
    }
