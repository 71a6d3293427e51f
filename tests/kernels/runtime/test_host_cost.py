"""The host cost stays within its bound (see host_cost.py, which prints it)."""

import pytest

from kernels.runtime import launch
from tests.kernels.host_cost import measure

pytest.importorskip("triton")


@pytest.mark.skipif(launch.interpreting(), reason="the interpreter launches for itself")
def test_host_cost() -> None:
    for _ in range(4):  # a busy machine may spoil one
        cost = measure()
        unit = cost["F.linear"]
        ratios = {name: (us - unit) / unit for name, us in cost.items() if name.startswith("lora")}
        if max(ratios.values()) <= 6.0:
            return
    pytest.fail(f"beyond F.linear ({unit:.2f} us), in units of it: {ratios}; at most 6")
