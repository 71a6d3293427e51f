"""A scale of any numeric type is the scale of its call, and of no later one.

Triton compiles an integer of 1 into the kernel, and others as multiples of 16 or not; a kept launch would pass the next
call's scale to a kernel that does not read it.
"""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tests.kernels.stub_driver.calls import Call
from tests.kernels.stub_driver.watch import watching

#: Those of test_kept_launches.py, so that they are compiled once.
CALLS = (
    Call(scheme="epilogue_tma/epilogue_tma"),
    Call(scheme="single_pass/cublas_fused_da"),
    Call("group", bias=False),
    Call("paca"),
    Call("dora", scheme="epilogue/epilogue", needs="xabm"),
)
KINDS = ["epilogue", "single_pass", "group", "paca", "dora"]


def handed(call: Call, scale: Any) -> set[float | None]:
    """The scales that this call hands the driver, forward and backward; None for one that is compiled in."""
    with watching(anew=False) as watch:
        replace(call, scale=scale)(0)
    assert not watch.differing, "\n".join(watch.differing)
    # 1.0 is what the launches pass that have nothing to scale: the sums of addends
    return {value for _, value in watch.scales if value != 1.0} or {1.0}


@pytest.mark.parametrize("call", CALLS, ids=KINDS)
def test_every_scale_is_handed_over(call: Call) -> None:
    for scale in (1, 2, 1.0, 16, 0.5, 1, 3, np.float64(0.25), 2.0):
        assert handed(call, scale) == {float(scale)}, f"scale={scale!r}"


@pytest.mark.parametrize("call", CALLS, ids=KINDS)
@pytest.mark.parametrize("scale", [np.float32(0.5), np.int64(1), Fraction(1, 2), torch.tensor(0.5)], ids=repr)
def test_a_number_of_another_kind_is_converted_or_refused(call: Call, scale: Any) -> None:
    handed(call, 1)
    try:
        found = handed(call, scale)
    except TypeError as refused:
        assert "scale is a" in str(refused)
    else:
        assert found == {float(scale)}
    assert handed(call, 2.0) == {2.0}


@pytest.mark.parametrize("call", CALLS, ids=KINDS)
def test_a_truth_value_is_no_scale(call: Call) -> None:
    for plan in ("before", "after"):
        with pytest.raises(TypeError, match="scale is a bool"):
            replace(call, scale=True)(0)
        if plan == "before":
            call(0)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS[::2], ids=KINDS[::2])
def test_no_dropout_as_an_integer(call: Call) -> None:
    with watching() as watch:
        for p in (0, 0.0, 0, 0.1, 0):
            replace(call, dropout=p)(0)
    assert not watch.differing, "\n".join(watch.differing)
    assert watch.kept
