"""The interval of a ratio is one and the same on the terminal and in what is drawn."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from bench.record.store import key_of
from bench.runner.summary import headline
from plots.data.load import load
from plots.data.panels import make_panels
from plots.data.results import read_results


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_the_terminal_states_the_same_interval(maker: Any, make_case: Callable[..., Any], repeats: int) -> None:
    for repeat in range(repeats):
        for method, truth in (("full", 10.0), ("lora", 13.0)):
            axes = make_case(method)
            maker.timed(axes, {"forward-backward": truth}, n=24, noise=0.03, repeat=repeat, shift=0.01 * repeat)
    said = headline(maker.rows, {key_of(line): line["samples_ms"] for line in maker.samples})
    assert said is not None
    told = re.search(r"took ([\d.]+) \[([\d.]+), ([\d.]+)\] times", said)
    assert told is not None
    (panel,) = make_panels(read_results(load(maker.write())))
    found = panel.ratio(next(c for c in panel.cases if c.method == "lora")).value
    assert found is not None
    expected = tuple(map(float, told.groups()))
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=0.51 * 10 ** -len(told[1].split(".")[1]))
