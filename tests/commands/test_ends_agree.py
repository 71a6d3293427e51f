"""The ends of a run say the same of the same samples: rows.csv, the terminal, the tables, the CSV and the page."""

import csv
import html
import re
from pathlib import Path

import numpy as np

from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from bench.record.store import Record
from bench.runner.summary import headline
from tests.conftest import Bench, rows_of
from tests.synthetic import case, sampled, write_run

INTERVAL = r"[\d.]+ \[[\d.]+, [\d.]+\]"


def _assert_all_ends_say(said: str, bench: Bench, out: Path) -> tuple[list[str], str, dict[str, str]]:
    """Draws the folder; its LoRA's ratio of forward-backward is `said` in the table, the CSV and on the page.

    Returns the table's cells, the page's text and the CSV's line.
    """
    drawn = bench.plots(out)
    assert drawn.returncode == 0, drawn.stderr
    with open(out / "summary.csv", newline="", encoding="utf-8") as f:
        (line,) = (r for r in csv.DictReader(f) if (r["method"], r["pass"]) == ("lora", "forward-backward"))
    ratio = Estimate(*(float(line[c]) for c in ("ratio_to_full", "ratio_ci_low", "ratio_ci_high")))
    assert said == with_interval(ratio)
    row = next(x for x in (out / "tables.md").read_text().splitlines() if x.startswith("| square-64 | LoRA eager |"))
    cells = [cell.strip(" †") for cell in row.strip("|").split("|")]
    assert said == cells[-1]
    page = html.unescape(re.sub(r"<[^>]+>", "", (out / "report.html").read_text()))
    assert said in page
    return cells, page, line


def test_the_ends_of_a_run(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    sweep_file.write_text(sweep_file.read_text().replace("[square-48, square-64]", "square-64"))
    out = tmp_path / "out"
    done = bench("run", sweep_file, "--out", out, "--where", "method=full,lora")
    assert done.returncode == 0, done.stderr
    sentence = re.search(rf"LoRA eager took ({INTERVAL}) times as long as Full-FT", done.stderr)
    assert sentence, done.stderr
    cells, page, line = _assert_all_ends_say(sentence[1], bench, out)
    (found,) = (r for r in rows_of(out) if (r["method"], r["pass"]) == ("lora", "forward-backward"))
    time = Estimate(*(found[c] for c in ("median_ms", "ci_low_ms", "ci_high_ms")))  # the row's own interval
    assert with_interval(time) in cells and with_interval(time) in page
    assert Estimate(*(float(line[c]) for c in ("median_ms", "ci_low_ms", "ci_high_ms"))) == time


def test_the_ends_of_five_processes(bench: Bench, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lora = {"method": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "adapter_dtype": "fp32"}
    rows, samples = [], []
    for axes, ms in (({}, 10.0), (lora, 13.0)):
        of = case(**axes)
        for repeat in range(5):
            row, line = sampled("r", repeat, repeat, ms * (1 + 0.01 * rng.standard_normal() + 0.01 * rng.random(24)))
            same = {"case_id": of.case_id, "pass": "forward-backward", "clock": "cpu"}
            rows.append(row | of.axes() | same)
            samples.append(line | same)
    out = write_run(tmp_path / "out", rows, samples)
    record = Record(out, {})
    record.load()
    sentence = headline(record.rows, record.samples())
    assert sentence
    said = re.search(INTERVAL, sentence)
    assert said
    _, page, _ = _assert_all_ends_say(said[0], bench, out)
    assert "across 5 processes" in page
