"""Where the kernels cannot stand in, and where others listen, an accelerated model does what PEFT's does."""

from __future__ import annotations

import pytest

from tests.kernels.peft.peft_models import stack
from tests.kernels.peft.situations import SITUATIONS, assert_agree, outcome

CASES = [
    pytest.param(kind, name, marks=pytest.mark.slow if kind == "conv1d" or "export" in name else ())
    for kind in ("linear", "conv1d")
    for name in SITUATIONS
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_as_without_accelerate(kind: str, name: str) -> None:
    theirs, ours = (outcome(name, stack(kind, accelerated)) for accelerated in (False, True))
    assert_agree(ours, theirs)
