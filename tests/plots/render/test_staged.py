"""Files of a drawing are written all together, or not at all."""

import subprocess
import sys
from typing import Any

import pytest

from plots.data.load import load
from plots.report import draw
from tests.conftest import ROOT

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
ONE = ("gpt2-xl",)

FULL_DISK = """
import resource, sys
from plots.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)  # fails a write half-way, as a full disk does
sys.exit(main([sys.argv[1]]))
"""


@pytest.mark.parametrize("limit", [pytest.param(2_000, marks=pytest.mark.slow), 60_000])
def test_a_full_disk_leaves_the_old_report_whole(maker: Any, fill_clocks: Any, make_case: Any, limit: int) -> None:
    fill_clocks(maker, TYPES, [(4, 512)], models=ONE, clocks=("eager", "graph"))
    draw(load(maker.write()), figures=("split", "memory"))
    maker.timed(make_case("lora", "triton"), {"forward": 1.0, "backward": 2.0})
    path = maker.write()
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    assert {"split.png", "memory.svg", "report.html"} <= set(before)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(limit)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and "cannot write into" in done.stderr
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
