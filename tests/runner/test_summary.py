"""The closing lines of a run: what is said of ratios, of what cannot run here, and of where the time went."""

from pathlib import Path
from typing import Any

import pytest

from bench.record.store import Record
from bench.runner.summary import closing_lines
from bench.sweeps.expand import make_plan
from tests.conftest import SWEEP


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return make_plan(str(path), on_cpu=True)


def lines_of(plan: Any, folder: Path, wide: int, refused: Any = (), spent: Any = None) -> str:
    """Of a run whose first `wide` ratios under the headline's clock are uncertain by 6 %, and the others by 4 %."""
    rows: list[dict[str, Any]] = []
    for case in plan.cases:
        for p, clock in plan.row_keys:
            base = next(c for c in plan.cases if c.method == "full" and c.layer == case.layer)
            row = {"case_id": case.case_id, "pass": p, "clock": clock, "repeat": 0, "status": "ok"}
            ours = [r for r in rows if r["clock"] == "cpu-time" and r["ratio_to"] != r["case_id"]]
            by = 0.06 if clock == "cpu" or len(ours) < wide else 0.04
            row |= {"ratio": 1.0, "ratio_low": 1 - by, "ratio_high": 1 + by, "ratio_to": base.case_id}
            rows.append(row)
    return "\n".join(closing_lines(plan, Record(folder, {}, rows), 1, spent or {}, refused))


def test_ratios_that_are_too_wide_are_said_once(plan: Any, tmp_path: Path) -> None:
    assert "ratios" not in lines_of(plan, tmp_path, 0)
    few = lines_of(plan, tmp_path, 2)
    assert "2 of 12 ratios are uncertain by more than 5%" in few and "measure again" not in few
    assert (
        "12 of 12 ratios are uncertain by more than 5%; to measure again at rest: --fresh --wait-quiet 10m"
        in lines_of(plan, tmp_path, 12)
    )


def test_what_cannot_run_here_is_one_line(plan: Any, tmp_path: Path) -> None:
    refused = [(c, "it needs a GPU") for c in plan.cases[:3]] + [(plan.cases[3], f"reason {i}") for i in range(4)]
    (line,) = (x for x in lines_of(plan, tmp_path, 0, refused).splitlines() if "Not run here" in x)
    assert line.startswith(
        "Not run here, 7 cases (3: it needs a GPU; 1: reason 0; 1: reason 1; 2 more reasons). List: "
    )


def test_where_the_time_went_leaves_out_what_took_none(plan: Any, tmp_path: Path) -> None:
    said = lines_of(plan, tmp_path, 0, spent={"starting": 30.0, "compiling": 0.0, "measuring": 70.0})
    assert "The time went into: starting 30 s (30%), measuring 1:10 (70%)" in said
