"""The ends of a run say the same of the same samples: rows.csv, the terminal, the tables, the CSV and the page."""

import csv
import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from tests.conftest import Bench, rows_of
from tests.synthetic import case, sampled, write_run

INTERVAL = r"[\d.]+ \[[\d.]+, [\d.]+\]"
WHOLE = "forward-backward"


def _estimate(line: dict[str, str], *columns: str) -> Estimate:
    return Estimate(*(float(line[column]) for column in columns))


def _drawn(bench: Bench, out: Path, clock: str) -> tuple[str, list[str], str, dict[str, str]]:
    """LoRA's ratio of forward-backward as all ends of a drawn folder say it, the table's cells, the page, the CSV's
    line."""
    drawn = bench.plots(out)
    assert drawn.returncode == 0, drawn.stderr
    with open(out / "summary.csv", newline="", encoding="utf-8") as f:
        lines = [r for r in csv.DictReader(f) if (r["method"], r["pass"], r["clock"]) == ("lora", WHOLE, clock)]
    (line,) = lines
    said = with_interval(_estimate(line, "ratio_to_full", "ratio_ci_low", "ratio_ci_high"))
    row = next(x for x in (out / "tables.md").read_text().splitlines() if x.startswith("| square-64 | LoRA eager |"))
    cells = [cell.strip(" †") for cell in row.strip("|").split("|")]
    assert said == cells[-1]
    page = html.unescape(re.sub(r"<[^>]+>", "", (out / "report.html").read_text()))
    assert said in page
    return said, cells, page, line


def test_the_ends_of_a_run(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    sweep_file.write_text(sweep_file.read_text().replace("[square-48, square-64]", "square-64"))
    out = tmp_path / "out"
    done = bench("run", sweep_file, "--out", out, "--where", "method=full,lora")
    assert done.returncode == 0, done.stderr
    on_terminal = re.search(rf"lora/eager .*{WHOLE} [\d.]+ ms +({INTERVAL})", done.stderr)
    assert on_terminal, done.stderr
    said, cells, page, line = _drawn(bench, out, "cpu-time")
    assert on_terminal[1] == said
    with open(out / "rows.csv", newline="", encoding="utf-8") as f:
        (row,) = (r for r in csv.DictReader(f) if (r["method"], r["pass"], r["clock"]) == ("lora", WHOLE, "cpu-time"))
    ratio = ("ratio", "ratio_low", "ratio_high")
    assert _estimate(row, *ratio) == _estimate(line, "ratio_to_full", "ratio_ci_low", "ratio_ci_high")
    time = _estimate(row, "median_ms", "ci_low_ms", "ci_high_ms")  # the row's own interval
    assert with_interval(time) in cells and with_interval(time) in page
    assert _estimate(line, "median_ms", "ci_low_ms", "ci_high_ms") == time
    blocks = {}
    for kept in map(json.loads, (out / "samples.jsonl").read_text().splitlines()):
        if (kept["pass"], kept["clock"]) == (WHOLE, "cpu-time"):
            frame = pd.DataFrame({"ms": kept["samples_ms"], "round": kept["rounds"]})
            blocks[kept["case_id"]] = frame.groupby("round").ms.median()
    ratios = (blocks[row["case_id"]] / blocks[row["ratio_to"]]).dropna()
    assert int(row["rounds"]) == len(ratios) and float(row["ratio"]) == pytest.approx(ratios.median(), abs=1e-6)
    (full,) = (r for r in rows_of(out) if (r["method"], r["pass"], r["clock"]) == ("full", WHOLE, "cpu-time"))
    assert full["case_id"] == row["ratio_to"]


def test_the_ends_of_five_processes(bench: Bench, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lora = {"method": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "adapter_dtype": "fp32"}
    rows, samples = [], []
    for axes, ms in (({}, 10.0), (lora, 13.0)):
        of = case(**axes)
        for repeat in range(5):
            row, line = sampled("r", repeat, repeat, ms * (1 + 0.01 * rng.standard_normal() + 0.01 * rng.random(24)))
            same = {"case_id": of.case_id, "pass": WHOLE, "clock": "cpu"}
            rows.append(row | of.axes() | same)
            samples.append(line | same)
    out = write_run(tmp_path / "out", rows, samples)
    _, _, page, line = _drawn(bench, out, "cpu")
    medians = [np.median([r["median_ms"] for r in rows if r["method"] == method]) for method in ("lora", "full")]
    assert float(line["ratio_to_full"]) == pytest.approx(medians[0] / medians[1])
    assert "across 5 processes" in page
