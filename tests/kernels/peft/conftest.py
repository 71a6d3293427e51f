"""Small PEFT models, each buildable as PEFT has it and accelerated, from one seed."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest.register_assert_rewrite("tests.kernels.peft.peft_models", "tests.kernels.peft.situations")


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of x that the fused functions served: empty, everything went to PEFT's forward."""
    import kernels.peft.fused_linear as layer

    seen: list[tuple[int, ...]] = []

    def noting(call: Callable) -> Callable:
        def noted(x, *args, **kwargs):
            seen.append(tuple(x.shape))
            try:
                return call(x, *args, **kwargs)
            except (RuntimeError, TypeError, ValueError):  # refused
                seen.pop()
                raise

        return noted

    for name in ("lora_linear", "dora_linear"):
        monkeypatch.setattr(layer, name, noting(getattr(layer, name)))
    return seen
