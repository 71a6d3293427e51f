"""Tokens a second, utilization and cost against numbers worked out here by hand."""

from typing import Any

import pytest

import bench
from plots.__main__ import main
from plots.data.load import load
from plots.report import draw
from plots.tables.throughput import NO_THROUGHPUT
from tests.plots.reading import cells_of, pick, section, value


def _report(maker: Any, **options: Any) -> str:
    draw(load(maker.write()), figures=(), **options)
    return (maker.path / "report.md").read_text()


def test_throughput_utilization_and_cost_equal_hand_computed_numbers(maker: Any, make_case: Any) -> None:
    """4 x 512 tokens in 100 ms are 20480 a second; 4.947e13 FLOP in it are half of an H100's 989.4 TFLOP/s; at 1.80 an
    hour a million tokens take 1e6 / 20480 s = 48.83 s, which cost 48.83 / 3600 x 1.80 = 0.02441."""
    maker.timed(make_case("lora"), {"forward-backward": 100.0}, noise=0.0, flops=0.5 * 989.4e12 * 0.1, peak_mib=12345.6)
    maker.failed(make_case("lora", "triton"), "oom", "CUDA out of memory")
    text = section(_report(maker, price=1.8), "## Throughput and cost")
    cells = cells_of(text, "gpt2-xl", "LoRA eager")
    assert value(cells["Tokens a second"]) == 20480
    assert value(cells["MFU (%)"]) == pytest.approx(50)
    assert cells["Peak memory (MiB)"] == "12346"
    assert value(cells["Cost of a million tokens"]) == pytest.approx(0.02441, abs=1e-5)
    assert set(list(cells_of(text, "gpt2-xl", "LoRA triton").values())[2:]) == {"oom"}
    assert "989.4 TFLOP/s, the data sheet's dense bf16" in text and "at 1.8 an hour" in text
    line = pick(maker.path / "table1.csv", method="lora", impl="eager", **{"pass": "forward-backward"})
    names = ("tokens_per_s", "mfu", "cost_per_million_tokens")
    assert [float(line[n]) for n in names] == pytest.approx([20480, 0.5, 1e6 / 20480 / 3600 * 1.8])


def test_a_step_that_every_case_has_counts_all_of_its_micro_steps(maker: Any, make_case: Any) -> None:
    for method in ("full", "lora"):
        ms = {"forward-backward": 100.0, "step": 500.0}
        maker.timed(make_case(method, accumulation=4), ms, noise=0.0, flops={"forward-backward": 1e12, "step": 4e12})
    text = _report(maker)
    assert "whole optimizer step" in text
    cells = cells_of(section(text, "### Throughput"), "gpt2-xl", "LoRA eager")
    assert value(cells["Tokens a second"]) == 4 * 4 * 512 / 0.5
    assert value(cells["MFU (%)"]) == pytest.approx(100 * 4e12 / 0.5 / 989.4e12, abs=0.006)
    assert "Cost of a million tokens" not in cells


def test_an_epoch_is_its_steps_and_costs_its_hours(maker: Any, make_case: Any) -> None:
    """1,000 examples in batches of 4 are 250 micro-steps of 0.1 s: 25 s, or 63 steps of 4 micro-steps: 31.5 s."""
    maker.timed(make_case("lora"), {"forward-backward": 100.0}, noise=0.0)
    assert main([str(maker.write()), "--examples", "1000", "--price", "1.80"]) == 0
    text = section((maker.path / "report.md").read_text(), "## Throughput and cost")
    cells = cells_of(text, "gpt2-xl", "LoRA eager")
    assert value(cells["Hours an epoch"]) == pytest.approx(25 / 3600, rel=1e-3)
    assert value(cells["Price of an epoch"]) == pytest.approx(25 / 3600 * 1.8, rel=1e-3)
    assert "1,000 examples (--examples), each a sequence of the case's length: ceil(examples / (batch)) micro" in text
    line = pick(maker.path / "table1.csv", method="lora", **{"pass": "forward-backward"})
    assert float(line["hours_per_epoch"]) == pytest.approx(25 / 3600)
    assert float(line["price_per_epoch"]) == pytest.approx(25 / 3600 * 1.8)
    maker.rows, maker.samples = [], []
    ms = {"forward-backward": 100.0, "step": 500.0}
    maker.timed(make_case("lora", accumulation=4), ms, noise=0.0)
    draw(load(maker.write()), figures=(), examples=1000)
    text = section((maker.path / "report.md").read_text(), "### Throughput")
    assert value(cells_of(text, "gpt2-xl", "LoRA eager")["Hours an epoch"]) == pytest.approx(31.5 / 3600, rel=1e-3)
    assert "Price" not in text


def test_an_epoch_has_by_default_the_examples_of_the_paper_and_a_block_has_none(maker: Any, make_case: Any) -> None:
    maker.timed(make_case("lora"), {"forward-backward": 100.0}, noise=0.0)
    maker.timed(make_case("lora", level="block"), {"forward-backward": 10.0}, noise=0.0)
    text = section(_report(maker), "## Throughput and cost")
    assert "99,842 examples" in text and "Hours of an epoch are told of whole models." in text
    whole, block = (pick(maker.path / "table1.csv", level=level, **{"pass": "forward-backward"})
                    for level in ("model", "block"))  # fmt: skip
    assert float(whole["hours_per_epoch"]) == pytest.approx(-(-99_842 // 4) * 0.1 / 3600)
    assert block["hours_per_epoch"] == "" and float(block["tokens_per_s"]) == pytest.approx(204800)


def test_rows_csv_and_the_tables_have_the_same_numbers(maker: Any, make_case: Any) -> None:
    """One formula: what bench.read gives of a row is what table1.csv has of it."""
    maker.run["sm_count"] = 132
    passes = {"forward-backward": 100.0, "step": 500.0}
    for method in ("full", "lora"):
        maker.timed(make_case(method, accumulation=4), passes, flops={"forward-backward": 1e12, "step": 4e12})
    _report(maker)
    frame = bench.read(maker.path)
    assert frame.tokens_per_s.notna().all()
    for line in frame.to_dict("records"):
        told = pick(maker.path / "table1.csv", method=line["method"], **{"pass": line["pass"]})
        assert float(told["tokens_per_s"]) == pytest.approx(line["tokens_per_s"], rel=1e-12)
        assert float(told["mfu"]) == pytest.approx(line["mfu"], rel=1e-12)


def test_table_1_has_rate_and_memory_beside_the_time(maker: Any, make_case: Any) -> None:
    maker.timed(make_case("full"), {"forward-backward": 100.0}, noise=0.0, peak_mib=4321.4)
    maker.timed(make_case("lora"), {"forward-backward": 50.0}, noise=0.0)
    maker.failed(make_case("lora", "triton"), "oom", "CUDA out of memory")
    table = section(_report(maker), "### Forward and backward time")
    found = [tuple(cells_of(table, "gpt2-xl", t).values())[-2:] for t in ("Full-FT eager", "LoRA eager", "LoRA triton")]
    assert found == [("20480", "4321"), ("40960", "not measured"), ("oom", "oom")]
    assert "Tokens a second are batch x length over forward-backward." in table
    maker.timed(make_case("full"), {"forward-backward": 5.0}, clock="host")
    _report(maker)
    host = (maker.path / "table1.md").read_text().partition("clock host\n")[2].partition("\n### ")[0]
    assert "Forward-backward (ms)" in host and "Tokens a second" not in host


def test_without_a_data_sheet_the_measured_peak_counts_and_without_either_nothing(maker: Any, make_case: Any) -> None:
    maker.run |= {"gpu": "Some CPU, 2 cores", "gpu_key": "cpu", "ceilings": {"fp32_gflops": 80.0}}
    one = make_case("full", level="block", precision="fp32", l2=None)
    maker.timed(one, {"forward-backward": 1000.0}, clock="cpu-time", noise=0.0, flops=2e10)
    text = section(_report(maker), "## Throughput and cost")
    assert value(cells_of(text, "gpt2-xl", "Full-FT eager")["MFU (%)"]) == 25
    assert "Energy is not told: that of a CPU is not read." in text
    assert "80 GFLOP/s, one big matrix product measured on this machine in fp32" in text
    del maker.run["ceilings"]
    text = section(_report(maker), "## Throughput and cost")
    assert cells_of(text, "gpt2-xl", "Full-FT eager")["MFU (%)"] == "not known"
    assert "MFU is not known without a peak rate" in text


def test_energy_is_a_calls_over_its_tokens(maker: Any, make_case: Any) -> None:
    """50 J for 4 x 512 tokens are 24.41 kJ for a million."""
    maker.timed(make_case("full"), {"forward-backward": 100.0}, energy_j=50.0)
    maker.timed(make_case("lora"), {"forward-backward": 120.0})
    written, _ = draw(load(maker.write()), figures=("throughput",))
    assert "throughput.png" in {path.name for path in written}
    text = section((maker.path / "report.md").read_text(), "## Throughput and cost")
    assert cells_of(text, "gpt2-xl", "Full-FT eager")["Energy of a million tokens (kJ)"] == "24.41"
    assert cells_of(text, "gpt2-xl", "LoRA eager")["Energy of a million tokens (kJ)"] == "not measured"
    line = pick(maker.path / "table1.csv", method="full", **{"pass": "forward-backward"})
    assert float(line["energy_kj_per_million_tokens"]) == pytest.approx(50 / 2048 * 1e3)


def test_single_layers_have_no_throughput_and_it_is_said(maker: Any, make_case: Any) -> None:
    maker.timed(make_case("full", level="linear", layer="q_proj"), {"forward-backward": 1.0})
    assert NO_THROUGHPUT in _report(maker)


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1000001", "2 EUR", "$2", ""])
def test_a_price_that_is_none_is_refused_by_its_flag(maker: Any, make_case: Any, capsys: Any, given: str) -> None:
    maker.timed(make_case(), {"forward-backward": 100.0})
    assert main([str(maker.write()), f"--price={given}"]) == 2
    told = capsys.readouterr().err
    assert f"--price {given!r}: the price of an hour is a number above 0 and at most 1,000,000" in told
    assert not (maker.path / "report.md").exists()


def test_the_price_is_drawn_told_and_not_remembered(maker: Any, make_case: Any) -> None:
    maker.timed(make_case(), {"forward-backward": 100.0}, peak_mib=100.0)
    assert main([str(maker.write()), "--price", "1.80"]) == 0
    text = (maker.path / "report.md").read_text()
    assert "](throughput.png)" in text and "Throughput, memory and cost" in text
    assert " --price 1.8\n" in section(text, "## To get it again")
    assert main([str(maker.path)]) == 0
    assert "Cost of a million" not in (maker.path / "report.md").read_text()
