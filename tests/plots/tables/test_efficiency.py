"""How close to the hardware, memory and the step, against numbers worked out here from the same samples."""

from typing import Any

import numpy as np
import pytest

from plots.data.load import load
from plots.report import draw
from plots.tables.efficiency import NO_LIMIT
from tests.plots.reading import PASSES, cells_of, draw_tables, pick, samples, section, value

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
SHAPES = [(4, 512), (4, 1024)]
ONE = ("gpt2-xl",)


def test_efficiency_equals_an_independent_computation(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE)
    maker.run["ceilings"] = {"bf16_tflops": 700.0, "fp16_tflops": 1.0, "copy_tbs": 2.9}
    draw_tables(maker)
    text = section((maker.path / "report.md").read_text(), "### How close to what the hardware allows")
    assert "measured on this machine: 700 TFLOP/s of one big matrix product, and of one big copy, 2.9 TB/s" in text
    for method, name in (("full", "Full-FT eager"), ("lora", "LoRA eager")):
        cells = cells_of(text, "gpt2-xl", name)
        for pass_, flops in zip(PASSES, (3e9 * 2048, 6e9 * 2048, 9e9 * 2048), strict=True):
            ms = float(np.median(samples(maker, pass_, "graph", method=method)))
            heads = [f"{pass_.capitalize()}, {what}" for what in ("x roofline", "x measured", "TFLOP/s")]
            floor, measured, rate = (value(cells[head]) for head in heads)
            assert floor == pytest.approx(ms / (flops / 989e12 * 1e3), rel=2e-3)
            assert rate == pytest.approx(flops / (ms / 1e3) / 1e12, rel=2e-3)
            assert measured == pytest.approx(ms / (flops / 700e12 * 1e3), rel=2e-3)
            line = pick(maker.path / "table1.csv", method=method, clock="graph", **{"pass": pass_})
            assert float(line["tflops"]) == pytest.approx(flops / ms / 1e9)
            assert float(line["times_measured"]) == pytest.approx(ms / (flops / 700e12 * 1e3))
            assert float(line["of_ceiling_percent"]) == pytest.approx(100 * flops / (ms / 1e3) / 700e12)
    assert pick(maker.path / "table1.csv", method="lora", clock="eager", **{"pass": "forward"})["tflops"] == ""


def test_efficiency_tells_what_is_on_record_and_no_more(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE)
    for row in maker.rows:
        row["flops"] = None
    draw_tables(maker)
    text = section((maker.path / "report.md").read_text(), "### How close to what the hardware allows")
    assert list(cells_of(text, "gpt2-xl", "LoRA eager"))[2:] == [
        f"{pass_.capitalize()}, x roofline" for pass_ in PASSES
    ]
    for row in maker.rows:
        row["floor_ms"] = None
    draw_tables(maker)
    assert "How close" not in (maker.path / "report.md").read_text()
    assert NO_LIMIT in (maker.path / "report.md").read_text()


@pytest.mark.parametrize("threads", [1, 4])
def test_on_a_cpu_the_limit_is_what_was_measured_there(maker: Any, make_case: Any, threads: int) -> None:
    """Forward is bound by arithmetic: 8 GFLOP at 40 GFLOP/s. Backward by memory: 6 GB at 10 GB/s. The time is that of
    the processor where one thread computed, else the one that passes."""
    maker.run |= {"gpu": "Some CPU", "gpu_key": "cpu", "ceilings": {"fp32_gflops": 40.0, "copy_gbs": 10.0, "fp32_n": 5}}
    work = {"flops": {"forward": 8e9, "backward": 8e9}, "bytes": {"forward": 1e9, "backward": 6e9}}
    axes = make_case("lora", level="block", precision="fp32", l2=None)
    for clock, by in (("cpu-time", threads), ("cpu", 1)):
        ms = {"forward": 300.0 * by, "backward": 900.0 * by}
        maker.timed(axes, ms, clock=clock, noise=0.0, threads=threads, **work)
    written, _ = draw(load(maker.write()), figures=("roofline",))
    assert {"roofline.png", "roofline.svg"} <= {path.name for path in written}
    text = section((maker.path / "report.md").read_text(), "## Efficiency and memory")
    assert "](roofline.png)" in text
    cells = cells_of(text, "gpt2-xl", "LoRA eager")
    heads = [f"{pass_}, {what}" for pass_ in ("Forward", "Backward") for what in ("x measured", "GFLOP/s")]
    rates = 8e9 / 0.3 / 1e9, 8e9 / 0.9 / 1e9
    assert [value(cells[head]) for head in heads] == pytest.approx([1.5, rates[0], 1.5, rates[1]], rel=1e-3)
    assert value(cells["Forward-backward, x measured"]) == pytest.approx(1.5, rel=1e-3)
    assert not any("roofline" in head for head in cells), "no data sheet"


def test_without_a_roof_there_is_no_roofline_plot(maker: Any, make_case: Any) -> None:
    maker.run |= {"gpu": "Some board", "gpu_key": "some-board"}
    maker.timed(make_case(), {"forward": 1.0, "backward": 2.0}, clock="graph", flops=1e12, bytes=1e9)
    written, _ = draw(load(maker.write()), figures=("roofline",))
    assert not {"roofline.png"} & {path.name for path in written}


def test_peak_memory_and_its_part_of_fulls(maker: Any, fill_clocks: Any, make_case: Any) -> None:
    fill_clocks(maker, TYPES, SHAPES)
    maker.failed(make_case("lora", "triton"), "oom", "CUDA out of memory")
    draw_tables(maker)
    text = section((maker.path / "table1.md").read_text(), "### Peak memory")
    told = {"Full-FT eager": ["26048", "1"], "LoRA eager": ["18048", "0.69"], "LoRA triton": ["oom", "oom"],
            "PaCA eager": ["14048", "0.54"]}  # fmt: skip
    for name, peak in told.items():
        assert list(cells_of(text, "gpt2-xl", "4 x 512", name).values())[3:] == peak
    assert pick(
        maker.path / "table1.csv", model="tinyllama", method="full", seq="512", clock="graph", **{"pass": "forward"}
    )["peak_mib"] == str(24000 * 0.65 + 2048)


def test_the_step_stands_beside_forward_backward(maker: Any, make_case: Any) -> None:
    for method, both, step in (("full", 100.0, 130.0), ("lora", 120.0, 121.0), ("paca", 90.0, 91.0)):
        maker.timed(make_case(method), {"forward-backward": both, "step": step}, noise=0.0005)
    maker.timed(make_case("lora", "peft"), {"forward-backward": 150.0})
    draw_tables(maker)
    for name in ("table1.md", "report.md"):
        text = section((maker.path / name).read_text(), "### Forward-backward and the whole step")
        *times, ratio, ratio_of_step = map(value, list(cells_of(text, "gpt2-xl", "LoRA eager").values())[2:])
        assert times == pytest.approx((120, 121, 1), rel=0.002, abs=0.2)
        assert (ratio, ratio_of_step) == pytest.approx((1.2, 121 / 130), rel=0.002)
        assert "LoRA peft" not in text
    assert "whole step" not in (maker.path / "report.md").read_text().split("## Times")[0]
