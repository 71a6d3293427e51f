"""Workers beyond the command line: started ahead of their job, and what is kept of a case that ends half-way."""

import json
import os
import threading
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bench.case.clocks import clocks_of
from bench.case.schema import Status
from bench.devices import Device
from bench.record.store import Record, open_record
from bench.runner.lane import Lane
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
        "device": "cpu", "gpu_uuid": "cpu", "threads": 1, "passes": plan.passes,
        "settings": plan.settings.model_dump(), "ceilings": False,
    }  # fmt: skip


def test_a_worker_waits_for_its_job_and_then_for_each_command(sweep_path: Path, tmp_path: Path) -> None:
    plan = make_plan(str(sweep_path), on_cpu=True)
    with Worker(tmp_path / "a.log", 60, models=True) as worker:
        maps = Path(f"/proc/{worker.pid}/maps")
        if maps.exists():
            wait_for(lambda: "libtorch" in maps.read_text())
        assert worker.alive
        lane = Lane(worker)
        lane.greet(job_of(plan))
        lane.ask("prepare", "prepared", case=asdict(plan.cases[0]))
        lane.ask("begin", "begun", clock="cpu-time")
        blocks = [lane.ask("block", "block", number=i, seconds=0.01)["samples"] for i in range(3)]
        measured = lane.ask("end", "measured", stop="rounds")
        lane.ask("finish", "done")
        lane.ask("bye", "bye")
        assert worker.wait() == 0, worker.last_words()
    taken = {(p, c): [ms for block in blocks for q, d, part in block if (p, c) == (q, d) for ms in part]
             for p, c, _ in blocks[0]}  # fmt: skip
    for series in measured["series"]:
        assert series["samples_ms"] == taken[series["pass"], series["clock"]], (
            "the record has the blocks, in their order"
        )
        assert set(series["rounds"]) == {0, 1, 2} and len(series["rounds"]) == len(series["samples_ms"])


def test_a_worker_that_is_not_needed_after_all_is_gone(tmp_path: Path) -> None:
    with Worker(tmp_path / "a.log", 60) as worker:
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
    """Answers each command at once; `script` changes what it says to the commands of a case."""

    pid = 1
    made: "list[StubWorker]" = []  # noqa: RUF012
    ends: list[int] = []  # noqa: RUF012
    script: Any = None

    def __init__(self, log: Path, timeout_s: float, models: bool = False) -> None:
        self.log, self.alive, self.closed = log, True, False
        self.job: dict[str, Any] | None = None
        self.commands: list[dict[str, Any]] = []
        StubWorker.made.append(self)

    def send(self, command: dict[str, Any]) -> None:
        if self.job is None:
            self.job = command
        else:
            self.commands.append(command)

    def __exit__(self, *_: object) -> None:
        self.alive, self.closed = False, True

    def events(self) -> Any:
        yield {"event": "hello", "own": [7], "cuda": "13.0", "gpu_clocks": {"locked": False}}
        if self.job and self.job["ceilings"]:
            yield {"event": "ceilings", "found": {"bf16": 989.0}}
        for i in count():  # whoever asks for the next event has sent a command before
            answer = StubWorker.script(self, self.commands[i])
            if answer is None:
                return
            yield answer

    def wait(self) -> int:
        return StubWorker.ends.pop(0) if StubWorker.ends else 0

    def last_words(self) -> str:
        return "CUDA error: an illegal memory access"


def answer(worker: StubWorker, command: dict[str, Any]) -> dict[str, Any]:
    """What a worker says when all goes well."""
    match command["do"]:
        case "prepare":
            return {"event": "prepared", "spent": {"building": 1.0}}
        case "begin":
            return {"event": "begun"}
        case "block":
            keys = [(p, c) for c in clocks_of("eager") for p in PASSES]
            return {"event": "block", "samples": [[p, c, [2.0, 2.1]] for p, c in keys]}
        case "end":
            begun = max(i for i, c in enumerate(worker.commands) if c["do"] == "begin")
            rounds = [c["number"] for c in worker.commands[begun:] if c["do"] == "block"]
            return measured("eager", rounds=[r for r in rounds for _ in range(2)])
        case "alone":
            return measured(command["clock"])
        case _:
            return {"event": "done", "last": False}


def measured(clock: str, status: str = "ok", detail: str | None = None, rounds: Any = None) -> dict[str, Any]:
    """A worker's word on one clock."""
    samples = [1.0, 1.1, 0.9] if rounds is None else [2.0, 2.1] * (len(rounds) // 2)
    numbers = {"samples_ms": samples, "stop": "converged", "dropped": 0, "refresh_ms": None,
               "launches": 3 if clock == "graph" else None, "sm_clock_mhz": 1980,
               **({} if rounds is None else {"rounds": rounds})}  # fmt: skip
    series = [
        {"pass": p, "clock": c, "status": status, "detail": detail, **(numbers if status == "ok" else {})}
        for c in clocks_of(clock)
        for p in PASSES
    ]
    return {"event": "measured", "series": series, "peak_mib": 5.0, "model_dropout": 0.0, "clocks_set": True,
            "spoiled": False, "spent": {"measuring": 1.0}}  # fmt: skip


@pytest.fixture
def run(sweep_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the small sweep with clocks eager and graph, on a GPU that is none. `says(worker, command)` gives a worker's
    answer, None where it dies; the first `cases` of the first comparison are measured."""
    sweep_path.write_text(SWEEP + "clocks: [eager, graph]\n")
    monkeypatch.setattr("bench.runner.scheduler.visible_index", lambda device: 0)
    monkeypatch.setattr(StubWorker, "made", [])

    def start(says: Any = answer, ends: tuple[int, ...] = (), cases: int = 6, gpu: Device = GPU) -> tuple[Record, Any]:
        monkeypatch.setattr(StubWorker, "script", staticmethod(says))
        monkeypatch.setattr(StubWorker, "ends", list(ends))
        plan = make_plan(str(sweep_path), on_cpu=False)
        record = open_record(tmp_path / "out", ENVIRONMENT)
        tasks = sorted(((0, c) for c in plan.cases), key=lambda t: t[1].layer or "")[:cases]
        if cases == 1:  # nothing to compare with
            plan = replace(plan, cases=(tasks[0][1],))
        Scheduler(plan, gpu, record, Display(), worker=StubWorker).run(tasks)
        statuses: dict[str, set[str]] = {}
        for row in record.rows:
            statuses.setdefault(row["clock"], set()).add(row["status"])
        assert len(record.rows) == cases * 3 * len(PASSES), "eager, host and graph"
        return record, statuses

    return start


def rows_by_method(record: Record, clock: str, pass_: str = "forward-backward", layer: str = "square-48") -> Any:
    return {r["method"]: r for r in record.rows if (r["clock"], r["pass"], r["layer"]) == (clock, pass_, layer)}


def test_one_worker_a_method_measures_all_comparisons(run: Any) -> None:
    record, statuses = run()
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"ok"}}
    assert len(StubWorker.made) == 3 and all(w.closed for w in StubWorker.made), "full, lora, paca; and all are gone"
    for worker in StubWorker.made:
        assert [c["do"] for c in worker.commands if c["do"] in ("prepare", "finish")] == ["prepare", "finish"] * 2
        assert {tuple(c["siblings"]) for c in worker.commands} == {(7,)}, "NVML's ids of those that wait"
    assert record.run["gpu_clocks"] == {"locked": True}, "a lock that shows under load"
    assert record.run["ceilings"] == {"bf16": 989.0}
    assert [w.job["ceilings"] for w in StubWorker.made if w.job] == [True, False, False], "measured once"
    row = next(r for r in record.rows if r["clock"] == "graph")
    assert (row["launches"], row["sm_clock_mhz"], row["dropped"], row["peak_mib"]) == (3, 1980, 0, 5.0)
    assert (row["beside"], row["rounds"], row["ratio"]) == ("nothing", None, None), "graphs are measured alone"
    eager = rows_by_method(record, "eager")
    assert {r["beside"] for r in eager.values()} == {"comparison"} and eager["lora"]["rounds"] >= 12
    assert {r["ratio_to"] for r in eager.values()} == {eager["full"]["case_id"]}
    assert (eager["lora"]["ratio"], eager["full"]["ratio_low"]) == (1.0, 1.0)
    assert rows_by_method(record, "host")["paca"]["ratio"] == 1.0


def test_what_does_not_fit_beside_the_others_takes_turns_with_the_baseline(run: Any) -> None:
    """Room for two processes of a small layer, and not for three."""
    record, statuses = run(cases=3, gpu=replace(GPU, memory_mib=2600))
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"ok"}}
    eager = rows_by_method(record, "eager")
    assert {m: r["beside"] for m, r in eager.items()} == dict.fromkeys(("full", "lora", "paca"), "baseline")
    assert eager["paca"]["ratio_to"] == eager["full"]["case_id"]
    prepared = sum(c["do"] == "prepare" for w in StubWorker.made for c in w.commands)
    assert prepared == 4, "the baseline twice, of which one is on record"


def test_what_fits_beside_nothing_is_measured_alone(run: Any) -> None:
    record, statuses = run(cases=3, gpu=replace(GPU, memory_mib=1300))
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"ok"}}
    assert {r["beside"] for r in record.rows} == {"nothing"} and {r["ratio_to"] for r in record.rows} == {None}


def dies_once(method: str, in_block: int) -> Any:
    """A worker of `method` dies in a block of a round; the one that comes after it does not."""
    dead: list[StubWorker] = []

    def says(worker: StubWorker, command: dict[str, Any]) -> dict[str, Any] | None:
        ours = method in worker.log.name and not dead
        if ours and command["do"] == "block" and command["number"] == in_block:
            dead.append(worker)
            return None
        return answer(worker, command)

    return says


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_case_that_dies_in_a_round_is_measured_alone_and_costs_the_others_nothing(run: Any, method: str) -> None:
    record, statuses = run(dies_once(method, 4), ends=(-9,), cases=3)
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"ok"}}
    eager = rows_by_method(record, "eager")
    assert {m: r["beside"] for m, r in eager.items()} == {
        m: "nothing" if m == method else "comparison" for m in ("full", "lora", "paca")
    }
    others = [r for m, r in eager.items() if m != method]
    assert all(r["rounds"] >= 12 for r in others)
    expected = {None} if method == "full" else {eager["full"]["case_id"]}
    assert {r["ratio_to"] for r in others} == expected, "no ratio to what was not there to the end"


def test_a_case_that_dies_again_has_its_status(run: Any) -> None:
    def says(worker: StubWorker, command: dict[str, Any]) -> dict[str, Any] | None:
        dies = "lora" in worker.log.name and command["do"] in ("block", "alone")
        return None if dies else answer(worker, command)

    record, _ = run(says, ends=(-9, -9), cases=3)
    eager = rows_by_method(record, "eager")
    assert [eager[m]["status"] for m in ("full", "lora", "paca")] == ["ok", "crashed", "ok"]


def test_a_case_that_never_gets_into_its_rounds_is_not_tried_again(run: Any) -> None:
    def says(worker: StubWorker, command: dict[str, Any]) -> dict[str, Any]:
        if "lora" in worker.log.name and command["do"] == "prepare":
            return {"event": "failed", "status": Status.wrong, "detail": "dA differs", "last": False}
        return answer(worker, command)

    record, _ = run(says, cases=3)
    assert rows_by_method(record, "eager")["lora"]["status"] == "wrong"
    assert rows_by_method(record, "eager")["paca"]["beside"] == "comparison"
    assert len(StubWorker.made) == 3


def alone(**says: Any) -> Any:
    """A worker whose answers to some commands are these; None: it dies."""
    return lambda worker, command: says[command["do"]] if command["do"] in says else answer(worker, command)


def on_graph(said: Any) -> Any:
    return lambda worker, command: said if command.get("clock") == "graph" else answer(worker, command)


def test_a_capture_that_kills_the_worker_keeps_what_was_measured_before(run: Any) -> None:
    record, statuses = run(on_graph(None), ends=(-11,), cases=1)
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"crashed"}}
    row = next(r for r in record.rows if r["clock"] == "graph")
    assert "SIGSEGV" in row["detail"] and row["median_ms"] is None
    samples = (record.folder / "samples.jsonl").read_text().splitlines()
    assert len(samples) == 6, "of eager and host"


def test_a_failure_after_the_first_clock_is_told_of_the_others_alone(run: Any) -> None:
    oom = {"event": "failed", "status": Status.oom, "detail": "CUDA out of memory", "last": True}
    _, statuses = run(on_graph(oom), cases=1)
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"oom"}}


def test_a_wrong_result_takes_its_times_along(run: Any) -> None:
    wrong = {"event": "failed", "status": Status.wrong, "detail": "dA differs", "last": False}
    record, statuses = run(alone(finish=wrong))
    assert set().union(*statuses.values()) == {"wrong"}
    assert all(row["median_ms"] is None for row in record.rows)


def test_no_ratio_is_left_to_a_baseline_that_turned_out_wrong(run: Any) -> None:
    def says(worker: StubWorker, command: dict[str, Any]) -> dict[str, Any]:
        if "full" in worker.log.name and command["do"] == "finish":
            return {"event": "failed", "status": Status.wrong, "detail": "dW differs", "last": False}
        return answer(worker, command)

    record, _ = run(says, cases=3)
    eager = rows_by_method(record, "eager")
    assert eager["full"]["status"] == "wrong" and eager["lora"]["status"] == "ok"
    assert {(r["ratio"], r["ratio_to"]) for r in eager.values()} == {(None, None)}


def test_a_clock_that_is_unsupported_leaves_the_others_their_rows(run: Any) -> None:
    record, statuses = run(on_graph(measured("graph", "unsupported", "capture: RuntimeError: no")))
    assert statuses == {"eager": {"ok"}, "host": {"ok"}, "graph": {"unsupported"}}
    row = next(r for r in record.rows if r["clock"] == "graph")
    assert row["median_ms"] is None and row["n"] is None and row["detail"] == "capture: RuntimeError: no"


def test_a_worker_that_a_capture_has_spoiled_is_replaced(run: Any) -> None:
    def says(worker: StubWorker, command: dict[str, Any]) -> dict[str, Any]:
        if command.get("clock") == "graph":
            return measured("graph", "unsupported", "capture: no") | {"spoiled": True}
        if command["do"] == "finish":
            return {"event": "done", "last": True}
        return answer(worker, command)

    _, statuses = run(says)
    assert statuses["eager"] == {"ok"} and len(StubWorker.made) == 6, "one for each case"
