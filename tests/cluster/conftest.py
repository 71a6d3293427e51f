"""The fixture `slurm`: a real one, idle at the start of each test."""

import sys
from collections.abc import Iterator

import pytest

from tests.cluster.real_slurm import RealSlurm, running, unavailable


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what Slurm's daemons said."""
    report = yield
    slurm = getattr(item, "funcargs", {}).get("slurm")
    if report.failed and isinstance(slurm, RealSlurm):
        report.sections.append(("Slurm", slurm.logs()))
    return report
