"""What a job does on its node: attempts, folders of their own, and what keeps two of them apart."""

import json
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from bench.cluster.layout import CLUSTER, ENVIRONMENT, Layout
from bench.cluster.submissions import write_submissions
from bench.devices import Device
from bench.errors import UserError
from bench.record.read import read_kept_rows, read_run
from tests.cluster.made import GPUS, job, submitted
from tests.runner.stub_worker import PASSES, StubWorker, answer


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("LORABENCH_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr("bench.runner.lane.visible_index", lambda device: 0)
    monkeypatch.setattr(StubWorker, "made", [])
    monkeypatch.setattr(StubWorker, "script", staticmethod(answer))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return read_kept_rows(folder)[0]


def keys(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((r["case_id"], r["pass"], r["clock"], r["repeat"]) for r in rows)


def test_two_gpus_measure_a_shard_each_and_rows_say_which(tmp_path: Path) -> None:
    layout, _ = submitted(tmp_path / "out")
    for number, gpu in enumerate(GPUS):
        assert job(layout, number, gpu=gpu) == 0
    for number, gpu in enumerate(GPUS):
        folder = layout.folder / "shards" / f"{number:03}"
        rows = rows_of(folder)
        assert len(rows) == 3 * len(PASSES) * 2 and {r["status"] for r in rows} == {"ok"}
        run = read_run(folder)
        assert {r["run_id"] for r in rows} == {run["run_id"]}
        assert (run["gpu_uuid"], run["gpu"]) == (gpu.uuid, gpu.name)
        assert {r["layer"] for r in rows} == {("square-48", "square-64")[number]}
        assert layout.read_end(folder) == (0, "")
    assert len(layout.records()) == 2


def test_a_second_attempt_measures_what_the_first_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, _ = submitted(tmp_path / "out")

    def dies(worker: StubWorker, command: dict[str, Any]) -> Any:
        raise OSError(28, "No space left on device", "rows.jsonl")

    monkeypatch.setattr(StubWorker, "script", staticmethod(dies))
    assert job(layout, 0) == 1
    assert layout.records() == [] and layout.read_end(layout.attempts(0)[0]) == (1, "")
    assert "No space left" in capsys.readouterr().err
    monkeypatch.setattr(StubWorker, "script", staticmethod(answer))
    assert job(layout, 0) == 0
    second = layout.attempts(0)[1]
    assert second.name == "000.2" and len(rows_of(second)) == 18
    lines = (second / "rows.jsonl").read_text().splitlines(keepends=True)
    (second / "rows.jsonl").write_text("".join(lines[:12]) + lines[12][:40])  # two cases whole, one torn
    assert job(layout, 0) == 0
    third = layout.attempts(0)[2]
    assert {r["method"] for r in rows_of(third)} == {json.loads(lines[12])["method"]}
    assert len(rows_of(third)) == 6
    assert job(layout, 0) == 0, "nothing was left"
    assert rows_of(layout.attempts(0)[3]) == []


@pytest.mark.parametrize("fresh", [False, True])
def test_a_node_that_was_given_up_does_not_write_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fresh: bool
) -> None:
    """Neither beside another attempt, nor into the folder of one that has its name since a run with --fresh."""
    layout, _ = submitted(tmp_path / "out")

    def overtaken(worker: StubWorker, command: dict[str, Any]) -> Any:
        if command["do"] == "finish" and len(list((layout.folder / "shards").iterdir())) == 1:
            if fresh:
                (layout.folder / "shards" / "000").rename(layout.folder / "aside")
                layout.claim(0)
            layout.claim(0 if not fresh else 7)
        return answer(worker, command)

    monkeypatch.setattr(StubWorker, "script", staticmethod(overtaken))
    assert job(layout, 0) == 1
    assert not list(layout.folder.rglob("rows.jsonl")) and layout.read_end(layout.attempts(0)[0]) is None
    assert "a later attempt" in capsys.readouterr().err


def test_another_gpu_than_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout, _ = submitted(tmp_path / "out")
    h100 = Device("h100", "NVIDIA H100 80GB HBM3", 0, "GPU-9", "580.1", 132, 81559)
    assert job(layout, 0, gpu=h100) == 2
    _, detail = layout.read_end(layout.attempts(0)[0]) or (0, "")
    assert "--gpu a100" in detail and "NVIDIA H100 80GB HBM3" in detail
    assert detail in capsys.readouterr().err


def test_a_node_with_another_driver_is_refused_before_it_measures(tmp_path: Path) -> None:
    layout, _ = submitted(tmp_path / "out")
    assert job(layout, 0) == 0
    assert job(layout, 1, gpu=Device(**vars(GPUS[1]) | {"driver": "590.2"})) == 2
    assert not (layout.attempts(1)[0] / "rows.jsonl").exists()
    _, detail = layout.read_end(layout.attempts(1)[0]) or (0, "")
    assert "driver 590.2 here, 580.1 there" in detail and "--slurm constraint" in detail


def test_sources_that_changed_while_jobs_waited(tmp_path: Path) -> None:
    layout, _ = submitted(tmp_path / "out")
    assert job(layout, 0) == 0
    told = json.loads((layout.folder / ENVIRONMENT).read_text())
    (layout.folder / ENVIRONMENT).write_text(json.dumps(told | {"source_hash": "0123"}))
    assert job(layout, 1) == 2
    _, detail = layout.read_end(layout.attempts(1)[0]) or (0, "")
    assert "0123 there" in detail and "The sources have changed" in detail and "constraint" not in detail


def test_a_job_that_nobody_has_written_down_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.cluster.shard.LISTED_S", 0.0)
    layout, _ = submitted(tmp_path / "out")
    assert job(layout, 0, "another") == 2
    assert layout.attempts(0) == [] and not StubWorker.made


def test_a_list_of_jobs_that_cannot_be_read_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, submission = submitted(tmp_path / "out")
    (layout.folder / CLUSTER).write_text("{")
    timer = Timer(0.3, write_submissions, (layout.folder, [submission]))
    timer.start()
    assert job(layout, 0) == 0
    timer.join()
    monkeypatch.setattr("bench.cluster.shard.LISTED_S", 0.0)
    (layout.folder / CLUSTER).write_text("{")
    with pytest.raises(UserError, match=CLUSTER):
        job(layout, 1)


@pytest.mark.parametrize("name", ["000.json", "plan-1.json"])
def test_damaged_files_are_told_in_the_end(tmp_path: Path, name: str) -> None:
    layout, _ = submitted(tmp_path / "out")
    (layout.jobs / name).write_text('{"plan": 7}')
    assert job(layout, 0) == 2
    assert name in (layout.read_end(layout.attempts(0)[0]) or (0, ""))[1]


def test_folders_of_attempts_are_claimed_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    names = [layout.claim(3).name for _ in range(3)] + [layout.claim(1234).name]
    assert names == ["003", "003.2", "003.3", "1234"]
    assert [p.name for p in layout.attempts(3)] == names[:3]
