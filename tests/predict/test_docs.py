"""docs/check.csv, which the check has written: intervals hold what they promise, and what missed is there."""

import csv

import pytest

from tests.conftest import ROOT

DOCS = ROOT / "docs"
HOLDS = 0.85  # the least share of unseen rows that a 90 % interval may hold


@pytest.fixture
def groups() -> list[dict[str, str]]:
    with (DOCS / "check.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_ninety_percent_intervals_hold_what_no_fit_had_seen(groups: list[dict[str, str]]) -> None:
    whole = [g for g in groups if g["group"].startswith("all") and g["fitted"] == "False"]
    assert len(whole) == 5  # GEMMs and memory-bound operators, shapes and boards held out; whole models
    assert all(float(g["within_90"]) >= HOLDS for g in whole), whole


def test_the_page_has_the_numbers_of_the_csv(groups: list[dict[str, str]]) -> None:
    lines = (DOCS / "predict.md").read_text(encoding="utf-8").splitlines()
    for group in groups:
        name = group["group"] + " (FITTED to these rows)" * (group["fitted"] == "True")
        means = [x.split(" | ")[2] for x in lines if x.startswith(f"| {name} | {group['rows']} | ")]
        assert any(float(mean.rstrip("%")) == pytest.approx(100 * float(group["mean"]), abs=0.06) for mean in means)


def test_every_target_says_whether_it_was_met(groups: list[dict[str, str]]) -> None:
    page = (DOCS / "predict.md").read_text(encoding="utf-8")
    for group in (g for g in groups if g["target"]):
        target = float(group["target"])
        word = "met" if float(group["mean"]) <= target else "MISSED"
        assert f"{target:.0%} {word}" in page
