"""A results folder with any damage: every command that reads it refuses it in one sentence, or reads it."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.case.columns import COLUMNS
from bench.commands.compare import compare_folders
from bench.commands.spread import ratios
from bench.compare.folders import read_side
from bench.compare.github import as_markdown
from bench.compare.junit import as_junit
from bench.compare.show import as_json
from bench.devices import cpu_device
from bench.errors import UserError, printable
from bench.record.environment import IDENTITY, provenance
from bench.record.store import open_record, peek_record
from bench.runner.plan import exit_status, open_tasks
from bench.runner.summary import closing_lines
from bench.sweeps.expand import make_plan
from plots.__main__ import main as plots_main
from plots.data.load import load
from plots.report import draw
from tests.conftest import SWEEP
from tests.mutations import FUZZ, damaged, damaged_json, damaged_json_lines

FILES = ("run.json", "rows.jsonl", "samples.jsonl")
COMMAND = "python -m bench run small.yaml --gpu cpu"


class Sound:
    """A whole folder of two methods and two passes, measured in rounds, as documents; and a place to write it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        sweep = place / "small.yaml"
        sweep.write_text(SWEEP)
        self.plan = make_plan(str(sweep), True, ("layer=square-48", "method=full,lora"))
        settings_ = self.plan.settings.model_dump()
        self.run = {
            "schema": 1, "run_id": "20260101T000000-abcdef", "gpu": "Board 1", "gpu_key": "cpu", "gpu_uuid": "cpu",
            "sm_count": None, "memory_mib": 81920, "driver": None, "source_hash": "00ff", "torch": "2.13.0",
            "triton": "3.7.1", "python": "3.11.7", "cores": 2, "threads": 1, "commit": "0123456789", "dirty": False,
            "cuda": None, "gpu_clocks": {"locked": None, "sm_max_mhz": 1980},
            "ceilings": {"device": "cuda:0", "bf16_tflops": 700.5, "bf16_n": 20},
            "invocations": [{
                "started": "2026-01-01T00:00:00.000+00:00", "finished": None, "command": COMMAND, "cases": 2, "open": 2,
                "settings": settings_, "busy_cores": 0.2, "spent_s": {"starting": 1.5, "measuring": 2},
                "sweep": {"name": "small", "description": "two squares", "text": SWEEP},
            }],
        }  # fmt: skip
        self.environment = {k: self.run[k] for k in IDENTITY}
        self.rows: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        base = self.plan.cases[0].case_id
        for i, case in enumerate(self.plan.cases):
            for j, pass_ in enumerate(("forward", "backward")):
                key = {"case_id": case.case_id, "pass": pass_, "clock": "cpu-time", "repeat": 0}
                times = [(1 + i) * (1 + j) * (1 + 0.01 * (k % 3)) for k in range(8)]
                low, median, high = min(times), sorted(times)[4], max(times)
                self.rows.append(dict.fromkeys(COLUMNS) | case.axes() | key | {
                    "run_id": self.run["run_id"], "gpu": "Board 1", "median_ms": median, "ci_low_ms": low,
                    "ci_high_ms": high, "p20_ms": low, "p80_ms": high, "min_ms": low, "n": 8, "ratio": 1.0 + i,
                    "ratio_low": 0.9 + i, "ratio_high": 1.1 + i, "ratio_to": base, "rounds": 8, "beside": "comparison",
                    "outliers": 0, "stop": "rounds", "noisy": False, "status": "ok", "detail": None, "peak_mib": 1.5,
                    "trainable_params": 2304, "flops": 73728, "bytes": 15360, "floor_ms": 0.001, "launches": 3,
                    "sm_clock_mhz": 1755, "power_w": 312.5, "temperature_c": 50, "power_capped": 0.5, "dropped": 0,
                    "refresh_ms": 0.1, "model_dropout": 0.0, "threads": 1, "process": f"{10 + i}-start",
                    "measured_at": "2026-01-01T00:00:01.000+00:00", "repro": COMMAND,
                })  # fmt: skip
                self.samples.append(key | {
                    "run_id": self.run["run_id"], "process": f"{10 + i}-start", "samples_ms": times,
                    "rounds": list(range(8)), "turns": "a", "ratio_to": base, "ratios": [1.0 + i] * 8,
                })  # fmt: skip

    def write(self, name: str, damaged: bytes | None = None, what: str = "") -> Path:
        """The folder, with `damaged` in place of the file called `what`."""
        folder = self.place / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(self.run))
        for file, lines in (("rows.jsonl", self.rows), ("samples.jsonl", self.samples)):
            (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
        if damaged is not None:
            (folder / what).write_bytes(damaged)
        return folder


def go_on(sound: Sound, folder: Path) -> None:
    """All that `bench run` does with a folder before and after it measures."""
    for record in (peek_record(folder, sound.environment), open_record(folder, copy.deepcopy(sound.environment))):
        if record is not None:
            assert open_tasks(sound.plan, record, 1, frozenset(), None) is not None
            list(closing_lines(sound.plan, record, 1, {"measuring": 1.0}, ()))
            assert exit_status(sound.plan, record, 1, True) in (0, 1)
            record.samples()
            record.write_csv()
            record.write_run()


def compare(sound: Sound, folder: Path) -> None:
    c = compare_folders(folder, sound.place / "other")
    for made in (as_json, as_markdown, as_junit):
        (sound.place / "compared").write_text(made(c))
    ratios([read_side("1", folder).rows, read_side("2", sound.place / "other").rows])


def report(sound: Sound, folder: Path) -> None:
    draw(load(folder), figures=())


READERS = {"run": go_on, "compare": compare, "report": report}


@pytest.fixture
def sound(tmp_path: Path) -> Sound:
    found = Sound(tmp_path)
    found.write("other")
    return found


@pytest.mark.parametrize("reader", READERS)
def test_a_sound_folder_is_read(sound: Sound, reader: str) -> None:
    READERS[reader](sound, sound.write("folder"))


def hold(sound: Sound, read: Callable[[Sound, Path], None], data: st.DataObject) -> None:
    """One damaged file is read, or refused in one line that names a file of the folder and steers no terminal."""
    what = data.draw(st.sampled_from(FILES))
    if what == "run.json":
        damaged = data.draw(damaged_json(sound.run))
    else:
        damaged = data.draw(damaged_json_lines(sound.rows if what == "rows.jsonl" else sound.samples))
    folder = sound.write("folder", damaged, what)
    try:
        read(sound, folder)
    except UserError as e:
        said = str(e)
        assert "\n" not in said and said == printable(said) and len(said) < 2000, said
        assert str(sound.place) in said or "no rows in common" in said or "different devices" in said, said


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=2000, **FUZZ)
@given(data=st.data())
def test_any_damage_is_refused_in_a_sentence_or_read(sound: Sound, reader: str, data: st.DataObject) -> None:
    hold(sound, READERS[reader], data)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=25, **FUZZ)
@given(data=st.data())
def test_some_damage_is_refused_in_a_sentence_or_read(sound: Sound, reader: str, data: st.DataObject) -> None:
    hold(sound, READERS[reader], data)


@pytest.mark.slow
@settings(max_examples=2000, **FUZZ)
@given(data=st.data())
def test_a_damaged_rows_csv_is_refused_in_a_sentence_or_drawn(sound: Sound, data: st.DataObject) -> None:
    """Where the record is missing, the report reads rows.csv, which people open in a spreadsheet."""
    folder = sound.write("folder")
    open_record(folder, copy.deepcopy(sound.environment)).write_csv()
    (folder / "rows.jsonl").unlink()
    (folder / "rows.csv").write_bytes(data.draw(damaged((folder / "rows.csv").read_bytes())))
    try:
        report(sound, folder)
    except UserError as e:
        assert "rows.csv" in str(e) and "\n" not in str(e)


DAMAGE = {"case_id": ["x"], "median_ms": 10**400, "pass": None, "ci_low_ms": 99.0}


@pytest.mark.parametrize("column", DAMAGE)
def test_each_command_ends_with_2_and_names_line_and_column(
    sound: Sound, cli: Callable[..., Any], capsys: pytest.CaptureFixture[str], column: str
) -> None:
    sound.run |= provenance(cpu_device(), 1)
    for name in ("folder", "other"):
        sound.write(name)
    lines = [json.dumps(row) for row in (sound.rows[0], sound.rows[1] | {column: DAMAGE[column]}, *sound.rows[2:])]
    folder = sound.write("folder", "".join(line + "\n" for line in lines).encode(), "rows.jsonl")
    commands = [("compare", folder, sound.place / "other"), ("spread", sound.place / "other", folder)]
    commands += [("run", sound.plan.path, "--gpu", "cpu", "--out", folder)]
    before = sorted(folder.iterdir())
    for command in commands:
        ended = cli(*command)
        assert (ended.returncode, ended.stdout) == (2, "") and f"rows.jsonl:2: damaged line: {column}" in ended.stderr
    if column != "pass":  # rows of any age are drawn
        assert plots_main([str(folder)]) == 2
        assert f"rows.jsonl:2: damaged line: {column}" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("names", [("ratio_low", "ratio", "ratio_high"), ("ci_low_ms", "median_ms", "ci_high_ms")])
def test_an_interval_without_its_value_tells_nothing(sound: Sound, names: tuple[str, ...]) -> None:
    lines = [json.dumps(row) for row in (sound.rows[0], sound.rows[1] | {names[1]: None}, *sound.rows[2:])]
    folder = sound.write("folder", "".join(line + "\n" for line in lines).encode(), "rows.jsonl")
    for read in (go_on, compare, report):
        read(sound, folder)
    assert all(read_side("1", folder).rows[1].get(name) is None for name in names)


@pytest.mark.parametrize("name", ["run.json", "rows.jsonl", "samples.jsonl"])
def test_a_pipe_or_folder_in_place_of_a_file_is_refused_at_once(sound: Sound, name: str) -> None:
    folder = sound.write("folder")
    for make in (os.mkfifo, os.mkdir):
        (folder / name).unlink() if (folder / name).is_file() else None
        make(folder / name)
        for read in (go_on, report):
            with pytest.raises(UserError, match=rf"{name}.*this is a (named pipe|folder)"):
                read(sound, folder)
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()


@pytest.mark.parametrize("name", ["run.json", "rows.jsonl", "samples.jsonl", "rows.csv", "logs", "earlier"])
def test_nothing_is_written_through_a_link_in_a_folder_from_elsewhere(sound: Sound, name: str) -> None:
    folder, elsewhere = sound.write("folder"), sound.place / "elsewhere"
    elsewhere.mkdir() if name in ("logs", "earlier") else elsewhere.write_bytes(b"mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(elsewhere)
    for fresh in (False, True):
        with pytest.raises(UserError, match=rf"{name}: this is a symbolic link, to .*elsewhere"):
            open_record(folder, copy.deepcopy(sound.environment), fresh)
    assert elsewhere.is_dir() or elsewhere.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "run_id", ["/tmp/elsewhere", "../../x", "..", "a/b", "", ".hidden", "a\nb", "x" * 101, 7, None]
)
def test_a_run_id_names_a_folder_inside_earlier_or_nothing(sound: Sound, run_id: object) -> None:
    folder = sound.write("folder", json.dumps(sound.run | {"run_id": run_id}).encode(), "run.json")
    with pytest.raises(UserError, match=r"run\.json: run_id"):
        open_record(folder, copy.deepcopy(sound.environment), fresh=True)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
