"""Kept launches hand the CUDA driver what Triton's own look-up hands it: shown without a GPU, over a stub driver.

The stub is compiled here, and the tests of `inside` run over it in a process of their own: Triton finds its driver
once.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.stub_driver import building

HERE = Path(__file__).parent
pytest.importorskip("triton")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of a process in which the stub is the driver."""
    lacking = building.missing()
    if lacking is not None:
        pytest.skip(lacking)
    return building.environment(tmp_path_factory.mktemp("driver"))


def run(environment: dict[str, str], marks: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, str(HERE / "inside")]
    done = subprocess.run(
        command, cwd=HERE.parents[2], env=environment, capture_output=True, text=True, check=False, timeout=550
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"


def test_over_the_stub_driver(environment: dict[str, str]) -> None:
    run(environment, "not slow")


@pytest.mark.slow
def test_over_the_stub_driver_slow(environment: dict[str, str]) -> None:
    run(environment, "slow")
