"""`bench why`, on a sweep measured for real: what it profiles, what it tells, what it refuses, and how it goes on."""

import gzip
import json
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.case import read_case
from bench.record.causes import CAUSES_CSV, read_causes
from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from tests.conftest import ROOT, Bench, Cli, children_of, is_running, rows_of, wait_for

SWEEP = """
description: one square, three methods
axes: {level: linear, layer: square-48, batch: 1, seq: 16, precision: fp32}
methods:
  - {method: full}
  - {method: toy, rank: 4, alpha: 8}
  - {method: lora, rank: 4, alpha: 8}
measure: {min_samples: 8, budget_s: 0.05, wall_s: 1, warmup_s: 0.01, warmup_calls: 1}
"""
PASSES = ("forward", "backward", "forward-backward")
# Of a method from outside: what stands in the file that TOY_DOES names happens when it is built.
DOES = (
    "import os, pathlib, time\n\n\ndef apply(model, case):\n    exec(pathlib.Path(os.environ['TOY_DOES']).read_text())"
)


@dataclass
class Story:
    """A folder, measured once, and what `why` said on the way to all of its causes."""

    bench: Bench
    folder: Path
    does: Path
    said: dict[str, "subprocess.CompletedProcess[str]"] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)  # causes.csv after each step

    def step(self, name: str, *arguments: object) -> None:
        self.said[name] = self.bench("why", self.folder, *arguments)
        self.causes[name] = (self.folder / CAUSES_CSV).read_text()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    place = tmp_path_factory.mktemp("why")
    toy = shutil.copytree(ROOT / "tests" / "methods" / "toy", place / "toy")
    text = (toy / "eager.py").read_text()
    (toy / "eager.py").write_text(
        text.replace("def apply", "def applied") + f"\n\n{DOES}\n    return applied(model, case)\n"
    )
    (place / "small.yaml").write_text(SWEEP)
    (does := place / "does.py").write_text("")
    bench = Bench(place)
    bench.env |= {"LORABENCH_METHODS": str(toy), "TOY_DOES": str(does)}
    found = Story(bench, place / "out", does)
    done = bench("run", place / "small.yaml", "--out", found.folder)
    assert done.returncode == 0, done.stderr
    found.step("lora alone", "--method", "lora", "--trace")
    does.write_text("os._exit(3)")
    found.step("toy dies")
    does.write_text("")
    found.step("the rest")
    found.step("again")
    return found


@pytest.fixture
def copy(story: Story, tmp_path: Path) -> Path:
    """The folder with all of its causes, to be changed."""
    return shutil.copytree(story.folder, tmp_path / "copy")


def change_run(folder: Path, **values: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_rows(folder: Path, method: str, **values: Any) -> None:
    rows = [row | values if row["method"] == method else row for row in rows_of(folder)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_all_causes_of_a_pass_add_up_to_its_median(story: Story) -> None:
    causes = read_causes(story.folder)
    rows = [r for r in rows_of(story.folder) if r["clock"] == "cpu-time"]
    assert len(rows) == 3 * len(PASSES)
    for r in rows:
        split = causes[r["case_id"], r["pass"], "cpu-time"]
        assert split.total_ms == pytest.approx(r["median_ms"], rel=1e-3)
        assert split.source == "operators" and split.parts["base_forward" if r["pass"] == "forward" else "gaps"].ms > 0


def test_each_ratio_is_told_in_a_sentence(story: Story) -> None:
    done = story.said["the rest"]
    assert done.returncode == 0, done.stderr
    rows = {(r["method"], r["pass"]): r for r in rows_of(story.folder) if r["clock"] == "cpu-time"}
    ratios = {key: Estimate(r["ratio"], r["ratio_low"], r["ratio_high"]) for key, r in rows.items()}
    starts = [
        f"{label} eager r4 on square-48 fp32 1x16 {p} takes {with_interval(ratios[method, p], 2)} times Full-FT eager's"
        for label, method in (("Toy", "toy"), ("LoRA", "lora"))
        for p in PASSES
    ]
    lines = done.stdout.splitlines()
    assert len(lines) == len(starts)
    assert all(line.startswith(start) and line.endswith(".") for line, start in zip(lines, starts, strict=True))


def test_what_is_asked_for_is_profiled_with_its_baseline(story: Story) -> None:
    done = story.said["lora alone"]
    assert done.returncode == 0 and "2 cases to profile" in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == len(PASSES) and "Toy" not in done.stdout + done.stderr
    ids = {r["method"]: r["case_id"] for r in rows_of(story.folder)}
    assert ids["full"] in story.causes["lora alone"] and ids["toy"] not in story.causes["lora alone"]


def test_a_trace_is_one_that_perfetto_opens(story: Story) -> None:
    ids = {r["method"]: r["case_id"] for r in rows_of(story.folder)}
    traces = {path.name: json.loads(gzip.decompress(path.read_bytes())) for path in (story.folder / "traces").iterdir()}
    assert set(traces) == {f"{ids[m]}.json.gz" for m in ("full", "lora")}
    assert all(any("aten::mm" in str(e.get("name")) for e in trace["traceEvents"]) for trace in traces.values())
    assert str(story.folder / "traces") in story.said["lora alone"].stderr


def test_a_worker_that_dies_costs_its_case_alone(story: Story) -> None:
    done = story.said["toy dies"]
    assert done.returncode == 1 and "1 case to profile" in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert "toy/eager r4" in line and "the worker ended with status 3" in line
    assert story.causes["toy dies"] == story.causes["lora alone"]
    assert done.stdout == story.said["lora alone"].stdout, "what is known is told"
    assert "1 case to profile" in story.said["the rest"].stderr, "and the next time it is profiled again"


def test_after_a_worker_that_died_the_cases_that_it_had_before_it_have_another(story: Story, copy: Path) -> None:
    before = (copy / CAUSES_CSV).read_text().splitlines()
    story.does.write_text("os._exit(3)")
    done = story.bench("why", copy, "--fresh")
    story.does.write_text("")
    told = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert done.returncode == 1
    assert ["status 3" in line or "profiled" not in line for line in told] == [False, True, False], told
    ids = {row["case_id"]: row["method"] for row in rows_of(copy)}
    kept = {ids[line.split(",")[0]] for line in (copy / CAUSES_CSV).read_text().splitlines()[1:] if line in before}
    assert kept == {"toy"}, "the others are profiled anew"


def test_where_all_is_there_nothing_is_profiled_or_timed(story: Story) -> None:
    done = story.said["again"]
    assert (done.returncode, done.stdout) == (0, story.said["the rest"].stdout)
    assert "to profile" not in done.stderr and story.causes["again"] == story.causes["the rest"]
    assert len(rows_of(story.folder)) == 3 * 3 * 2


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_done(story: Story, copy: Path) -> None:
    (copy / CAUSES_CSV).write_text(story.causes["lora alone"])
    story.does.write_text("pathlib.Path(os.environ['TOY_DOES']).with_name('built').touch(); time.sleep(600)")
    try:
        process = story.bench.start("why", copy)
        wait_for(story.does.with_name("built").exists)
        workers = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    finally:
        story.does.write_text("")
    assert process.returncode == 130 and f"To go on: python -m bench why {copy}" in said and not out
    assert "Traceback" not in said and (copy / CAUSES_CSV).read_text() == story.causes["lora alone"]
    assert workers and not any(map(is_running, workers))


ELSEWHERE = {"gpu": "NVIDIA H100 80GB HBM3", "gpu_key": "h100", "gpu_uuid": "GPU-1", "driver": "580.1"}


@pytest.mark.parametrize("changed", [{"source_hash": "0123456789abcdef"}, {"torch": "2.0.0"}, ELSEWHERE])
def test_what_was_measured_elsewhere_is_told_and_not_profiled(cli: Cli, copy: Path, changed: dict[str, str]) -> None:
    change_run(copy, **changed)
    done = cli("why", copy, "--method", "lora")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(PASSES), done.stderr
    lines = (copy / CAUSES_CSV).read_text().splitlines(keepends=True)
    lora = {r["case_id"] for r in rows_of(copy) if r["method"] == "lora"}
    (copy / CAUSES_CSV).write_text("".join(line for line in lines if line[:12] not in lora))
    before = sorted(path.name for path in copy.rglob("*"))
    for arguments, toys in ((("--method", "lora"), 0), ((), len(PASSES)), (("--fresh",), len(PASSES))):
        done = cli("why", copy, *arguments)
        assert done.returncode == 2 and len(done.stdout.splitlines()) == toys, "the rest is told all the same"
        error = done.stderr.splitlines()[-1]
        assert all(
            f"{name} {value} -> " in error for name, value in changed.items() if name in ("source_hash", "torch")
        )
        assert "to be profiled" in error and f"small.yaml --out {copy}" in error and changed.get("gpu", "") in error
    assert sorted(path.name for path in copy.rglob("*")) == before, "a refusal leaves nothing behind"


def test_causes_of_an_earlier_measurement_are_not_told(cli: Cli, copy: Path) -> None:
    change_run(copy, source_hash="0123456789abcdef")  # so that nothing is profiled here
    medians = {r["pass"]: r["median_ms"] for r in rows_of(copy) if (r["method"], r["clock"]) == ("toy", "cpu-time")}
    change_rows(copy, "toy", median_ms=1.01 * medians["forward"], ci_low_ms=None, ci_high_ms=None)
    done = cli("why", copy)
    assert done.returncode == 2 and "1 of 3 cases are still to be profiled" in done.stderr
    assert len(done.stdout.splitlines()) == len(PASSES) and "toy" not in done.stdout.lower()


def test_a_model_that_is_gone_is_named(story: Story, copy: Path) -> None:
    gone = {"level": "block", "layer": None, "model": str(copy / "gone" / "config.json")}
    row = next(r for r in rows_of(copy) if r["method"] == "toy")
    change_rows(copy, "toy", **gone, case_id=read_case(row | gone).case_id)
    done = story.bench("why", copy)
    assert done.returncode == 1 and f"cannot be profiled: model: '{gone['model']}' is neither" in done.stderr
    assert len(done.stdout.splitlines()) == len(PASSES), "LoRA's causes are known"


def test_a_torn_line_is_passed_over(cli: Cli, copy: Path) -> None:
    with open(copy / "rows.jsonl", "a") as rows:
        rows.write('{"case_id": "0123')
    before = (copy / "rows.jsonl").read_bytes()
    done = cli("why", copy)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2 * len(PASSES)
    assert f"{copy / 'rows.jsonl'}: the last line is torn" in done.stderr
    assert (copy / "rows.jsonl").read_bytes() == before


def test_without_full_fine_tuning_there_is_nothing_to_explain(cli: Cli, copy: Path) -> None:
    rows = [json.dumps(r) for r in rows_of(copy) if r["method"] != "full"]
    (copy / "rows.jsonl").write_text("\n".join(rows) + "\n")
    done = cli("why", copy)
    assert (done.returncode, done.stdout) == (0, "")
    assert "square-48 fp32 1x16: no Full-FT was measured beside it, so there is no ratio to explain" in done.stderr
    assert "no ratio to explain" in cli("why", copy, "--method", "lora").stderr


def test_a_case_without_a_time_is_passed_over_with_its_reason(cli: Cli, copy: Path) -> None:
    change_rows(copy, "toy", status="oom", detail="no room", median_ms=None, ci_low_ms=None, ci_high_ms=None)
    done = cli("why", copy)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(PASSES)
    assert "eager r4 on square-48 fp32 1x16: no time, so no causes: oom: no room" in done.stderr
    change_rows(copy, "full", status="oom", detail="no room", median_ms=None, ci_low_ms=None, ci_high_ms=None)
    done = cli("why", copy)
    assert (done.returncode, done.stdout) == (0, "") and "Full-FT eager on square-48" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--method", "lore"), "--method: 'lore' is not valid. Did you mean 'lora'? Valid: full, toy, lora."),
        (("--impl", "eager,peft"), "--impl: 'peft' is not valid. Valid: eager."),
        (("--model", "gpt2-xl"), "--model: 'gpt2-xl' is not valid. Valid: none."),
        (("--gpu", "cpu"), "says itself what it was measured on"),
    ],
)
def test_what_was_not_measured_is_refused_with_what_was(
    cli: Cli, story: Story, arguments: tuple[str, str], told: str
) -> None:
    done = cli("why", story.folder, *arguments)
    assert done.returncode == 2 and told in done.stderr and not done.stdout


def test_a_folder_without_rows_is_refused(cli: Cli, copy: Path, tmp_path: Path) -> None:
    assert "no such folder" in cli("why", tmp_path / "none").stderr
    (copy / "rows.jsonl").write_text("")
    done = cli("why", copy)
    assert done.returncode == 2 and "no rows; nothing was measured there yet" in done.stderr


STUB = """#!/bin/sh
echo "$3" >> {log}
case $3 in run) echo {folder}; exit {run};; why) exit {why};; esac
echo "$2" >> {log}
"""


@pytest.mark.parametrize(
    ("run", "why", "status", "called"),
    [
        (0, 0, 0, ["run", "why", "plots"]),
        (1, 0, 1, ["run", "why", "plots"]),
        (0, 1, 1, ["run", "why", "plots"]),
        (130, 0, 130, ["run", "plots"]),
    ],
)
def test_make_bench_measures_explains_and_draws(
    tmp_path: Path, run: int, why: int, status: int, called: list[str]
) -> None:
    stub, log = tmp_path / "python", tmp_path / "log"
    stub.write_text(STUB.format(log=log, folder="results/x", run=run, why=why))
    stub.chmod(0o755)
    done = subprocess.run(["make", "bench", f"PYTHON={stub}"], cwd=ROOT, capture_output=True, text=True)
    words = log.read_text().split()
    assert [w for w in words if w in ("run", "why", "plots")] == called
    assert f"Error {status}" in done.stderr if status else done.returncode == 0
