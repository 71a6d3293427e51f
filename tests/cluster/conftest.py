"""The fixture `slurm`: a real one, idle at the start of each test."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.real_slurm import RealSlurm, running, unavailable
from tests.conftest import QUICK_SWEEP


@pytest.fixture(scope="session")
def one_slurm() -> Iterator[RealSlurm]:
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    if reason := unavailable():
        pytest.skip(reason)
    with running() as slurm:
        yield slurm


@pytest.fixture
def slurm(one_slurm: RealSlurm, monkeypatch: pytest.MonkeyPatch) -> RealSlurm:
    """Its commands reach it from this process, and from those that get `slurm.env`."""
    for name, value in one_slurm.env.items():
        monkeypatch.setenv(name, value)
    one_slurm.reset()
    return one_slurm


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a Slurm waits for it, seconds at a time."""
    for item in items:
        if "slurm" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what Slurm's daemons said."""
    report = yield
    slurm = getattr(item, "funcargs", {}).get("slurm")
    if report.failed and isinstance(slurm, RealSlurm):
        report.sections.append(("Slurm", slurm.logs()))
    return report


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A sweep of two comparisons of one case, each of one worker and two rows."""
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK_SWEEP)
    return path
