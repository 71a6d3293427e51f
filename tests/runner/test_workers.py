"""Workers beyond the command line: they wait for their job and for each command, and are gone with their lane."""

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.devices import cpu_device
from bench.runner.lane import Lane, job_for
from bench.runner.worker_process import Silent, Worker
from bench.sweeps.expand import make_plan
from tests.conftest import SWEEP, is_running, wait_for


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    return path


def test_a_worker_waits_for_its_job_and_then_for_each_command(sweep_path: Path, tmp_path: Path) -> None:
    plan = make_plan(str(sweep_path), on_cpu=True)
    with Worker(tmp_path / "a.log", 60, models=True) as worker:
        maps = Path(f"/proc/{worker.pid}/maps")
        if maps.exists():
            wait_for(lambda: "libtorch" in maps.read_text())
        assert worker.alive
        lane = Lane(worker)
        lane.greet(job_for(cpu_device(), plan.settings, 1, plan.passes))

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
