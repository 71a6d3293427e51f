"""The order and the time of a campaign's stages, with stages and a clock of the test's own."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.campaign.command import MORE, Pieces, grace_of, seconds_of
from bench.campaign.record import Campaign, open_campaign
from bench.campaign.stages import BUDGETS, Stage, make_stages, report_stage
from bench.devices import Device
from bench.errors import UserError

H100 = Device("h100", "NVIDIA H100 80GB HBM3", 0, "GPU-1", "580.1", 132, 81559)
CPU = Device("cpu", "a CPU")


@dataclass
class Machine:
    """Stages that take a known time in all; one that is cut off goes on where it stopped."""

    out: Path
    needs: dict[str, float]
    budgets: dict[str, float] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)  # of those that do not end with 0
    skip: dict[str, str] = field(default_factory=dict)
    now: float = 1000.0
    log: list[tuple[str, float, bool]] = field(default_factory=list)  # stage, seconds it took, came to its end

    @property
    def stages(self) -> list[Stage]:
        found = []
        for name in self.needs:
            folder = None if name in ("gpu-tests", "tune") else self.out / name
            budget = self.budgets.get(name, 100.0)
            found.append(Stage(name, budget, (), self.skip.get(name), folder, before_sweeps=name == "tune"))
        return found

    def run(self, stage: Stage, seconds: float, grace: float) -> int | None:
        needed = self.needs.get(stage.name, 1.0)
        took = min(needed, seconds)
        self.now += took
        self.needs[stage.name] = needed - took
        self.log.append((stage.name, took, needed <= seconds))
        return self.status.get(stage.name, 0) if needed <= seconds else None

    def piece(self, seconds: float, budget: float = 1000.0) -> int:
        record = open_campaign(self.out, H100, fresh=False)
        deadline = self.now + seconds
        pieces = Pieces(record, budget, deadline, grace_of(seconds), self.run, lambda: self.now)
        pieces.go_through(self.stages)
        assert self.now <= deadline, "a piece never runs over"
        return pieces.close(self.stages)

    def spent(self) -> float:
        return sum(s for _, s, _ in self.log)


def test_a_campaign_ends_over_several_pieces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = Machine(tmp_path, {"gpu-tests": 20, "tune": 30, "table1": 90, "peers": 80, "table2": 40})
    assert m.piece(120) == MORE
    assert [n for n, _, _ in m.log] == ["gpu-tests", "tune", "table1"]
    assert "open: table1, peers, table2. To go on: python -m bench" in capsys.readouterr().err
    assert m.piece(120) == MORE
    assert m.piece(120) == 0
    assert all(need == 0 for need in m.needs.values())
    assert sum(n == "tune" for n, _, _ in m.log) == 1 and sum(n == "gpu-tests" for n, _, _ in m.log) == 1
    assert m.spent() == pytest.approx(260)


def test_a_slow_stage_does_not_eat_the_others_time_and_gets_what_is_left(tmp_path: Path) -> None:
    m = Machine(tmp_path, {"table1": 150, "peers": 80, "table2": 40}, budgets={"table1": 60})
    assert m.piece(400) == 0
    assert m.log == [("table1", 60, False), ("peers", 80, True), ("table2", 40, True), ("table1", 90, True)]


def test_the_budget_ends_it_with_what_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = Machine(tmp_path, {"table1": 150, "peers": 80}, budgets={"table1": 60})
    assert m.piece(1000, budget=170) == 1
    assert m.spent() <= 170
    said = capsys.readouterr().err
    assert "the budget of 2:50 is spent; open: table1. More: --budget" in said
    assert m.piece(1000, budget=300) == 0, "a larger budget goes on"


def test_a_failed_stage_does_not_stop_the_rest(tmp_path: Path) -> None:
    m = Machine(tmp_path, {"gpu-tests": 20, "table1": 10, "peers": 10}, status={"gpu-tests": 1, "table1": 2})
    assert m.piece(400) == 1
    assert [n for n, _, _ in m.log] == ["gpu-tests", "table1", "peers"]
    m.status = {"gpu-tests": 1}
    m.needs["table1"] = 10
    assert m.piece(400) == 1
    assert [n for n, _, _ in m.log][3:] == ["table1", "peers"], "a sweep is asked again; failed tests are known"


def test_a_row_with_another_status_is_no_failed_stage(tmp_path: Path) -> None:
    m = Machine(tmp_path, {"table1": 10}, status={"table1": 1})
    assert m.piece(400) == 0
    told = json.loads((tmp_path / "campaign.json").read_text())["stages"]["table1"]
    assert told["status"] == "done" and "rows" in told["detail"] and told["spent_s"] == 10


def test_tables_do_not_change_once_a_sweep_has_begun(tmp_path: Path) -> None:
    m = Machine(tmp_path, {"tune": 150, "table1": 30}, budgets={"tune": 50})
    assert m.piece(400) == MORE
    assert m.log == [("tune", 50, False), ("table1", 30, True)]
    m.piece(400)
    assert [n for n, _, _ in m.log][2:] == ["table1"]
    told = json.loads((tmp_path / "campaign.json").read_text())["stages"]["tune"]
    assert told["status"] == "skipped" and "sweeps have begun" in told["detail"]


def test_what_a_machine_cannot_run_is_told_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = Machine(tmp_path, {"gpu-tests": 20, "table1": 10}, skip={"gpu-tests": "no GPU"})
    assert m.piece(400) == 0
    assert [n for n, _, _ in m.log] == ["table1"]
    assert any(line.split() == ["gpu-tests", "skipped", "no", "GPU"] for line in capsys.readouterr().err.splitlines())


def test_an_interrupt_leaves_a_stage_to_go_on_with(tmp_path: Path) -> None:
    m = Machine(tmp_path, {"gpu-tests": 20})

    def interrupted(stage: Stage, seconds: float, grace: float) -> int | None:
        m.now += 7
        raise KeyboardInterrupt

    pieces = Pieces(open_campaign(tmp_path, H100, False), 1000, m.now + 100, 5, interrupted, lambda: m.now)
    with pytest.raises(KeyboardInterrupt):
        pieces.go_through(m.stages)
    found = open_campaign(tmp_path, H100, False).of("gpu-tests")
    assert (found.status, found.spent_s) == ("partial", 7)
    assert m.piece(100) == 0


def test_another_environment_starts_anew_and_a_damaged_record_is_named(tmp_path: Path) -> None:
    Campaign(tmp_path / "campaign.json", {"gpu": "another"}).note("tune", "done", "", 9)
    assert open_campaign(tmp_path, H100, False).of("tune").status == "open"
    m = Machine(tmp_path, {"table1": 10})
    m.piece(400)
    assert open_campaign(tmp_path, H100, False).of("table1").status == "done"
    assert open_campaign(tmp_path, H100, True).of("table1").status == "open"
    (tmp_path / "campaign.json").write_text("[]")
    with pytest.raises(UserError, match=r"campaign\.json: .*--fresh"):
        open_campaign(tmp_path, H100, False)


def test_the_stages_are_those_of_the_board(tmp_path: Path) -> None:
    assert sum(BUDGETS.values()) <= 18 * 60
    on_gpu = {s.name: s for s in make_stages((), H100, tmp_path)}
    assert list(on_gpu) == [n for n in BUDGETS if n != "report"] and not any(s.skip for s in on_gpu.values())
    assert on_gpu["table1"].command[1:] == (
        "-m", "bench", "run", "table1", "--gpu", "h100", "--out", str(tmp_path / "table1")
    )  # fmt: skip
    assert any("test_on_gpu.py" in word for word in on_gpu["gpu-tests"].command)
    assert "table2" in on_gpu["precompile"].command
    on_cpu = {s.name: s.skip for s in make_stages((), CPU, tmp_path)}
    assert {n for n, skip in on_cpu.items() if skip} == {"gpu-tests", "precompile", "tune"}
    assert all("no NVIDIA GPU" in skip for skip in on_cpu.values() if skip)
    with pytest.raises(UserError, match=r"--stages: 'tabel1' is no stage; valid are: gpu-tests, .*table1"):
        make_stages(("tabel1",), CPU, tmp_path)


def test_the_report_draws_what_has_been_measured_by_then(tmp_path: Path) -> None:
    stages = make_stages(("table1", "peers"), H100, tmp_path)
    assert report_stage(stages).skip
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "run.json").write_text("{}")
    found = report_stage(stages)
    assert found.skip is None and found.command[1:] == ("-m", "plots", str(tmp_path / "peers"))


def test_a_report_drawn_before_is_not_the_last_word(tmp_path: Path) -> None:
    m = Machine(tmp_path, {"table1": 150})
    Campaign(tmp_path / "campaign.json", open_campaign(tmp_path, H100, False).environment).note("report", "done", "")
    pieces = Pieces(open_campaign(tmp_path, H100, False), 1000, m.now + 100, 5, m.run, lambda: m.now)
    pieces.go_through(m.stages)
    pieces.report(m.stages)
    assert pieces.close(m.stages) == MORE
    assert open_campaign(tmp_path, H100, False).of("report").status != "done"


@pytest.mark.parametrize(("text", "seconds"), [("18m", 1080), ("540", 540), ("90s", 90), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of("--piece", text) == seconds


@pytest.mark.parametrize("text", ["", "0", "9 minutes", "-9m", "m"])
def test_bad_durations_are_named(text: str) -> None:
    with pytest.raises(UserError, match=r"--piece: .* is no duration; valid are: "):
        seconds_of("--piece", text)
