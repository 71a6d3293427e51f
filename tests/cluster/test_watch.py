"""The watch over a queue that does what a test says: what is submitted again, and what is given up."""

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.cluster.backend import JobState, Options, Unreachable
from bench.cluster.layout import Layout
from bench.cluster.owner import OWNER, attend
from bench.cluster.show import ShardTable, table_of, to_go, total_line
from bench.cluster.submissions import Submission, read_submissions, write_submissions
from bench.cluster.watch import MOST_JOBS, Watch
from bench.errors import UserError
from bench.terminal import output
from tests.cluster.made import Queue, ended, job, running, submitted
from tests.runner.stub_worker import StubWorker, answer


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("LORABENCH_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr("bench.runner.lane.visible_index", lambda device: 0)
    monkeypatch.setattr(StubWorker, "script", staticmethod(answer))


class Watching:
    """A watch over a submission of two shards, with what it said."""

    def __init__(self, folder: Path, queue: Queue, attends: bool = True, cancelled: bool = False) -> None:
        self._cancelled = cancelled
        self.layout, self.submission = submitted(folder)
        self.queue, self.said = queue, list[str]()
        self._attends, self._held = attends, ExitStack()
        self.again()

    def again(self) -> None:
        """As a new process."""
        self._held.close()
        owner = self._held.enter_context(attend(self.layout.folder)) if self._attends else None
        submissions: list[Submission] = read_submissions(self.layout.folder)
        self.watch = Watch(self.layout, submissions, self.queue, Options(), self.said.append, owner, self._cancelled)

    def look(self, times: int = 2) -> list[str]:
        for _ in range(times):
            self.watch.look()
        return [w.word() for w in self.watch.shards]


def begun(layout: Layout, number: int) -> None:
    """Its job was on a node, and was cut off there."""
    layout.claim(number)


def test_from_pending_to_done(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=JobState("pending", reason="Resources"), j1=running("n2")))
    assert w.look() == ["pending", "running"]
    assert job(w.layout, 1) == 0
    assert w.look() == ["pending", "done"]
    w.queue.known["j1"] = ended(how="completed")
    w.queue.known["j0"] = running("n1")
    job(w.layout, 0)
    w.queue.known["j0"] = ended(how="completed")
    w.watch.until_over(lambda _: None, 0.0)
    assert w.look() == ["done", "done"] and not w.queue.submitted and w.said == []
    assert total_line(w.watch) == "6 of 6 cases; shards: 2 done"


@pytest.mark.parametrize("how", ["failed", "timeout", "node_fail", "preempted", "out_of_memory"])
def test_what_was_cut_off_is_submitted_again_within_a_bound(tmp_path: Path, how: str) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))
    w.look()
    begun(w.layout, 0)
    for number in range(1, MOST_JOBS):
        w.queue.known[w.watch.shards[0].shard.jobs[-1]] = ended(how=how)
        assert w.look() == ["pending", "running"]
        assert len(w.queue.submitted) == number
        assert read_submissions(w.layout.folder)[-1].shards[0].jobs[-1] == f"again{number}", "on disk before it matters"
    w.queue.known["again2"] = ended(how=how)
    assert w.look() == ["given up", "running"]
    assert len(w.queue.submitted) == MOST_JOBS - 1
    assert (
        f"{how}, {MOST_JOBS} times in a row without a case done. Its last lines: none in /nowhere/again2.out"
        in w.said[-1]
    )
    assert "3 of 3 cases are open" in w.said[-1]
    w.again()
    assert w.look() == ["given up", "running"], "also for whoever attaches later"


def test_a_job_that_gets_on_is_submitted_again_as_often_as_it_takes(tmp_path: Path) -> None:
    """As where the time limit is too short for a shard."""
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))
    (w.layout.claim(0) / "rows.jsonl").touch()
    row = {"case_id": "", "pass": "", "clock": "", "repeat": 0, "status": "ok"}
    keys = w.watch.shards[0].rows.keys
    for number, (repeat, case) in enumerate(w.layout.read_assignment(0).tasks[:2], 1):
        w.look()
        with open(w.layout.attempts(0)[0] / "rows.jsonl", "a") as file:
            for pass_, clock in keys:
                line = row | {"case_id": case.case_id, "pass": pass_, "clock": clock, "repeat": repeat}
                file.write(json.dumps(line) + "\n")
        for _ in range(MOST_JOBS - 1):  # each case takes as many jobs as are allowed
            w.queue.known[w.watch.shards[0].shard.jobs[-1]] = ended(how="timeout")
            assert w.look() == ["pending", "running"], number
            w.queue.known[w.watch.shards[0].shard.jobs[-1]] = running("n1")
            w.look()
    assert len(w.queue.submitted) == 2 * (MOST_JOBS - 1) > MOST_JOBS


def test_a_cancelled_job_and_one_that_cannot_measure_are_not_submitted_again(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=ended(how="cancelled"), j1=ended(how="failed")))
    w.layout.write_end(w.layout.claim(1), 2, "--gpu a100: not on this machine.")
    assert w.look() == ["given up", "given up"] and not w.queue.submitted
    assert "its job was cancelled" in w.said[0] and "--gpu a100: not on this machine." in w.said[1]


def test_a_job_that_left_nothing_points_to_the_file_system(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=ended(how="failed"), j1=running()))
    assert w.look() == ["given up", "running"]
    assert "the nodes do not share that file system" in w.said[0]


def test_a_job_that_never_began_and_is_forgotten(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=JobState("pending"), j1=running()))
    w.look()
    del w.queue.known["j0"]
    assert w.look() == ["given up", "running"] and not w.queue.submitted
    assert "left the queue before it began" in w.said[0]


def test_rows_that_are_seen_late_are_waited_for(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))
    begun(w.layout, 0)
    w.look()
    w.queue.known["j0"] = ended(how="completed")
    w.look(1)
    job(w.layout, 0)
    assert w.look(1) == ["done", "running"] and not w.queue.submitted


def test_a_queue_that_does_not_answer_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))
    w.look()
    w.queue.silent = True
    assert w.look() == ["running", "running"] and w.watch.trouble == "nobody answers"
    show = ShardTable()
    show(w.watch)
    w.queue.silent = False
    w.look()
    show(w.watch)
    told = capsys.readouterr().err
    assert "nobody answers" in told and "the queue answers again" in told


def test_who_only_looks_on_submits_nothing(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")), attends=False)
    begun(w.layout, 0)
    w.look()
    w.queue.known["j0"] = ended(how="node_fail")
    w.look()
    assert not w.queue.submitted and read_submissions(w.layout.folder)[-1].shards[0].jobs == ["j0"]


def test_what_ended_long_ago_is_not_submitted_by_whoever_attaches(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue())
    begun(w.layout, 0)
    begun(w.layout, 1)
    assert w.look() == ["given up", "given up"] and not w.queue.submitted
    assert "the queue does not know how" in w.said[0]


def test_a_queue_that_takes_no_more(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))
    w.look()
    begun(w.layout, 0)
    w.queue.known["j0"] = ended(how="node_fail")
    w.queue.refuses = UserError("sbatch refused: Job violates accounting/QOS policy")
    assert w.look() == ["given up", "running"]
    assert "Job violates accounting/QOS policy" in w.said[0]


def test_what_a_power_cut_ends_is_submitted_again_as_one_array(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))
    w.look()
    begun(w.layout, 0)  # the other had not come so far, and has left nothing
    w.queue.known |= {"j0": ended(how="node_fail"), "j1": ended(how="node_fail")}
    assert w.look() == ["pending", "pending"] and w.queue.calls == [2]
    assert [s.jobs for s in read_submissions(w.layout.folder)[-1].shards] == [["j0", "again1"], ["j1", "again2"]]


def test_a_queue_that_does_not_answer_when_a_job_is_submitted_again(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))
    w.look()
    begun(w.layout, 0)
    w.queue.known["j0"] = ended(how="node_fail")
    w.queue.refuses = Unreachable("Unable to contact slurm controller")
    assert w.look()[0] == "ended, node_fail" and "Unable to contact" in w.watch.trouble
    w.queue.refuses = None
    assert w.look(1)[0] == "pending" and len(w.queue.submitted) == 1


def test_who_looks_on_hears_what_was_submitted_again(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")), attends=False)
    begun(w.layout, 0)
    w.look()
    w.queue.known |= {"j0": ended(how="failed"), "j0b": running("n3")}
    assert w.look() == ["ended, failed", "running"]
    w.submission.shards[0].jobs.append("j0b")
    write_submissions(w.layout.folder, [w.submission])
    assert w.look(1) == ["running", "running"] and w.watch.shards[0].state.node == "n3"
    w.submission.shards[0].left = "failed, 3 times in a row"
    write_submissions(w.layout.folder, [w.submission])
    assert w.look(1) == ["given up", "running"] and w.watch.shards[0].settled


def test_an_owner_that_was_taken_for_dead_only_looks_on(tmp_path: Path) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))
    w.look()
    (w.layout.folder / OWNER).unlink()
    with attend(w.layout.folder):
        begun(w.layout, 0)
        w.queue.known["j0"] = ended(how="failed")
        w.look()
    assert not w.watch.attends and not w.queue.submitted
    assert f"process {os.getpid()} on" in w.said[0] and "only looks on" in w.said[0]


def test_the_table_and_the_time_to_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=JobState("pending", reason="Resources")))
    w.look()
    assert to_go(w.watch.shards) == pytest.approx(60, abs=1), "one after the other"
    output().print(table_of(w.watch.shards))
    told = capsys.readouterr().out
    for word in ("j0", "running", "n1", "0/3", "30 s", "j1", "pending: Resources"):
        assert word in told
    output().print(table_of(w.watch.shards, 1))
    told = capsys.readouterr().out
    assert "and 1 more" in told and "j0" in told and "j1" not in told


def test_rows_that_failed_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = Watching(tmp_path / "out", Queue(j0=running("n1"), j1=running("n2")))

    def fails(worker: StubWorker, command: dict[str, object]) -> object:
        if command["do"] == "prepare" and "lora" in str(command["case"]):
            return {"event": "failed", "status": "oom", "detail": "out of memory", "last": True}
        return answer(worker, command)

    monkeypatch.setattr(StubWorker, "script", staticmethod(fails))
    job(w.layout, 0)
    assert w.look() == ["done", "running"]
    assert "3 of 6 cases, 1 failed" in total_line(w.watch)


def test_nothing_is_submitted_again_after_cancel(tmp_path: Path) -> None:
    """Also not a shard whose job had failed, and that nobody had seen since."""
    w = Watching(tmp_path / "out", Queue(j0=ended(how="node_fail"), j1=ended(how="cancelled")), cancelled=True)
    begun(w.layout, 0)
    assert w.look() == ["given up", "given up"] and not w.queue.submitted
