"""The scheduler: has comparisons measured by worker processes, one after the other, and puts what they find on disk.

It never imports torch and never has a CUDA context, so nothing a case does can end the sweep.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.case import Case
from bench.case.clocks import CLOCKS
from bench.case.schema import Status
from bench.devices import Device
from bench.methods.registry import unsupported
from bench.record.store import Record, now
from bench.roofline.memory import sentence, too_large
from bench.runner.fit import fits
from bench.runner.lane import Lane, Lost, job_for
from bench.runner.plan import Task, baseline_of, comparisons
from bench.runner.progress import Display
from bench.runner.rounds import LOST, Rounds
from bench.runner.rows import Company, RowMaker
from bench.runner.seat import Seat
from bench.runner.worker_process import Event, Worker
from bench.sweeps.expand import Plan

# What a run's wall time divides into, in the order of a case's life.
KINDS_OF_WORK = ("starting", "building", "compiling", "checking", "warming up", "measuring", "waiting")

LaneKey = tuple[str, str, int]  # method, impl, and a number where a comparison has several of them


class Scheduler:
    """Measures the open tasks of one plan into one record."""

    def __init__(
        self,
        plan: Plan,
        device: Device,
        record: Record,
        display: Display,
        threads: int | None = None,
        worker: Callable[[Path, float, bool], Worker] = Worker,
        side_by_side: int = 1,
    ) -> None:
        """threads: that a CPU computes with; None leaves it to torch.
        worker: makes a worker from its log, its timeout in seconds, and whether it needs models.
        side_by_side: how many workers may be busy at once with what is not timed."""
        self._plan, self._device, self._record, self._display = plan, device, record, display
        self._threads, self._worker, self._side_by_side = threads, worker, side_by_side
        self._rows = RowMaker(plan, record.run["run_id"], device, threads)
        self._lanes: dict[LaneKey, Lane] = {}
        self._hopeless: dict[LaneKey, Lost] = {}  # lanes whose workers cannot start
        self._told: dict[str, float] = {}  # seconds by kind of work, as workers tell them within a stage
        self.spent: dict[str, float] = {}  # seconds by what they went into; see KINDS_OF_WORK
        self.refused: list[tuple[Case, str]] = []  # what cannot run here, with the reason

    def refuse(self, tasks: list[Task]) -> list[Task]:
        """Writes the rows of the cases that an impl cannot express here, or that cannot fit, for which no worker is
        needed; the others."""
        timed = []
        for repeat, case in tasks:
            reason, status = self._reason(case)
            if reason is None:
                timed.append((repeat, case))
                continue
            self._record.add(self._rows.failed(case, repeat, None, status, reason), [])
            self.refused.append((case, reason))
        return timed

    def run(self, tasks: list[Task]) -> None:
        """Measures tasks that `refuse` has left. Raises OSError where the record cannot be written; what is on disk
        stays."""
        began = perf_counter()
        self._display.expect(len(tasks), self._plan.settings.budget(tasks[0][1].level) if tasks else 0)
        self.spent = dict.fromkeys(KINDS_OF_WORK, 0.0) if tasks else {}
        repeat = None
        try:
            for group in comparisons(tasks):
                if group[0][0] != repeat:  # each repeat has processes of its own
                    self._close_lanes()
                repeat = group[0][0]
                self._compare(group)
        finally:
            self._close_lanes()
            if self.spent:  # the rest: ends of processes, writing to disk
                self.spent["waiting"] = max(0.0, perf_counter() - began - sum(self.spent.values()))

    def _reason(self, case: Case) -> tuple[str | None, Status]:
        reason, status = unsupported(case, "cpu" if self._device.is_cpu else "cuda"), Status.unsupported
        if reason is None:
            reason, status = too_large(case, self._step, self._device.memory_mib), Status.oom
        return reason, status

    @property
    def _step(self) -> bool:
        return "step" in self._plan.passes

    def _compare(self, tasks: list[Task]) -> None:
        """Measures the open cases of one comparison, beside one another where they fit."""
        repeat, first = tasks[0]
        seats = [Seat(case, repeat) for _, case in tasks]
        expressible = [c for c in self._plan.cases if c.alike == first.alike and self._reason(c)[0] is None]
        base = baseline_of(expressible)
        if base is not None and base not in [s.case for s in seats]:
            seats.insert(0, Seat(base, repeat, recorded=False))
        seats.sort(key=lambda s: s.case != base)
        self._display.begin(first)
        if len(seats) == 1:
            again: list[Seat] = []
            self._together(seats, "nothing")
        elif fits([s.case for s in seats], self._step, self._device):
            again = self._together(seats, "comparison")
        else:
            again = []
            for other in seats[1:]:
                if fits([seats[0].case, other.case], self._step, self._device):
                    company = Seat(seats[0].case, repeat, seats[0].recorded)
                    again += self._together([company, other], "baseline")
                    seats[0].recorded &= company in again  # one row of the baseline is enough
                else:
                    again.append(other)
            again = [*([seats[0]] if seats[0].recorded else []), *(s for s in again if s.case != seats[0].case)]
        for seat in again:
            self._together([Seat(seat.case, repeat)], "nothing")
        self._display.end()

    def _together(self, seats: list[Seat], beside: str) -> list[Seat]:
        """Measures cases whose workers live side by side; those that were lost beside others, to be tried alone."""
        with self._stage("starting"):
            self._enter(seats)
        turns = f"{now()} {seats[0].case.case_id}"
        for clock in self._plan.clocks:
            live = [s for s in seats if s.live]
            with self._stage("measuring"):
                if len(live) > 1 and CLOCKS[clock].in_rounds:
                    self._in_rounds(live, clock)
                else:
                    for seat in live:
                        self._display.working(seat.case)
                        seat.ask("alone", "measured", clock=clock)
        with self._stage("waiting"):
            self._at_once([s for s in seats if s.lost is None], "finish", "done")
        base = seats[0] if len(seats) > 1 else None
        company = Company(turns, beside, base.case.case_id if base else None, base.results if base else [])
        again = [s for s in seats if s.recorded and len(seats) > 1 and self._deserves_another_try(s)]
        for seat in seats:
            if seat.recorded and seat not in again:
                self._write(seat, company)
        return again

    @staticmethod
    def _deserves_another_try(seat: Seat) -> bool:
        """Whether neighbours may have been the reason."""
        return seat.lost is not None and (seat.in_rounds or seat.lost.status is Status.oom)

    def _enter(self, seats: list[Seat]) -> None:
        """Gives each case its lane, and has it checked and built there."""
        keys: list[LaneKey] = []
        for seat in seats:
            method, impl = seat.case.method, seat.case.impl
            keys.append((method, impl, sum(k[:2] == (method, impl) for k in keys)))
        new = [key for key, seat in zip(keys, seats, strict=True) if self._open_lane(key, seat.case)]
        for key, seat in zip(keys, seats, strict=True):
            seat.lane, seat.lost = self._lanes.get(key), self._hopeless.get(key)
            if key in new:
                self._greet(key, seat)
        for seat in seats:
            seat.siblings = sorted({p for lane in self._lanes.values() if lane is not seat.lane for p in lane.own})
        self._at_once(seats, "prepare", "prepared", lambda s: {"case": s.case.axes()})

    def _open_lane(self, key: LaneKey, case: Case) -> bool:
        """Starts a worker where the lane has none that lives, and does not wait for it; whether it did."""
        lane = self._lanes.pop(key, None)
        if key in self._hopeless:
            return False
        if lane is not None and lane.alive:
            self._lanes[key] = lane
            return False
        name = "-".join(str(part) for part in key if part).replace("/", "_")
        log = self._record.folder / "logs" / f"{name}.log"
        worker = self._worker(log, self._plan.settings.timeout_s, case.level != "linear")
        self._lanes[key] = Lane(worker, self._heard)
        return True

    def _greet(self, key: LaneKey, seat: Seat) -> None:
        assert seat.lane is not None
        self._display.working(seat.case)
        plan, ceilings = self._plan, "ceilings" not in self._record.run
        job = job_for(self._device, plan.settings, self._threads, plan.passes, ceilings)
        try:
            hello = seat.lane.greet(job)
            if ceilings:  # once a record, and before another worker is on the device
                seat.lane.hear("ceilings")
        except Lost as e:
            seat.lost = e
            if e.early:
                self._hopeless[key] = e
            return
        self._record.run.setdefault("cuda", hello["cuda"])
        self._record.run.setdefault("gpu_clocks", hello["gpu_clocks"])

    def _in_rounds(self, live: list[Seat], clock: str) -> None:
        self._at_once(live, "begin", "begun", lambda _: {"clock": clock})
        ready = [s for s in live if s.lost is None]
        keys = [(p, clock) for p in self._plan.passes]
        rounds = Rounds(ready, keys, live[0].case.level, self._plan.settings, perf_counter)
        stop = rounds.run(self._display.round)
        for seat in ready:
            if stop == LOST:  # all others; a few rounds say too little
                seat.ask("alone", "measured", clock=clock)
            else:
                seat.ask("end", "measured", stop=stop)
        for seat in live:
            seat.in_rounds = seat.lost is not None

    def _at_once(
        self, seats: Iterable[Seat], do: str, answer: str, values: Callable[[Seat], dict[str, Any]] = lambda _: {}
    ) -> None:
        """A command to all of them, a few at a time."""
        waiting, busy = deque(seats), deque[Seat]()
        while waiting or busy:
            while waiting and len(busy) < self._side_by_side:
                seat = waiting.popleft()
                seat.send(do, **values(seat))
                busy.append(seat)
            self._display.working(busy[0].case)
            busy.popleft().hear(answer)

    def _heard(self, event: Event) -> None:
        for what, seconds in event.get("spent", {}).items():
            self._told[what] = self._told.get(what, 0.0) + seconds
        if event["event"] == "ceilings":
            self._record.run["ceilings"] = event["found"]
        elif event["event"] == "measured" and event["clocks_set"]:
            # Locked clocks show only under load, when they hold the GPU back.
            clocks = self._record.run.get("gpu_clocks")
            if clocks is not None:
                clocks["locked"] = True
        else:
            self._display.event(event)

    @contextmanager
    def _stage(self, otherwise: str) -> Iterator[None]:
        """Divides the wall time of a stage by what the workers say they did; the rest goes to `otherwise`."""
        began = perf_counter()
        self._told = {}
        try:
            yield
        finally:
            wall, told = perf_counter() - began, sum(self._told.values())
            for what, seconds in self._told.items():  # workers that are busy side by side tell more than the wall time
                self.spent[what] += seconds * min(1.0, wall / told) if told else 0.0
            self.spent[otherwise] += max(0.0, wall - told)

    def _write(self, seat: Seat, company: Company) -> None:
        """Puts a case on disk. The rows that it still lacks get the status of what it was lost to. Clocks that were
        done before keep theirs, unless the results turned out wrong."""
        lost = seat.lost
        found = [self._rows.measured(seat.case, seat.repeat, seat.process or "", e, company) for e in seat.results]
        rows = [r for part, _ in found for r in part]
        samples = [s for _, part in found for s in part]
        if lost is not None:
            detail = lost.detail
            if lost.status is Status.oom:
                detail = f"{sentence(seat.case, self._step)}. {detail}"
            rows += self._rows.failed(seat.case, seat.repeat, seat.process, lost.status, detail, rows)
        self._record.add(rows, samples)
        self._display.finish(seat.case, rows)

    def _close_lanes(self) -> None:
        for lane in self._lanes.values():
            lane.close()
        self._lanes = {}
