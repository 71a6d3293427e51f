"""Folders of cases that took turns: the ratios of their rounds stand everywhere, and what is too noisy is no answer."""

import gzip
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.case.clocks import CLOCKS
from bench.record.ratios import with_ratios
from bench.record.stats import ratio_estimate
from plots.data.load import load
from plots.data.results import read_results
from plots.report import draw
from tests.plots.reading import cells_of, draw_tables, lines_of, pick, section

BOTH, RATIO = "forward-backward", "Ratio to Full-FT"
Fill = Callable[..., None]


def by_round(maker: Any, pass_: str = BOTH, clock: str = "cpu-time", **axes: object) -> np.ndarray:
    """The only case's median of each round."""
    wanted = {"pass": pass_, "clock": clock} | axes
    (row,) = (r for r in maker.rows if all(r[k] == v for k, v in wanted.items()))
    found = [s for s in maker.samples if all(s[k] == row[k] for k in ("case_id", "pass", "clock", "repeat"))]
    frame = pd.DataFrame({"x": found[0]["samples_ms"], "round": found[0]["rounds"]})
    return frame.groupby("round").x.median().to_numpy()


def test_every_file_has_the_ratio_of_the_rounds(maker: Any, fill_turns: Fill) -> None:
    fill_turns(maker)
    said = draw_tables(maker)
    text = section((maker.path / "table1.md").read_text(), "### Forward and backward time")
    for model in ("gpt2-xl", "gpt2-medium", "tinyllama"):
        for clock in ("cpu-time", "cpu"):
            for method in ("lora", "paca"):
                axes = {"model": model, "seq": 128, "clock": clock}
                ratios = by_round(maker, method=method, **axes) / by_round(maker, method="full", **axes)
                row = next(r for r in maker.rows if {**axes, "method": method, "pass": BOTH}.items() <= r.items())
                line = pick(
                    maker.path / "table1.csv", method=method, model=model, seq="128", clock=clock, **{"pass": BOTH}
                )
                told = [float(line[k]) for k in ("ratio_to_full", "ratio_ci_low", "ratio_ci_high")]
                assert told == [row[k] for k in ("ratio", "ratio_low", "ratio_high")], "exactly the row's"
                assert told[0] == pytest.approx(np.median(ratios)) and {*told[1:]} <= {*map(float, ratios)}
            cell = cells_of(text, model, "1 x 128", "PaCA eager")[RATIO]
            low, high = re.fullmatch(r"[\d.]+ \[([\d.]+), ([\d.]+)\]", cell).groups()
            assert 0.64 < float(low) < float(high) < 0.71, "narrow, and without a mark, although its times are noisy"
    assert "54 of 54 times are noisy (†)" in (maker.path / "table1.md").read_text()
    assert "†" not in text and "carry no mark: Forward (ms); Backward (ms); Forward-backward (ms)." in text
    assert "measured in turns, 16 rounds; 1 thread" in text and "clock cpu-time (time that the processor" in text
    assert re.search(r"clock cpu-time: on \S+ at 1 x 128, .* tie for the fastest: 0.66\S* \S+ \S+ and 0.66", said)
    assert "faster than Full-FT eager here, although the paper has LoRA slower on an A100" in said


def test_wall_time_stands_in_the_tables_file_and_not_in_the_report(maker: Any, fill_turns: Fill) -> None:
    fill_turns(maker)
    draw_tables(maker)
    titles = re.findall(r"^### Forward and backward time.*clock (.*)$", (maker.path / "table1.md").read_text(), re.M)
    assert titles == ["cpu-time", "cpu"]
    report = (maker.path / "report.md").read_text()
    assert re.findall(r"^### Forward and backward time.*clock (.*)$", report, re.M) == ["cpu-time"]
    assert "Clock cpu is the wall time of the same samples; table1.md and table1.csv have it." in report


@pytest.mark.parametrize("kept", ["rows.csv alone", "rows.csv and samples", "packed samples"])
def test_what_is_left_of_a_folder_tells_the_same_ratios(maker: Any, fill_turns: Fill, kept: str) -> None:
    fill_turns(maker)
    draw_tables(maker)
    names = ("ratio_to_full", "ratio_ci_low", "ratio_ci_high")
    before = [[line[name] for name in names] for line in lines_of(maker.path / "table1.csv")]
    samples = maker.path / "samples.jsonl"
    if kept == "packed samples":
        (maker.path / "samples.jsonl.gz").write_bytes(gzip.compress(samples.read_bytes()))
    else:
        pd.DataFrame(maker.rows).to_csv(maker.path / "rows.csv", index=False)
        (maker.path / "rows.jsonl").unlink()
    if kept != "rows.csv and samples":
        samples.unlink()
    draw(load(maker.path), figures=())
    assert before == [[line[name] for name in names] for line in lines_of(maker.path / "table1.csv")]


def test_rows_csv_and_the_tables_have_the_same_ratio_of_rows_measured_alone(maker: Any, fill_clocks: Fill) -> None:
    fill_clocks(maker, [("full", "eager"), ("lora", "eager"), ("paca", "eager")], [(4, 512)], models=("tinyllama",))
    draw_tables(maker)
    rows = with_ratios(maker.rows, maker.samples)
    assert len(rows) == len(maker.rows) == 27
    for row in rows:
        line = pick(maker.path / "table1.csv", method=row["method"], clock=row["clock"], **{"pass": row["pass"]})
        assert [row[k] for k in ("ratio", "ratio_low", "ratio_high")] == [
            float(line[k]) for k in ("ratio_to_full", "ratio_ci_low", "ratio_ci_high")
        ]


def test_cases_that_are_nobodys_baseline_are_paired_too(maker: Any, fill_turns: Fill) -> None:
    fill_turns(maker, [(1, 64)])
    results = read_results(load(maker.write()))
    lora, paca = (c for c in results.cases if c.model == "tinyllama" and c.method != "full")
    found = results.over(paca, lora, "LoRA", BOTH, "cpu-time")
    ratios = by_round(maker, method="paca", model="tinyllama") / by_round(maker, method="lora", model="tinyllama")
    assert found.value.value == pytest.approx(np.median(ratios)) and not found.noisy
    assert found.value == ratio_estimate(ratios, between=CLOCKS["cpu-time"].between)
    assert ratio_estimate(ratios).low in ratios and CLOCKS["cpu-time"].between > CLOCKS["eager"].between == 0


@pytest.mark.parametrize("lost", [("rounds",), ("turns",), ("ratios", "ratio_to"), ("rounds", "turns", "ratios")])
def test_lines_of_samples_that_tell_less_fall_back_on_what_is_left(
    maker: Any, fill_turns: Fill, lost: tuple[str, ...]
) -> None:
    """On the row's own ratio to its baseline; elsewhere on the quotient of the medians."""
    fill_turns(maker, [(1, 64)])
    for line in maker.samples:
        line |= dict.fromkeys(lost)
    results = read_results(load(maker.write()))
    _, lora, paca = (c for c in results.cases if c.model == "tinyllama")
    found = results.ratio(lora, BOTH, "cpu-time")
    (row,) = (r for r in maker.rows if (r["case_id"], r["pass"], r["clock"]) == (lora.case_id, BOTH, "cpu-time"))
    assert found.value.value == pytest.approx(row["ratio"], rel=0.02)
    if "ratio_to" not in lost:
        assert (found.value.low, found.value.high) == (row["ratio_low"], row["ratio_high"])
    times = {
        m: [r["median_ms"] for r in maker.rows if r["case_id"] == m.case_id and r["pass"] == BOTH] for m in (lora, paca)
    }
    both = results.over(paca, lora, "LoRA", BOTH, "cpu-time").value
    if {"rounds", "turns"} & {*lost}:
        assert both.value == times[paca][0] / times[lora][0]
    draw(load(maker.path), figures=())


@pytest.mark.parametrize("empty", [("ratio",), ("ratio_low",), ("ratio", "ratio_low", "ratio_high"), ("rounds",)])
def test_ratios_that_a_row_lacks_come_from_its_samples(maker: Any, fill_turns: Fill, empty: tuple[str, ...]) -> None:
    fill_turns(maker, [(1, 64)])
    for row in maker.rows:
        row |= dict.fromkeys(empty)
    draw_tables(maker)
    line = pick(maker.path / "table1.csv", method="lora", model="tinyllama", clock="cpu-time", **{"pass": BOTH})
    assert 0.64 < float(line["ratio_ci_low"]) < float(line["ratio_to_full"]) < float(line["ratio_ci_high"]) < 0.71


def test_repeats_are_combined_by_process(maker: Any, fill_turns: Fill) -> None:
    for i in range(5):
        fill_turns(maker, [(1, 64)], repeat=i)
    draw_tables(maker)
    line = pick(maker.path / "table1.csv", method="lora", model="gpt2-xl", clock="cpu-time", **{"pass": BOTH})
    rows = [
        r
        for r in maker.rows
        if (r["method"], r["model"], r["clock"], r["pass"]) == ("lora", "gpt2-xl", "cpu-time", BOTH)
    ]
    assert len(rows) == 5 and float(line["ratio_to_full"]) == np.median([r["ratio"] for r in rows])
    assert line["ratio_scope"] == "across 5 processes"
    assert min(r["ratio"] for r in rows) <= float(line["ratio_ci_low"]) < float(line["ratio_ci_high"])


def test_where_most_ratios_are_noisy_there_is_no_answer(maker: Any, fill_turns: Fill) -> None:
    fill_turns(maker, [(1, 64)], noise=0.3)
    said = draw_tables(maker)
    assert said == (
        "No answer: too noisy (6 of 6 ratios are uncertain by more than 5 %). Measure again with --fresh --wait-quiet "
        "10m, on a quieter machine, or in more rounds."
    )
    text = (maker.path / "table1.md").read_text()
    assert not [line for line in text.splitlines() if line.startswith("|") and "†" in line]
    assert f"carry no mark: Forward (ms); Backward (ms); Forward-backward (ms); {RATIO}." in text


def widen(maker: Any, by: float, *methods: str) -> None:
    """Makes the ratios of methods on gpt2-xl uncertain by this part."""
    for row in maker.rows:
        if row["method"] in methods and row["model"] == "gpt2-xl":
            row |= {"ratio_low": row["ratio"] * (1 - by), "ratio_high": row["ratio"] * (1 + by)}


def test_a_few_noisy_ratios_are_marked_and_wide_ones_are_no_result(maker: Any, fill_turns: Fill) -> None:
    fill_turns(maker, [(1, 64)])
    widen(maker, 0.1, "lora")
    said = draw_tables(maker)
    assert re.search(
        r"on gpt2-xl at 1 x 64, PaCA eager and LoRA eager tie for .* and 0.668 \[0.601, 0.735\] times", said
    )
    text = section((maker.path / "table1.md").read_text(), "### Forward and backward time")
    assert [line.split(" | ")[0] for line in text.splitlines() if "†" in line] == ["| gpt2-xl"]
    assert cells_of(text, "gpt2-xl", "LoRA eager")[RATIO].endswith(" †")
    widen(maker, 0.3, "lora")
    said = draw_tables(maker)
    assert "PaCA eager is the fastest: 0.6" in said and "LoRA eager" not in said
    assert "No answer for LoRA there: too noisy." in said
    for row in maker.rows:
        if row["method"] == "lora":
            row |= {"ratio_low": 0.1, "ratio_high": 2.0}
    said = draw_tables(maker)
    assert "LoRA eager" not in said and "PaCA eager is the fastest" in said and "No answer for LoRA there: " in said


def test_why_lora_is_faster_is_told_on_a_cpu_and_where_it_is(maker: Any, fill_turns: Fill, fill: Fill) -> None:
    fill_turns(maker, [(1, 64)])
    for row in maker.rows:
        slower = ("median_ms", "ci_low_ms", "ci_high_ms", "ratio", "ratio_low", "ratio_high")
        row |= {name: row[name] * 1.6 for name in slower if row["method"] == "lora"}
    lora = {row["case_id"] for row in maker.rows if row["method"] == "lora"}
    maker.samples[:] = [line for line in maker.samples if line["case_id"] not in lora]
    assert "LoRA eager, the fastest LoRA, took 1.069" in (said := draw_tables(maker)) and "A100" not in said
    maker.rows.clear()
    maker.samples.clear()
    maker.run |= {"gpu_key": "h100"}
    fill(maker, [("full", "eager"), ("lora", "triton")], [(4, 512)])
    assert "LoRA triton is the fastest: 0.9" in (said := draw_tables(maker)) and "A100" not in said


def test_half_alone_says_both(maker: Any, fill_turns: Fill) -> None:
    fill_turns(maker, [(1, 64)])
    for row in maker.rows:
        if row["model"] == "tinyllama":
            row |= {"rounds": None, "beside": "nothing", "threads": 2}
    draw_tables(maker)
    assert "measured in turns, 16 rounds and measured alone; 1 and 2 threads" in (maker.path / "table1.md").read_text()
