"""The simulated GPU in the place of a real one."""

import pytest

from bench.timing import eager, graph, sleep_kernel
from tests.fakecuda import FakeCuda, FakeGraph


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    for module in (eager, sleep_kernel):
        monkeypatch.setattr(module, "perf_counter", fake.now)
    monkeypatch.setattr(graph, "count_nodes", lambda handle: FakeGraph.made[handle].launches)
    return fake
