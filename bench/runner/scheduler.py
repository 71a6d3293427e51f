"""The scheduler: hands groups of cases to worker processes, one after the other, and puts what they find on disk.

It never imports torch and never has a CUDA context, so nothing a case does can end the sweep.
"""

import signal
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.case import Case
from bench.case.schema import Status
from bench.devices import Device, visible_index
from bench.methods.registry import impl_of, unsupported
from bench.record.store import Record, Row, now
from bench.roofline.memory import sentence, too_large
from bench.runner.progress import Display
from bench.runner.rows import RowMaker
from bench.runner.worker_process import Event, Silent, Worker
from bench.sweeps.expand import Plan

Task = tuple[int, Case]  # (repeat, case)

# What a run's wall time divides into, in the order of a case's life.
KINDS_OF_WORK = ("starting", "building", "compiling", "checking", "warming up", "measuring", "waiting")


def open_tasks(plan: Plan, record: Record, repeats: int, retry: frozenset[str], tuned: str | None = None) -> list[Task]:
    """What is still to be measured: cases with a row missing, or with a status that is to be retried, or measured by
    our kernels under other tuned tiles than today's."""
    tasks = []
    for repeat in range(repeats):
        for case in plan.cases:
            rows = [record.get((case.case_id, p, c, repeat)) for p, c in plan.row_keys]
            stale = {r.get("tuned") for r in rows if r} != {tuned} and impl_of(case).tuned
            if stale or any(r is None or r["status"] in retry for r in rows):
                tasks.append((repeat, case))
    return tasks


def groups(tasks: list[Task]) -> Iterable[list[Task]]:
    """Tasks that share a worker: one (model, method, impl) of one repeat, neighbours in the sweep's order."""
    for _, group in groupby(tasks, key=lambda t: (t[0], t[1].model, t[1].method, t[1].impl)):
        yield list(group)


class Scheduler:
    """Measures the open tasks of one plan into one record."""

    def __init__(
        self,
        plan: Plan,
        device: Device,
        record: Record,
        display: Display,
        worker: Callable[[Path, float, bool], Worker] = Worker,
    ) -> None:
        """worker: makes a worker from its log, its timeout in seconds, and whether it is started ahead."""
        self._plan = plan
        self._worker = worker
        self._device = device
        self._record = record
        self._display = display
        self._rows = RowMaker(plan, record.run["run_id"], device)
        self._measured: list[Event] = []  # what the case at hand has so far, one event a clock
        self._ahead: Worker | None = None  # started for the next group while this one measures
        self.spent: dict[str, float] = {}  # seconds by what they went into; see KINDS_OF_WORK

    def run(self, tasks: list[Task]) -> None:
        """Measures all tasks. Raises OSError where the record cannot be written; what is on disk stays."""
        started = perf_counter()
        waiting = deque(groups([t for t in tasks if not self._refused(*t)]))
        self.spent = dict.fromkeys(KINDS_OF_WORK, 0.0) if waiting else {}
        try:
            while waiting:
                pending = deque(waiting.popleft())
                following = waiting[0][0][1] if waiting else None
                while pending:
                    self._one_worker(pending, following)
        finally:
            if self._ahead is not None:
                self._ahead.__exit__()
            if self.spent:  # the rest: pauses for the GPU to come to rest, ends of processes, writing to disk
                self.spent["waiting"] = max(0.0, perf_counter() - started - sum(self.spent.values()))

    def _refused(self, repeat: int, case: Case) -> bool:
        """Writes the rows of a case that its impl cannot express here, or that cannot fit: no worker is needed."""
        reason, status = unsupported(case, "cpu" if self._device.is_cpu else "cuda"), Status.unsupported
        if reason is None:
            reason, status = too_large(case, "step" in self._plan.passes, self._device.memory_mib), Status.oom
        if reason:
            self._write(case, self._rows.failed(case, repeat, None, status, reason), [])
        return bool(reason)

    def _job(self, cases: list[Case]) -> dict[str, Any]:
        return {
            "device": "cpu" if self._device.is_cpu else f"cuda:{visible_index(self._device)}",
            "gpu_uuid": self._device.uuid,
            "cases": [asdict(c) for c in cases],
            "passes": self._plan.passes,
            "clocks": self._plan.clocks,
            "settings": self._plan.settings.model_dump(),
            "ceilings": not self._device.is_cpu and "ceilings" not in self._record.run,
        }

    def _log(self, case: Case) -> Path:
        name = f"{case.model or case.level}-{case.method}-{case.impl}.log".replace("/", "_")
        return self._record.folder / "logs" / name

    def _start(self, case: Case, ahead: bool = False) -> Worker:
        """A worker for the case's group, which waits for its job."""
        return self._worker(self._log(case), self._plan.settings.timeout_s, ahead)

    def _worker_for(self, case: Case) -> Worker:
        """The worker that was started ahead for this group, if it lives; else a new one."""
        ahead = self._ahead
        if ahead is None or ahead.log != self._log(case):
            return self._start(case)
        self._ahead = None
        if ahead.alive:
            return ahead
        ahead.__exit__()
        return self._start(case)

    def _one_worker(self, pending: deque[Task], following: Case | None) -> None:
        """Runs one worker over the pending tasks until all are done or the worker has ended. Shortens `pending`."""
        case = pending[0][1]
        self._display.begin(case)
        self._measured = []
        started = perf_counter()
        with self._worker_for(case) as worker:
            worker.send(self._job([c for _, c in pending]))
            process = f"{worker.pid}-{now()}"
            greeted = False
            try:
                for event in worker.events():
                    for what, seconds in event.get("spent", {}).items():
                        self._spend(what, seconds)
                    if event["event"] == "hello":
                        greeted = True
                        self._record.run.setdefault("cuda", event["cuda"])
                        self._record.run.setdefault("gpu_clocks", event["gpu_clocks"])
                        self._spend("starting", perf_counter() - started)
                        # On a GPU alone: on a CPU the imports would disturb what is measured.
                        if following is not None and self._ahead is None and not self._device.is_cpu:
                            self._ahead = self._start(following, ahead=True)
                    elif event["event"] == "ceilings":
                        self._record.run["ceilings"] = event["found"]
                    elif event["event"] == "measured":
                        self._measured.append(event)
                        self._note_clocks(event)
                    elif event["event"] in ("done", "failed"):
                        self._finish(*pending.popleft(), process, event)
                        if pending:
                            self._display.begin(pending[0][1])
                    else:
                        self._display.event(event)
            except Silent as e:
                worker.kill()
                self._give_up(*pending.popleft(), process, Status.timeout, f"{e}; killed")
                return
            code = worker.wait()
            if code == 0 or not pending:
                return
            status, detail = _how_it_ended(code, worker.last_words())
            self._give_up(*pending.popleft(), process, status, detail)
            while pending and not greeted and status is Status.error:
                self._give_up(*pending.popleft(), process, status, detail)  # it cannot start: no use in trying again

    def _finish(self, repeat: int, case: Case, process: str, event: dict[str, Any]) -> None:
        if event["event"] == "failed":
            self._give_up(repeat, case, process, Status(event["status"]), event["detail"])
            return
        rows, samples = self._take_measured(repeat, case, process)
        self._write(case, rows, samples)

    def _give_up(self, repeat: int, case: Case, process: str, status: Status, detail: str) -> None:
        """The rows that a case still lacks get this status. Clocks that were done before keep theirs, unless the
        results turned out wrong."""
        if status is Status.wrong:
            self._measured = []
        if status is Status.oom:
            detail = f"{sentence(case, 'step' in self._plan.passes)}. {detail}"
        rows, samples = self._take_measured(repeat, case, process)
        self._write(case, rows + self._rows.failed(case, repeat, process, status, detail, rows), samples)

    def _take_measured(self, repeat: int, case: Case, process: str) -> tuple[list[Row], list[Row]]:
        """(rows, sample lines) of the clocks that are done, in one go; the next case begins without any."""
        found = [self._rows.measured(case, repeat, process, event) for event in self._measured]
        self._measured = []
        return [r for rows, _ in found for r in rows], [s for _, samples in found for s in samples]

    def _write(self, case: Case, rows: list[Row], samples: list[Row]) -> None:
        self._record.add(rows, samples)
        self._display.finish(case, rows)

    def _note_clocks(self, event: Event) -> None:
        """Locked clocks show only under load, when they hold the GPU back."""
        clocks = self._record.run.get("gpu_clocks")
        if clocks is not None and event["clocks_set"]:
            clocks["locked"] = True

    def _spend(self, what: str, seconds: float) -> None:
        self.spent[what] += seconds


def _how_it_ended(code: int, last_words: str) -> tuple[Status, str]:
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        hint = " (the kernel's out-of-memory killer sends it too)" if -code == signal.SIGKILL else ""
        return Status.crashed, f"the worker was ended by {name}{hint}"
    return Status.error, f"the worker ended with status {code}: {last_words}"


def exit_status(plan: Plan, record: Record, repeats: int, strict: bool) -> int:
    """0 where every row of the plan is measured or unsupported, else 1. Noisy rows count only under --strict."""
    for repeat in range(repeats):
        for case in plan.cases:
            for p, c in plan.row_keys:
                row = record.get((case.case_id, p, c, repeat))
                if row is None or row["status"] not in (Status.ok, Status.unsupported):
                    return 1
                if strict and row["noisy"]:
                    return 1
    return 0


def default_folder(device: Device, plan: Plan) -> Path:
    """results/<key>/<sweep>, from where the command was given."""
    return Path("results") / device.key / plan.path.stem
