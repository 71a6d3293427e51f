"""The scheduler over stub workers: who measures beside whom, and what is kept of a case that ends half-way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.case.schema import Status
from bench.devices import Device
from bench.record.store import Record, open_record
from bench.runner.progress import Display
from bench.runner.scheduler import Scheduler
from bench.sweeps.expand import make_plan
from tests.conftest import SWEEP
from tests.runner.stub_worker import PASSES, StubWorker, answer, measured

ENVIRONMENT = {"gpu": "NVIDIA Test", "source_hash": "0", "torch": "2", "triton": None, "driver": "1"}
GPU = Device("test", "NVIDIA Test", 0, "GPU-1", "1")


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def run(sweep_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the small sweep with clocks eager and graph, on a GPU that is none. `says(worker, command)` gives a worker's
    answer, None where it dies; the first `cases` of the first comparison are measured."""
    sweep_path.write_text(SWEEP + "clocks: [eager, graph]\n")
    monkeypatch.setattr("bench.runner.lane.visible_index", lambda device: 0)
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
