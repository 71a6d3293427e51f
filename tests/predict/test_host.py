"""The host's cost of an operator: measured once by a clock, kept for this machine, read without torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.predict.host import LAUNCH_US, measured_host, remembered_host


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path))
    return tmp_path / "host"


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that is so much later at each reading."""
    read = [0.0]

    def now() -> float:
        read[0] += seconds
        return read[0]

    return now


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's launches are measured")
def test_a_cost_is_a_time_over_the_operators_that_launch(kept: Path) -> None:
    """A tick is what a forward takes by this clock, and what a backward takes."""
    one, two = measured_host(now=ticking(0.01)), measured_host(fresh=True, now=ticking(0.02))
    for a, b in ((one.forward_us, two.forward_us), (one.backward_us, two.backward_us)):
        assert b - LAUNCH_US == pytest.approx(2 * (a - LAUNCH_US))
    # 20 ms for both cases' forward passes, of two blocks each: some 40 operators a block.
    assert 100 < 20_000 / (one.forward_us - LAUNCH_US) < 250
    assert one.backward_us < one.forward_us, "a backward has more operators"
    assert "measured on this machine" in one.source and "3 us for a launch" in one.source


def test_it_is_measured_once_and_read_without_torch(kept: Path) -> None:
    first = measured_host(now=ticking(0.01))
    assert measured_host(now=ticking(0.05)) == remembered_host() == first
    code = (
        "import sys; from bench.predict.host import remembered_host as r; print(r()); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(first)), done.stderr


@pytest.mark.parametrize(
    "damage",
    ["{", '{"forward_us": NaN, "backward_us": 2, "source": "x"}']
    + [pytest.param(text, marks=pytest.mark.slow) for text in
       ("", "[]", '{"forward_us": 1}', '{"forward_us": -1, "backward_us": 2, "source": "x"}')],
)  # fmt: skip
def test_a_damaged_file_is_measured_again(damage: str, kept: Path) -> None:
    first = measured_host(now=ticking(0.01))
    (file,) = kept.iterdir()
    file.write_text(damage)
    assert remembered_host() is None
    assert measured_host(now=ticking(0.01)) == first
    assert json.loads(file.read_text())["forward_us"] == first.forward_us


def test_of_another_machine_nothing_is_known(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.predict.host as module

    measured_host(now=ticking(0.01))
    other = replace(module.cpu_device(), name="another CPU")
    monkeypatch.setattr(module, "cpu_device", lambda: other)
    assert remembered_host() is None


def test_without_a_folder_for_it_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert measured_host(now=ticking(0.01)).forward_us > LAUNCH_US
    assert remembered_host() is None
