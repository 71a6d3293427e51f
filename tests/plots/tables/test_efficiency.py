"""How close to the hardware, memory, the step, what it was measured under; and files that are written whole or not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plots.__main__ import main
from plots.data.load import load
from plots.report import draw
from tests.plots.reading import PASSES, pick, row_of, samples, section

ROOT = Path(__file__).resolve().parents[2]
TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
SHAPES = [(4, 512), (4, 1024)]
ONE = ("gpt2-xl",)


@pytest.mark.usefixtures("no_figures")
def test_efficiency_equals_an_independent_computation(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE)
    maker.run["ceilings"] = {"bf16_tflops": 700.0, "fp16_tflops": 1.0, "copy_tbs": 2.9}
    draw(load(maker.write()))
    text = section((maker.path / "report.md").read_text(), "### How close to what the hardware allows")
    assert "measured on this machine: 700 TFLOP/s" in text
    for method, name in (("full", "Full-FT eager"), ("lora", "LoRA eager")):
        cells = row_of(text, "gpt2-xl", name)
        for cell, pass_, flops in zip(cells[2:], PASSES, (3e9 * 2048, 6e9 * 2048, 9e9 * 2048), strict=True):
            ms = float(np.median(samples(maker, method, pass_, "graph")))
            floor, rate, part = (float(told.split(" ±")[0]) for told in cell.split(" / "))
            assert floor == pytest.approx(ms / (flops / 989e12 * 1e3), rel=2e-3)
            assert rate == pytest.approx(flops / (ms / 1e3) / 1e12, rel=2e-3)
            assert part == pytest.approx(100 * flops / (ms / 1e3) / 700e12, abs=0.06)
            line = pick(maker.path, method=method, clock="graph", **{"pass": pass_})
            assert float(line["tflops"]) == pytest.approx(flops / ms / 1e9)
    assert pick(maker.path, method="lora", clock="eager", **{"pass": "forward"})["tflops"] == ""


@pytest.mark.usefixtures("no_figures")
def test_efficiency_tells_what_is_on_record_and_no_more(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE)
    for row in maker.rows:
        row["flops"] = None
    draw(load(maker.write()))
    text = section((maker.path / "report.md").read_text(), "### How close to what the hardware allows")
    assert "TFLOP/s" not in row_of(text, "Model", "Training type")[2] and "of ceiling" not in text
    for row in maker.rows:
        row["floor_ms"] = None
    draw(load(maker.write()))
    assert "How close" not in (maker.path / "report.md").read_text()


@pytest.mark.usefixtures("no_figures")
def test_memory_is_a_small_table(maker: Any, fill_clocks: Any, make_case: Any) -> None:
    fill_clocks(maker, TYPES, SHAPES)
    maker.failed(make_case("lora", "triton"), "oom", "CUDA out of memory")
    draw(load(maker.write()))
    text = section((maker.path / "table1.md").read_text(), "### Peak memory")
    assert row_of(text, "gpt2-xl", "4 x 512")[2:] == ["26048", "18048 / 0.69", "oom / oom", "14048 / 0.54"]
    assert pick(maker.path, model="tinyllama", method="full", seq="512", clock="graph", **{"pass": "forward"})[
        "peak_mib"
    ] == str(24000 * 0.65 + 2048)


@pytest.mark.usefixtures("no_figures")
def test_the_step_stands_beside_forward_backward(maker: Any, make_case: Any) -> None:
    for method, both, step in (("full", 100.0, 130.0), ("lora", 120.0, 121.0), ("paca", 90.0, 91.0)):
        maker.timed(make_case(method), {"forward-backward": both, "step": step}, noise=0.0005)
    maker.timed(make_case("lora", "peft"), {"forward-backward": 150.0})
    draw(load(maker.write()))
    for name in ("table1.md", "report.md"):
        text = section((maker.path / name).read_text(), "### Forward-backward and the whole step")
        cells = row_of(text, "gpt2-xl", "LoRA eager")
        both, step, added = (float(cell.split(" ±")[0]) for cell in cells[2:5])
        assert (both, step, added) == pytest.approx((120, 121, 1), rel=0.002, abs=0.2)
        ratios = [float(told.split(" ±")[0]) for told in cells[5].split(" / ")]
        assert ratios == pytest.approx([1.2, 121 / 130], rel=0.002)
        assert "LoRA peft" not in text
    assert "whole step" not in (maker.path / "report.md").read_text().split("## Times")[0]


@pytest.mark.usefixtures("no_figures")
def test_the_state_of_the_gpu_is_one_line(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE)
    for i, row in enumerate(maker.rows):
        row |= {"sm_clock_mhz": 1700 + 10 * i, "power_w": 400.4, "temperature_c": None if i else 55}
    top = 1700 + 10 * (len(maker.rows) - 1)
    state = f"SM clock 1700 to {top} MHz, power 400 W, temperature 55 °C; clocks "
    for run, word in (
        ({"clocks_locked": True}, "locked"),
        ({"clocks_locked": False}, "not locked"),
        ({"clocks_locked": None}, "not known to be locked"),
        ({"gpu_clocks": {"locked": True, "sm_max_mhz": 1980}}, "locked"),
    ):
        maker.run = {k: v for k, v in maker.run.items() if k not in ("clocks_locked", "gpu_clocks")} | run
        draw(load(maker.write()))
        text = (maker.path / "report.md").read_text()
        assert f"The GPU while measuring, over all rows: {state}{word}." in text
        assert f"; clocks {word}; measured" in text


@pytest.mark.usefixtures("no_figures")
def test_where_the_wall_time_went_is_one_line(maker: Any, fill_clocks: Any) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE)
    first = maker.run["invocations"][0]
    maker.run["invocations"] = [
        first | {"spent_s": {"starting": 20.0, "measuring": 100.0}},
        first | {"spent_s": {"measuring": 78.0, "waiting": 2.0, "odd": "?"}},
    ]
    draw(load(maker.write()))
    told = (
        "time went into: measuring 178 s (89 %), starting 20 s (10 %), waiting 2.0 s (1 %); 13 min from start to finish"
    )
    assert told in (maker.path / "report.md").read_text()


FULL_DISK = """
import resource, sys
from plots.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)  # fails a write half-way, as a full disk does
sys.exit(main([sys.argv[1]]))
"""


@pytest.mark.parametrize("limit", [2_000, 60_000])
def test_a_full_disk_leaves_the_old_report_whole(maker: Any, fill_clocks: Any, make_case: Any, limit: int) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE, clocks=("eager", "graph"))
    assert main([str(maker.write())]) == 0
    maker.timed(make_case("lora", "triton"), {"forward": 1.0, "backward": 2.0})
    path = maker.write()
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    assert {"split.png", "times.svg", "report.html"} <= set(before)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(limit)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and "cannot write into" in done.stderr
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before


def test_a_large_gpu_folder_yields_every_file(maker: Any, fill_clocks: Any) -> None:
    shapes = [(b, s) for b in (1, 2, 4, 8) for s in (128, 256, 512, 1024)]
    fill_clocks(maker, [*TYPES, ("lora", "triton")], shapes, n=24)
    for layer in range(12):
        axes = {"level": "linear", "layer": f"layer.{layer}", "l2": "cold"}
        clocks = ("eager", "device", "graph", "host")
        fill_clocks(maker, TYPES, [(4, 512)], models=ONE, clocks=clocks, axes=axes, n=24)
    assert len(maker.rows) > 2000
    assert main([str(maker.write())]) == 0
    text = (maker.path / "report.md").read_text()
    for stem in ("split", "lengths", "grid", "layers"):
        assert (maker.path / f"{stem}.svg").stat().st_size > 0 and f"]({stem}.png)" in text
