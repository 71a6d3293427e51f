"""Workers beyond the command line: started ahead of their job, and what is kept of a case that ends half-way."""

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.case.clocks import clocks_of
from bench.case.schema import Status
from bench.devices import Device
from bench.record.store import Record, open_record
from bench.runner.progress import Display
from bench.runner.scheduler import Scheduler
from bench.runner.worker_process import Silent, Worker
from bench.sweeps.expand import make_plan
from tests.conftest import SWEEP, is_running, wait_for

ENVIRONMENT = {"gpu": "NVIDIA Test", "source_hash": "0", "torch": "2", "triton": None, "driver": "1"}
PASSES = ("forward", "backward", "forward-backward")
GPU = Device("test", "NVIDIA Test", 0, "GPU-1", "1")


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    return path


def job_of(plan: Any) -> dict[str, Any]:
    return {
        "device": "cpu", "gpu_uuid": "cpu", "cases": [asdict(c) for c in plan.cases[:1]], "passes": plan.passes,
        "clocks": plan.clocks, "settings": plan.settings.model_dump(), "ceilings": False,
    }  # fmt: skip


def test_a_worker_started_ahead_waits_for_its_job(sweep_path: Path, tmp_path: Path) -> None:
    plan = make_plan(str(sweep_path), on_cpu=True)
    with Worker(tmp_path / "a.log", 60, ahead=True) as worker:
        maps = Path(f"/proc/{worker.pid}/maps")
        if maps.exists():
            wait_for(lambda: "libtorch" in maps.read_text())
        assert worker.alive
        worker.send(job_of(plan))
        events = list(worker.events())
        assert worker.wait() == 0, worker.last_words()
    names = [e["event"] for e in events]
    assert names[0] == "hello" and names[-2:] == ["done", "bye"] and "measured" in names


def test_a_worker_that_is_not_needed_after_all_is_gone(tmp_path: Path) -> None:
    with Worker(tmp_path / "a.log", 60, ahead=True) as worker:
        pass
    assert not is_running(worker.pid)


def test_silence_that_was_asked_for_is_no_hang(tmp_path: Path) -> None:
    """An event may ask for more patience until the next one: torch.compile says nothing for minutes."""
    read_end, write_end = os.pipe()
    worker = Worker.__new__(Worker)
    worker._timeout_s, worker._events, worker._buffer = 0.05, read_end, b""

    def say(**event: Any) -> None:
        os.write(write_end, json.dumps(event).encode() + b"\n")

    said = threading.Timer(0.4, lambda: say(event="estimate"))
    say(event="phase", phase="compiling", patience_s=60)
    said.start()
    found = []
    with pytest.raises(Silent, match=r"silent for 0\.05 s"):
        for event in worker.events():
            found.append(event["event"])
    assert found == ["phase", "estimate"]
    os.close(read_end)
    os.close(write_end)


class StubWorker:
    """Says what the test's script says, and takes any job."""

    pid = 1
    made: "list[StubWorker]" = []  # noqa: RUF012
    ends: list[int] = []  # noqa: RUF012
    script: Any = None

    def __init__(self, log: Path, timeout_s: float, ahead: bool = False) -> None:
        self.log, self.ahead, self.alive, self.left = log, ahead, True, False
        self.job: dict[str, Any] = {}
        StubWorker.made.append(self)

    def send(self, job: dict[str, Any]) -> None:
        self.job = job

    def __enter__(self) -> "StubWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True

    def events(self) -> Any:
        yield {"event": "hello", "cuda": "13.0", "gpu_clocks": {"locked": False}}
        for _ in self.job["cases"]:
            yield from StubWorker.script

    def wait(self) -> int:
        return StubWorker.ends.pop(0) if StubWorker.ends else 0

    def last_words(self) -> str:
        return "CUDA error: an illegal memory access"


def measured(clock: str, status: str = "ok", detail: str | None = None) -> dict[str, Any]:
    """A worker's word on one clock."""
    numbers = {"samples_ms": [1.0, 1.1, 0.9], "stop": "converged", "dropped": 0, "refresh_ms": None,
               "launches": 3 if clock == "graph" else None, "sm_clock_mhz": 1980}  # fmt: skip
    series = [
        {"pass": p, "clock": c, "status": status, "detail": detail, **(numbers if status == "ok" else {})}
        for c in clocks_of(clock)
        for p in PASSES
    ]
    return {"event": "measured", "series": series, "peak_mib": 5.0, "model_dropout": 0.0, "clocks_set": True,
            "spent": {"measuring": 1.0}}  # fmt: skip


DONE = {"event": "done", "spent": {"building": 1.0}}


@pytest.fixture
def run(sweep_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the small sweep with clocks eager and graph, on a GPU that is none, under a script of events a case."""
    sweep_path.write_text(SWEEP + "clocks: [eager, graph]\n")
    monkeypatch.setattr("bench.runner.scheduler.visible_index", lambda device: 0)
    monkeypatch.setattr(StubWorker, "made", [])

    def start(*script: dict[str, Any], ends: tuple[int, ...] = (), cases: int = 6) -> tuple[Record, Any]:
        monkeypatch.setattr(StubWorker, "script", script)
        monkeypatch.setattr(StubWorker, "ends", list(ends))
        plan = make_plan(str(sweep_path), on_cpu=False)
        record = open_record(tmp_path / "out", ENVIRONMENT)
        Scheduler(plan, GPU, record, Display(cases), StubWorker).run([(0, c) for c in plan.cases[:cases]])
        statuses: dict[str, set[str]] = {}
        for row in record.rows:
            statuses.setdefault(row["clock"], set()).add(row["status"])
        assert len(record.rows) == cases * 3 * len(PASSES), "eager, host and graph"
        return record, statuses

    return start


def test_the_next_worker_is_started_while_one_measures(run: Any) -> None:
    record, statuses = run(measured("eager"), measured("graph"), DONE)
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"ok"}}
    assert [c.ahead for c in StubWorker.made] == [False, True, True], "a group each: full, lora, paca"
    assert all(c.job and c.left for c in StubWorker.made), "all were used, and are gone"
    assert record.run["gpu_clocks"] == {"locked": True}, "a lock that shows under load"
    row = next(r for r in record.rows if r["clock"] == "graph")
    assert (row["launches"], row["sm_clock_mhz"], row["dropped"], row["peak_mib"]) == (3, 1980, 0, 5.0)


def test_a_worker_started_ahead_that_died_is_replaced(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StubWorker, "alive", property(lambda self: not self.ahead, lambda self, value: None), False)
    _, statuses = run(measured("eager"), measured("graph"), DONE)
    assert statuses["graph"] == {"ok"} and sum(not c.ahead for c in StubWorker.made) == 3
    assert all(c.left for c in StubWorker.made)


def test_a_capture_that_kills_the_worker_keeps_what_was_measured_before(run: Any) -> None:
    record, statuses = run(measured("eager"), ends=(-11,), cases=1)
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"crashed"}}
    row = next(r for r in record.rows if r["clock"] == "graph")
    assert "SIGSEGV" in row["detail"] and row["median_ms"] is None
    samples = (record.folder / "samples.jsonl").read_text().splitlines()
    assert len(samples) == 6, "of eager and host"


def test_a_failure_after_the_first_clock_is_told_of_the_others_alone(run: Any) -> None:
    _, statuses = run(measured("eager"), {"event": "failed", "status": Status.oom, "detail": "CUDA out of memory"})
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"oom"}}


def test_a_wrong_result_takes_its_times_along(run: Any) -> None:
    record, statuses = run(measured("eager"), {"event": "failed", "status": Status.wrong, "detail": "dA differs"})
    assert set().union(*statuses.values()) == {"wrong"}
    assert all(row["median_ms"] is None for row in record.rows)


def test_a_clock_that_is_unsupported_leaves_the_others_their_rows(run: Any) -> None:
    record, statuses = run(measured("eager"), measured("graph", "unsupported", "capture: RuntimeError: no"), DONE)
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"unsupported"}}
    row = next(r for r in record.rows if r["clock"] == "graph")
    assert row["median_ms"] is None and row["n"] is None and row["detail"] == "capture: RuntimeError: no"
