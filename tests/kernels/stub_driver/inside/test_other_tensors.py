"""Tensors that come to backward, or to the custom ops, otherwise than the first call's did.

A hook on saved tensors (offloading, torch.autograd.graph.save_on_cpu) may hand back copies at any address, in any
layout; torch.compile hands the custom ops views.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.stub_driver.calls import Call, misaligned
from tests.kernels.stub_driver.pretended_gpus import tensors_on
from tests.kernels.stub_driver.watch import watching

CALLS = (
    Call(scheme="epilogue/epilogue", dropout=0.1),
    Call(scheme="cublas/epilogue_fused_da", dropout=0.1),
    Call("group", dropout=0.1),
    Call("paca"),
    Call("paca", scheme="fused"),
)
KINDS = ["epilogue", "fused_da", "group", "paca", "paca fused"]


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=KINDS)
@pytest.mark.parametrize("moved", ["x", "weight0", "a0", "b0", "index", "mask", "s"])
def test_a_saved_tensor_comes_back_at_another_address(call: Call, moved: str) -> None:
    given = call.tensors.get(moved)

    def unpack(t: Tensor) -> Tensor:
        meant = {"mask": t.dtype == torch.uint8, "s": t.dim() == 3}.get(moved)
        if meant is None:
            meant = given is not None and t.data_ptr() == given.data_ptr()
        return misaligned(t) if meant else t

    with watching() as watch:
        call(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            call(0)
        call(0)
    assert not watch.differing, "\n".join(watch.differing)
    assert watch.kept


@pytest.mark.slow
@pytest.mark.parametrize("off", [(), ("a0",)], ids=["kept", "not kept"])
def test_a_graph_that_is_run_twice(off: tuple[str, ...]) -> None:
    """TMA takes no gradient off 16 bytes, whatever the one before it was."""
    from kernels import lora_linear

    t = Call(n=1024, k=2048, off=off).tensors  # the tables choose TMA for dX
    inputs = (t["x"], t["a0"], t["b0"])
    with watching() as watch, tensors_on(0):
        y = lora_linear(t["x"], t["weight0"], t["a0"], t["b0"], scale=0.5, scheme="epilogue")
        for dy in (t["dy"], misaligned(t["dy"]), t["dy"]):
            torch.autograd.grad(y, inputs, dy, retain_graph=True)
    assert not watch.differing, "\n".join(watch.differing)


@pytest.mark.slow
def test_custom_ops() -> None:
    """What torch.compile calls, op by op, with tensors aligned and not."""
    import kernels.lora.custom_ops
    import kernels.paca.custom_ops  # noqa: F401

    ops: Any = torch.ops.lorabench

    def call(off: tuple[str, ...], p: float) -> None:
        t = Call(off=off).tensors
        seed = torch.zeros(1, dtype=torch.int64) if p else None
        with tensors_on(0), torch.no_grad():
            _, s, mask = ops.lora_forward(t["x"], t["weight0"], t["a0"], t["b0"], t["bias"], seed, 0.5, p, None)
            ops.lora_backward(
                t["dy"], t["x"], t["weight0"], t["a0"], t["b0"], s, mask, 0.5, p, None, True, True, True
            )  # fmt: skip
            ops.paca_product(t["dy"], t["x"][:, :8].contiguous(), t["index"], 0.5, False)

    with watching() as watch:
        for p in (0.0, 0.1):
            for off in ((), ("a0",), ("x",), ("b0",), ("dy",), ("bias",), ("weight0",), ()):
                for _ in range(2):
                    call(off, p)
    assert not watch.differing, "\n".join(watch.differing)
    assert watch.kept
