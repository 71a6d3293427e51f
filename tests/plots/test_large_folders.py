"""Folders in which there is something of everything yield every file."""

from collections.abc import Callable
from typing import Any

import pytest

from plots.__main__ import main

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
ONE = ("gpt2-xl",)
FILES = ("table1.md", "table1.csv", "report.md", "report.html")
# What a folder of every kind of figure holds, at the least and as in a sweep of every length: the latter takes longer.
LARGE = pytest.mark.parametrize("large", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["small", "large"])


def shapes_of(large: bool) -> list[tuple[int, int]]:
    batches, lengths = ((1, 2, 4, 8), (128, 256, 512, 1024, 2048)) if large else ((1, 4), (128, 512, 1024))
    return [(b, s) for b in batches for s in lengths]


@LARGE
def test_a_folder_of_everything_yields_every_file(
    large: bool, maker: Any, fill: Callable[..., None], make_case: Any
) -> None:
    types = [("full", "eager"), *[("lora", i) for i in ("eager", "peft", "triton")]]
    types += [("full", "compile"), ("paca", "eager"), ("paca", "triton")]
    models = {} if large else {"models": ONE}
    fill(maker, types if large else TYPES, shapes_of(large), n=24, **models)
    for layer in range(40):
        for method in ("full", "lora", "paca"):
            axes = {"level": "linear", "layer": f"layer.{layer}"}
            for clock in ("eager", "host") if large else ("eager",):
                truth = {"forward": 1.0, "backward": 2.0, "forward-backward": 3.0}
                maker.timed(make_case(method, **axes), truth, clock=clock, n=24)
    assert not large or len(maker.rows) > 1900
    assert main([str(maker.write())]) == 0
    assert all((maker.path / name).stat().st_size > 0 for name in FILES)
    assert all(
        (maker.path / f"{stem}.{kind}").exists() for stem in ("layers", "lengths", "grid") for kind in ("png", "svg")
    )
    assert "The first 80 of" in (maker.path / "report.md").read_text()


@LARGE
def test_a_gpu_folder_of_everything_yields_every_file(large: bool, maker: Any, fill_clocks: Any) -> None:
    models = {} if large else {"models": ONE}
    fill_clocks(maker, [*TYPES, ("lora", "triton")] if large else TYPES, shapes_of(large), n=24, **models)
    for layer in range(12 if large else 2):
        axes = {"level": "linear", "layer": f"layer.{layer}", "l2": "cold"}
        clocks = ("eager", "device", "graph", "host")
        fill_clocks(maker, TYPES, [(4, 512)], models=ONE, clocks=clocks, axes=axes, n=24)
    assert not large or len(maker.rows) > 2000
    assert main([str(maker.write())]) == 0
    text = (maker.path / "report.md").read_text()
    for stem in ("split", "lengths", "grid", "layers"):
        assert (maker.path / f"{stem}.svg").stat().st_size > 0 and f"]({stem}.png)" in text
