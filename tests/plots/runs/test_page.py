"""The page of trainings: what it answers, what its table and figures show, and that it can be drawn again."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plots.__main__ import main
from plots.data.training_runs import duration_word, load_runs
from plots.runs.compared import pareto, smoothed
from tests.plots.reading import cells_of, lines_of, section
from tests.plots.runs.made import five, made

DRAWN = {
    "report.md", "report.html", "table2.md", "table2.csv",
    *(f"training-{figure}.{kind}" for figure in ("loss", "accuracy") for kind in ("png", "svg")),
}  # fmt: skip


def number(cell: str) -> tuple[float, float, float]:
    """'0.80 [0.79, 0.81]'."""
    value, low, high = map(float, re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", cell).groups())  # type: ignore[union-attr]
    return value, low, high


def test_a_glob_of_the_shell_works_again_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, said = five(tmp_path / "runs"), []
    for _ in range(3):
        assert main([str(path) for path in sorted(runs.iterdir())]) == 0
        said.append(capsys.readouterr())
        assert {p.name for p in runs.iterdir() if p.is_file()} == DRAWN
    assert said[0].out == said[1].out == said[2].out
    assert said[0].err == "" and len(said[1].err.splitlines()) == 1
    assert said[1].err.startswith("note: ") and "and 4 more: no folders; left out" in said[1].err
    assert main([str(runs)]) == 0
    both = capsys.readouterr()
    assert both.out == said[0].out and both.err == f"note: {runs}: took the 5 training runs in it\n"


def test_what_is_no_run_is_passed_over_and_what_is_not_there_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    made(runs / "lora", "lora", 1.0)
    (runs / "begun").mkdir()
    (runs / "begun" / "settings.json").write_text("{}")
    (runs / "empty").mkdir()
    assert main([str(path) for path in sorted(runs.iterdir())]) == 0
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and notes[0].startswith(f"note: {runs / 'begun'}: training is not finished")
    assert notes[1].startswith(f"note: {runs / 'empty'}: no results folder: none of rows.jsonl")
    before = (runs / "report.md").read_bytes()
    assert main([str(runs / "lora"), str(runs / "lroa")]) == 2
    assert capsys.readouterr().err == (
        f"python -m plots: {runs / 'lroa'}: no such folder. A results folder holds one of rows.jsonl, rows.csv, "
        "run.json.\n"
    )
    for alone in ("begun", "empty", "report.md"):
        assert main([str(runs / alone)]) == 2
        assert str(runs / alone) in capsys.readouterr().err
    assert (runs / "report.md").read_bytes() == before


def test_a_report_of_something_else_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "lora", "lora", 1.0)
    (tmp_path / "report.md").write_text("# My thesis\n")
    assert main([str(tmp_path / "lora")]) == 2
    assert "--out" in capsys.readouterr().err and (tmp_path / "report.md").read_text() == "# My thesis\n"
    assert main([str(tmp_path / "lora"), "--out", str(tmp_path / "page")]) == 0
    assert (tmp_path / "page" / "report.html").exists()


def test_the_answer_and_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = five(tmp_path / "runs")
    assert main([str(runs)]) == 0
    said = capsys.readouterr().out.splitlines()[1:]
    assert said[0] == (
        "llama-x: most accurate is paca with 52.00 ± 0.40 %, after 55.3 s of training. lora lies within two standard"
        " errors of it."
    )
    assert re.match(
        r"llama-x: of LoRA's median step, half took 0\.60\d* .*, paca took 0\.80.* and full took 1\.(49|50)", said[1]
    )
    text = (runs / "report.md").read_text()
    assert all(words in text for words in said) and "CPU" not in text
    cells = cells_of(section(text, "### Runs"), "llama-x", "paca")
    assert (cells["Examples"], cells["Training time"], cells["Final loss"]) == ("1,920", "55.3 s", "0.050")
    assert (cells["Accuracy (%)"], cells["Tokens/s"], cells["Peak memory (GiB)"]) == ("52.00 ± 0.40", "1,234", "2.00")
    assert number(cells["Median step (ms)"])[0] == pytest.approx(800, rel=0.01), "the long first step is left out"
    ratio, low, high = number(cells["Ratio to LoRA, here"])
    steps = {n: [m["step_s"] for m in map(json.loads, (runs / n / "metrics.jsonl").open())] for n in ("paca", "lora")}
    assert ratio == pytest.approx(np.median(steps["paca"][6:]) / np.median(steps["lora"][6:]), abs=1e-3)
    assert low < 0.8 < high and high - low < 0.03
    assert cells_of(section(text, "### Runs"), "llama-x", "lora")["Ratio to LoRA, here"] == "1"
    assert "Ratio to LoRA, paper" not in cells, "another model than the paper's"
    assert "0.834" not in text
    second = cells_of(section(text, "### Table 2"), "llama-x", "PaCA", "run paca")
    assert second["Avg., here"] == "52.00 ± 0.40" and second["STEM, here"] == "30.00 ± 1.25"
    (line,) = lines_of(runs / "table2.csv", source="run paca")
    assert float(line["ratio_to_lora"]) == pytest.approx(ratio, abs=1e-3) and float(line["average_se"]) == 0.4
    assert float(line["ratio_to_lora_ci_low"]) == pytest.approx(low, abs=1e-3) and line["paper_ratio_to_lora"] == ""


def test_the_paper_stands_beside_its_own_model_and_settings_alone(tmp_path: Path) -> None:
    runs, model = tmp_path / "runs", {"model": "meta-llama/Llama-2-7b-hf"}
    made(runs / "lora", "lora", 1.0, **model)
    made(runs / "paca", "paca", 0.8, **model)
    made(runs / "shorter", "paca", 0.8, **model, length=128)
    assert main([str(runs)]) == 0
    table = section((runs / "report.md").read_text(), "### Runs")
    beside = {n: cells_of(table, "llama2-7b", n)["Ratio to LoRA, paper"] for n in ("lora", "paca", "shorter")}
    assert beside == {"lora": "1.000", "paca": "0.834", "shorter": ""}
    assert cells_of(table, "llama2-7b", "shorter")["Ratio to LoRA, here"] == ""


def test_a_method_beside_the_paper_s_has_a_line_of_its_own(tmp_path: Path) -> None:
    runs, model = tmp_path / "runs", {"model": "meta-llama/Llama-2-7b-hf"}
    made(runs / "lora", "lora", 1.0, 50.0, **model)
    made(runs / "rslora", "lora", 1.2, 51.0, **model, scaling="rslora")
    made(runs / "dora", "dora", 2.0, 52.0, **model, seed=1)
    made(runs / "bitfit", "bitfit", 0.5, 47.0, **model, seed=2)
    made(runs / "checkpointed", "dora", 1.3, 50.0, **model, gradient_checkpointing="full")
    made(runs / "paca-lookalike", "qpaca", 1.0, 50.0, **model, strategy="paca")
    assert main([str(runs)]) == 0
    table = section((runs / "report.md").read_text(), "### Runs")
    cells = {n: cells_of(table, "llama2-7b", n) for n in ("lora", "rslora", "dora", "bitfit", "checkpointed")}
    assert {n: c["Ratio to LoRA, paper"] for n, c in cells.items()} == {
        "lora": "1.000", "rslora": "", "dora": "", "bitfit": "", "checkpointed": "",
    }  # fmt: skip
    assert number(cells["dora"]["Ratio to LoRA, here"])[0] == pytest.approx(2.0, abs=0.03)
    assert number(cells["rslora"]["Ratio to LoRA, here"])[0] == pytest.approx(1.2, abs=0.03)
    assert cells["checkpointed"]["Ratio to LoRA, here"] == "", "another step than LoRA's"
    for name in ("rslora", "dora", "bitfit", "paca-lookalike"):
        (line,) = lines_of(runs / "table2.csv", source=f"run {name}")
        assert (line.get("paper_strategy") or "") == "" and float(line["average"]) > 0, name
    assert (runs / "training-accuracy.svg").is_file() and (runs / "training-loss.svg").is_file()


def test_without_lora_full_fine_tuning_is_the_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    made(runs / "full", "full", 1.0)
    made(runs / "paca", "paca", 0.5, seed=1)
    made(runs / "few", "paca", 0.5, seed=1, steps=5)
    assert main([str(runs)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"of Full-FT's median step, paca took 0\.(49|50)\d* \[", said)
    assert "the steps of few are too uncertain" in said
    table = section((runs / "report.md").read_text(), "### Runs")
    assert cells_of(table, "llama-x", "full")["Ratio to Full-FT, here"] == "1"
    assert cells_of(table, "llama-x", "few")["Ratio to Full-FT, here"].endswith("(no interval)")
    assert not (runs / "training-accuracy.svg").exists(), "nothing was evaluated"


def test_a_model_is_told_without_its_path_and_a_cpu_at_once(tmp_path: Path) -> None:
    run = made(tmp_path / "runs" / "lora", "lora", 1.0, model="/some/where/llama-x/", gpu=None, device="cpu")
    assert main([str(run)]) == 0
    text = (tmp_path / "runs" / "report.md").read_text()
    assert text.startswith("# Training runs: llama-x\n\n**Trained on a CPU: these times say nothing about a GPU.**")
    assert "/some/where" not in text.split("## Where it comes from")[0].replace("some/where/llama-x/, on cpu", "")


def test_two_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [made(tmp_path / x, "lora", 1.0, model=f"/{x}/llama") for x in "ab"]
    assert [run.subject for run in load_runs(paths)] == ["/a/llama", "/b/llama"]


def test_figures_show_each_run_and_the_front(tmp_path: Path) -> None:
    runs = five(tmp_path / "runs")
    assert main([str(runs)]) == 0
    trained = {"lora", "paca", "half", "full"}
    for figure, names in (("loss", trained), ("accuracy", trained | {"no-tuning"})):
        svg = (runs / f"training-{figure}.svg").read_text()
        assert {name for name in (*trained, "no-tuning") if name in svg} == names
        assert (runs / f"training-{figure}.png").stat().st_size > 10_000
        assert f"training-{figure}.png" in (runs / "report.md").read_text()
    front = [run.name for run in pareto(load_runs(sorted(p for p in runs.iterdir() if p.is_dir())))]
    assert front == ["no-tuning", "half", "paca"], "full is beaten by the untrained model, lora by paca"


def test_the_smoothed_line_is_a_moving_mean() -> None:
    x = np.random.default_rng(0).normal(size=100)
    found: Any = smoothed(list(x))
    assert found == pytest.approx([x[max(i - 5, 0) : i + 6].mean() for i in range(100)])
    assert smoothed([1.0, 2.0, 6.0]) == pytest.approx([1.0, 2.0, 6.0]), "too few to smooth"


def test_a_run_of_an_earlier_version_tells_what_it_has(tmp_path: Path) -> None:
    """Without step_s, tokens and memory: a step is what lies between two readings of its clock."""
    run = made(tmp_path / "runs" / "lora", "lora", 2.0)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    for line in lines:
        del line["step_s"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = load_runs([run])
    assert found.steps_s == pytest.approx(np.diff([0.0, *found.clock]))
    told = {
        k: v for k, v in json.loads((run / "train.json").read_text()).items() if k not in ("tokens_per_s", "peak_mib")
    }
    (run / "train.json").write_text(json.dumps(told))
    assert main([str(run)]) == 0
    assert "Tokens/s" not in section((tmp_path / "runs" / "report.md").read_text(), "### Runs")


def test_durations() -> None:
    told = [duration_word(s) for s in (0.0123, 2.4, 12.34, 59.97, 725, 3599.7, 26221.79)]
    assert told == ["0.0123 s", "2.40 s", "12.3 s", "1 min 00 s", "12 min 05 s", "1 h 00 min", "7 h 17 min"]
