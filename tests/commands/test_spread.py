"""bench spread: ratios of several runs beside each other, and how often an interval held what the others found."""

from pathlib import Path

import pytest

from bench.commands.spread import ratios
from tests.conftest import Cli
from tests.synthetic import case, sampled, write_run

FULL, LORA = case(), case(method="lora", rank=4, alpha=8.0, dropout=0.0, adapter_dtype="fp32")


def run_of(folder: Path, ratio: float, low: float, high: float, rounds: bool = True) -> Path:
    """A run whose LoRA has this ratio, under clocks cpu-time and, twice as large, cpu."""
    rows = []
    for clock, by in (("cpu-time", 1.0), ("cpu", 2.0)):
        for of, r in ((FULL, (1.0, 1.0, 1.0)), (LORA, (ratio * by, low * by, high * by))):
            row, _ = sampled("r", 0, 0, [10.0] * 24)
            same = {"case_id": of.case_id, "pass": "forward-backward", "clock": clock, "ratio_to": FULL.case_id}
            row |= of.axes() | same | dict(zip(("ratio", "ratio_low", "ratio_high"), r, strict=True))
            rows.append(row if rounds else row | dict.fromkeys(("ratio", "ratio_low", "ratio_high", "ratio_to")))
    return write_run(folder, rows, [])


def test_spread_and_coverage_by_hand(tmp_path: Path, cli: Cli) -> None:
    folders = [
        run_of(tmp_path / "1", 1.00, 0.96, 1.04),  # the others' median is 1.06
        run_of(tmp_path / "2", 1.02, 0.98, 1.06),  # 1.05
        run_of(tmp_path / "3", 1.10, 1.00, 1.20),  # 1.01
    ]
    done = cli("spread", *folders)
    assert done.returncode == 0, done.stderr
    line = next(x for x in done.stdout.splitlines() if "lora" in x)
    assert line.split()[-4:] == ["10.0%", "2", "of", "3"] and "1.10 [1.00, 1.20]" in line
    assert "1 ratios, 3 runs: spread (max / min - 1) at most 10.0%" in done.stdout
    assert "in 2 of 3 (67%)" in done.stdout and "2.00" not in done.stdout, "the headline's clock alone"


def test_without_ratios_in_common_it_says_so(tmp_path: Path, cli: Cli) -> None:
    one, other = run_of(tmp_path / "1", 1.0, 0.9, 1.1), run_of(tmp_path / "2", 1.0, 0.9, 1.1, rounds=False)
    done = cli("spread", one, other)
    assert done.returncode == 2 and "no ratio in common" in done.stderr
    assert cli("spread", one).returncode == 2
    assert cli("spread", one, tmp_path / "absent").returncode == 2


def test_a_ratio_that_one_run_lacks_is_left_out() -> None:
    row = {"case_id": "a", "pass": "forward", "clock": "cpu-time", "repeat": 0, "ratio": 1.1, "ratio_low": 1.0,
           "ratio_high": 1.2, "ratio_to": "b", **LORA.axes()}  # fmt: skip
    (found,) = ratios([[row, row | {"case_id": "c"}], [row | {"ratio": 1.2}]])
    assert found.spread == pytest.approx(1.2 / 1.1 - 1) and found.covered == 2
