"""The ends of a run say the same of the same samples: rows.csv, the terminal, the tables, the CSV and the page."""

import csv
import html
import re
from pathlib import Path

import pytest

from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from tests.conftest import Bench, rows_of

INTERVAL = r"[\d.]+ \[[\d.]+, [\d.]+\]"


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_the_same_ratio_and_interval_at_all_ends(repeats: int, bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    sweep_file.write_text(sweep_file.read_text().replace("[square-48, square-64]", "square-64"))
    out = tmp_path / "out"
    done = bench("run", sweep_file, "--out", out, "--repeat", repeats)
    assert done.returncode == 0, done.stderr
    sentence = re.search(rf"LoRA eager took ({INTERVAL}) times as long as Full-FT", done.stderr)
    assert sentence, done.stderr
    assert bench.plots(out).returncode == 0

    with open(out / "summary.csv", newline="", encoding="utf-8") as f:
        (line,) = (r for r in csv.DictReader(f) if (r["method"], r["pass"]) == ("lora", "forward-backward"))
    ratio = Estimate(*(float(line[c]) for c in ("ratio_to_full", "ratio_ci_low", "ratio_ci_high")))
    assert sentence[1] == with_interval(ratio)

    row = next(x for x in (out / "tables.md").read_text().splitlines() if x.startswith("| square-64 | LoRA eager |"))
    cells = [cell.strip(" †") for cell in row.strip("|").split("|")]
    assert sentence[1] == cells[-1]
    page = html.unescape(re.sub(r"<[^>]+>", "", (out / "report.html").read_text()))
    assert sentence[1] in page

    found = [r for r in rows_of(out) if r["method"] == "lora" and r["pass"] == "forward-backward"]
    assert len(found) == repeats
    if repeats == 1:  # the row's own interval is the table's
        time = Estimate(*(found[0][c] for c in ("median_ms", "ci_low_ms", "ci_high_ms")))
        assert with_interval(time) in cells and with_interval(time) in page
        assert Estimate(*(float(line[c]) for c in ("median_ms", "ci_low_ms", "ci_high_ms"))) == time
    assert ("across 5 processes" in page) == (repeats == 5)
