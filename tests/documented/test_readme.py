"""What README states as a number is what was published or measured, and it stays two screens long."""

import csv
import json
import re
from datetime import datetime

import pytest

from tests.conftest import ROOT, Cli

README = (ROOT / "README.md").read_text()


def test_it_is_two_screens() -> None:
    assert len(README.splitlines()) <= 90
    assert len(re.findall(r"!\[", README)) == 1


def test_the_papers_table_is_the_papers() -> None:
    with (ROOT / "results" / "paper" / "table1.csv").open(newline="") as file:
        ms = {
            (r["model"], r["seq"], r["method"]): float(r["forward_ms"]) + float(r["backward_ms"])
            for r in csv.DictReader(file)
        }
    shown = README.split("<!-- paper's table: begin -->")[1].split("<!-- paper's table: end -->")[0]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in shown.strip().splitlines()[2:]]
    assert {row[0] for row in rows} == {model for model, _, _ in ms}
    for model, *cells in rows:
        for seq, (full, lora, ratio) in {"512": cells[:3], "1024": cells[3:]}.items():
            assert full == f"{ms[model, seq, 'full']:.1f} ms" and lora == f"{ms[model, seq, 'lora']:.1f} ms"
            assert ratio == f"{ms[model, seq, 'lora'] / ms[model, seq, 'full']:.2f}"


def test_the_time_of_table_1_is_the_recorded_one() -> None:
    run = json.loads((ROOT / "results" / "cpu" / "reference" / "table1" / "run.json").read_text())
    begun, ended = (datetime.fromisoformat(run["invocations"][0][name]) for name in ("started", "finished"))
    minutes, seconds = divmod(round((ended - begun).total_seconds()), 60)
    assert f"{minutes} min {seconds} s" in README


def test_the_memory_of_table_1_on_a_gpu_is_the_estimate(cli: Cli) -> None:
    peaks = re.findall(r"([\d.]+) GiB *$", cli("list", "table1", "--gpu", "a100").stdout, re.MULTILINE)
    told = re.search(r"at most (\d+) GiB", README)
    assert told and max(map(float, peaks)) == pytest.approx(float(told[1]), abs=0.5)
