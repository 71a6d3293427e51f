"""Where the time goes: GPU work and launch gap, against numbers worked out here from the same samples by resampling."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from bench.record.stats import Estimate, Measured, median_draws
from plots.data.load import load
from plots.report import draw
from plots.text.numbers import difference_word
from tests.plots.reading import PASSES, cells_of, draw_tables, lines_of, pick, samples, section, value

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
SHAPES = [(4, 512), (4, 1024)]
ONE = ("gpt2-xl",)
MORE = "More than Full-FT"


def resampled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.median(x[rng.integers(0, len(x), (4000, len(x)))], axis=1)


def ends(line: dict[str, str], name: str) -> tuple[float, float, float]:
    return float(line[f"{name}_low_ms"]), float(line[f"{name}_ms"]), float(line[f"{name}_high_ms"])


def test_gap_and_difference_to_full_equal_an_independent_computation(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, SHAPES, models=ONE)
    draw_tables(maker)
    rng = np.random.default_rng(0)
    for seq in (512, 1024):
        for method in ("lora", "paca"):
            for pass_ in PASSES:
                x = {
                    (m, c): samples(maker, pass_, c, method=m, seq=seq)
                    for m in (method, "full")
                    for c in ("eager", "graph")
                }
                mid = {key: np.median(v) for key, v in x.items()}
                line = pick(maker.path / "table1.csv", method=method, seq=str(seq), clock="eager", **{"pass": pass_})
                gap, base_gap = (mid[m, "eager"] - mid[m, "graph"] for m in (method, "full"))
                assert float(line["launch_gap_ms"]) == pytest.approx(gap)
                assert float(line["launch_gap_percent"]) == pytest.approx(100 * gap / mid[method, "eager"])
                assert float(line["more_eager_ms"]) == pytest.approx(mid[method, "eager"] - mid["full", "eager"])
                assert float(line["more_gpu_work_ms"]) == pytest.approx(mid[method, "graph"] - mid["full", "graph"])
                assert float(line["more_launch_gap_ms"]) == pytest.approx(gap - base_gap)
                d = {key: resampled(v, rng) for key, v in x.items()}
                plain = {
                    "launch_gap": d[method, "eager"] - d[method, "graph"],
                    "more_gpu_work": d[method, "graph"] - d["full", "graph"],
                    "more_launch_gap": d[method, "eager"]
                    - d[method, "graph"]
                    - d["full", "eager"]
                    + d["full", "graph"],
                }
                for name, draws in plain.items():
                    low, value, high = ends(line, name)
                    expected = np.subtract(*np.percentile(draws, (97.5, 2.5)))
                    assert low <= value <= high and 0.7 * expected < high - low < 2.5 * expected


@pytest.mark.parametrize("gap", [0.0, 3.0])
def test_the_interval_of_a_gap_covers_the_truth(gap: float) -> None:
    rng, hits = np.random.default_rng(7), 0
    for _ in range(300):
        eager, graph = ((20.0 + g) * (1 + 0.01 * rng.standard_normal(40)) for g in (gap, 0.0))
        found = (_measured(eager, rng) - _measured(graph, rng)).estimate
        assert found.low is not None and found.high is not None
        hits += found.low <= gap <= found.high
    assert 0.9 <= hits / 300 <= 0.999


def _measured(samples_ms: np.ndarray, rng: np.random.Generator) -> Measured:
    return Measured(float(np.median(samples_ms)), median_draws(samples_ms, rng))


def test_the_report_splits_at_a_glance(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, SHAPES, models=ONE, noise=0.0005)
    _, said = draw(load(maker.write()), figures=("split",))
    text = (maker.path / "report.md").read_text()
    where = section(text, "## Where the time goes")
    # LoRA's true forward-backward at 4 x 512: GPU work 40 x 1.6 + 90 x 1.1, gap 31 + 6; Full-FT's 130 and 3.
    both = section(where, "### Where the time goes in forward-backward")
    cells = cells_of(both, "gpt2-xl", "4 x 512", "LoRA eager")
    for head, ms in (("Graph (ms)", 163), ("Eager (ms)", 200), ("Host (ms)", 0.9 * 95 + 0.5 * 105)):
        assert value(cells[head]) == pytest.approx(ms, rel=0.002)
    assert cells["Launches"] == str(1885 + 2640)
    assert value(cells["Launch gap, ms"]) == pytest.approx(37, abs=0.3)
    assert value(cells["Launch gap, % of eager"]) == pytest.approx(18.5, abs=0.2)
    for part, truth in (("eager", 67), ("GPU work", 33), ("launch gap", 34)):
        told = cells[f"{MORE} (ms), {part}"]
        assert told.startswith("+") and value(told) == pytest.approx(truth, abs=0.5)
    full = cells_of(both, "gpt2-xl", "4 x 512", "Full-FT eager")
    assert [cell for head, cell in full.items() if head.startswith(MORE)] == ["0"] * 3
    forward = section(where, "### Where the time goes in forward:")
    assert cells_of(forward, "gpt2-xl", "4 x 512", "LoRA eager")["Launches"] == "1885"
    assert "Eager = GPU work + launch gap." in where and "![Where the time goes" in where
    assert "LoRA eager's forward-backward on gpt2-xl at 4 x 1024 differs from Full-FT eager's by +" in said
    assert all(line in text for line in said.splitlines()[-2:])
    assert ElementTree.parse(maker.path / "split.svg").getroot().tag.endswith("svg")
    times = section(text, "## Times")
    assert times.index("clock eager") < times.index("clock graph\n")
    assert "The headline clock is eager, as in the paper, graph beside it" in times
    assert "table1.md has the tables of clock host." in text
    assert "clock host\n" in (maker.path / "table1.md").read_text() and "clock host\n" not in text


def test_what_has_no_split_is_told_in_words(maker: Any, fill_clocks: Any, make_case: Any) -> None:
    fill_clocks(maker, TYPES, SHAPES, models=ONE)
    lora = make_case("lora", seq=1024)
    maker.rows = [r for r in maker.rows if (r["case_id"], r["clock"]) != (lora["case_id"], "graph")]
    maker.failed(lora, "unsupported", "a synchronizing operator", clock="graph")
    for clock in ("eager", "graph", "host"):
        maker.failed(make_case("paca", "triton"), "oom", "CUDA out of memory", clock=clock)
    draw_tables(maker)
    where = section((maker.path / "report.md").read_text(), "### Where the time goes in forward-backward")
    cells = cells_of(where, "gpt2-xl", "4 x 1024", "LoRA eager")
    assert re.match(r"[\d.]+ \[[\d.]+, [\d.]+\]$", cells["Eager (ms)"])
    assert {cells[head] for head in cells if head.startswith(("Graph", "Launch gap", MORE))} == {"unsupported"}
    assert set(list(cells_of(where, "gpt2-xl", "4 x 512", "PaCA triton").values())[3:]) == {"oom"}
    line = pick(maker.path / "table1.csv", method="lora", seq="1024", clock="eager", **{"pass": "forward"})
    assert line["launch_gap_ms"] == "" and line["median_ms"] != ""
    failed = section((maker.path / "report.md").read_text(), "## What could not be timed")
    assert "lora eager rank 8, bf16, clock graph, 4 x 1024: a synchronizing operator" in failed
    assert "paca triton rank 16, bf16, 4 x 512: CUDA out of memory" in failed


def test_device_stands_in_for_a_graph_and_says_so(maker: Any, make_case: Any) -> None:
    for method, work in (("full", 1.0), ("lora", 1.5)):
        axes = {"level": "linear", "layer": "q_proj", "l2": "cold"}
        for clock, ms in (("eager", work + 0.3), ("device", work), ("graph", work)):
            if (method, clock) != ("lora", "graph"):
                maker.timed(make_case(method, **axes), dict.fromkeys(PASSES, ms), clock=clock, noise=0.001)
    draw_tables(maker)
    text = (maker.path / "report.md").read_text()
    forward = section(text, "### Where the time goes in forward:")
    cells = cells_of(forward, "gpt2-xl q_proj", "LoRA eager")
    gap = cells["Launch gap, us"]
    assert value(gap) == pytest.approx(300, rel=0.02) and "‡" in gap
    assert value(cells[f"{MORE} (us), GPU work"]) == pytest.approx(500, rel=0.02)
    assert value(cells[f"{MORE} (us), launch gap"]) == pytest.approx(0, abs=5)
    assert "‡ GPU work is clock device" in text
    assert "‡" not in cells_of(forward, "gpt2-xl q_proj", "Full-FT eager")["Launch gap, us"]
    line = pick(maker.path / "table1.csv", method="lora", clock="eager", **{"pass": "forward"})
    assert line["gpu_clock"] == "device" and float(line["more_gpu_work_ms"]) == pytest.approx(0.5, rel=0.02)


def test_a_whole_is_never_split_against_a_sum(maker: Any, make_case: Any) -> None:
    maker.timed(make_case("full"), {"forward": 12.0, "backward": 22.0, "forward-backward": 33.0})
    maker.timed(make_case("full"), {"forward": 10.0, "backward": 20.0}, clock="graph")
    draw_tables(maker)
    line = pick(maker.path / "table1.csv", clock="eager", **{"pass": "forward-backward"})
    assert float(line["launch_gap_ms"]) == pytest.approx(4, abs=0.5)
    assert "The breakdown takes forward + backward, added up" in (maker.path / "report.md").read_text()


def test_a_gap_below_zero_is_pointed_out(maker: Any, make_case: Any) -> None:
    maker.timed(make_case("full"), dict.fromkeys(PASSES, 10.0), clock="eager", noise=0.001)
    maker.timed(make_case("full"), dict.fromkeys(PASSES, 11.0), clock="graph", noise=0.001)
    draw_tables(maker)
    text = (maker.path / "report.md").read_text()
    assert "1 of 1 launch gaps lie below zero beyond their intervals" in text


@pytest.mark.parametrize("clocks", [("eager",), ("eager", "host"), ("graph",)])
def test_without_both_clocks_there_is_no_split(maker: Any, fill_clocks: Any, clocks: tuple[str, ...]) -> None:
    fill_clocks(maker, TYPES, SHAPES, models=ONE, clocks=clocks)
    draw_tables(maker)
    assert "Where the time goes" not in (maker.path / "report.md").read_text()
    assert "launch_gap_ms" not in lines_of(maker.path / "table1.csv")[0]


def test_a_baseline_that_failed_is_named(maker: Any, fill_clocks: Any, make_case: Any) -> None:
    fill_clocks(maker, [("lora", "eager")], [(4, 512)], models=ONE)
    for clock in ("eager", "graph"):
        maker.failed(make_case("full"), "oom", "CUDA out of memory", clock=clock)
    draw_tables(maker)
    where = section((maker.path / "report.md").read_text(), "### Where the time goes in forward:")
    cells = cells_of(where, "gpt2-xl", "LoRA eager")
    assert [cell for head, cell in cells.items() if head.startswith(MORE)] == ["Full-FT oom"] * 3


def test_the_split_figure_goes_when_its_rows_do(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE, clocks=("eager", "graph"))
    draw(load(maker.write()), figures=("split", "memory"))
    assert (maker.path / "split.png").exists()
    maker.rows = [row for row in maker.rows if row["clock"] == "eager"]
    draw(load(maker.write()), figures=("split", "memory"))
    assert not (maker.path / "split.png").exists() and (maker.path / "memory.png").exists()
    assert not [p for p in maker.path.iterdir() if p.name.startswith(".")]


def test_differences_show_their_uncertainty_and_their_sign() -> None:
    assert difference_word(Estimate(12.345, 12.04, 12.6)) == "+12.35 [+12.04, +12.60]"
    assert difference_word(Estimate(-0.002, -0.41, 0.39)) == "-0.00 [-0.41, +0.39]"
    assert difference_word(Estimate(0.5)) == "+0.5000 (no interval)"
