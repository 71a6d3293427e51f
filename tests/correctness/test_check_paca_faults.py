"""The correctness check of PaCA: every fault that is planted is found, with its tensor named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.correctness.check import check
from bench.methods.paca.eager import EagerPaCALinear
from bench.methods.paca.official import OfficialPaCALinear
from bench.methods.paca.swap import SwapPaCALinear
from tests.correctness.planted import case_of, named, paca_impl, paca_layer, paca_of


class _Swapped(EagerPaCALinear):
    """Gathers x in another order than that of its columns."""

    def forward(self, x: Tensor) -> Tensor:
        live = self.scale * (self.columns - self.columns.detach())
        return F.linear(x, self.weight, self.bias) + F.linear(x[..., self.index.flip(0)], live)


class _Stale(EagerPaCALinear):
    """Keeps a copy of the weight from before the step."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "kept"):
            self.kept = self.weight.detach().clone()
        live = self.scale * (self.columns - self.columns.detach())
        return F.linear(x, self.kept, self.bias) + F.linear(x[..., self.index], live)


class _Unscaled(EagerPaCALinear):
    """Leaves the scale out of the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        live = self.columns - self.columns.detach()
        return F.linear(x, self.weight, self.bias) + F.linear(x[..., self.index], live)


class _NoRefresh(EagerPaCALinear):
    def refresh(self) -> None:
        pass


class _OddForwards(OfficialPaCALinear):
    """Copies the columns in on odd forwards only, as PaCA's authors' code does."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x) if self.calls % 2 else EagerPaCALinear.forward(self, x)


class _SwapsForwardAlone(SwapPaCALinear):
    """dX by the pretrained weight."""

    def forward(self, x: Tensor) -> Tensor:
        pretrained = F.linear(x, self.weight, self.bias)
        return super().forward(x.detach()) + (pretrained - pretrained.detach())


def _unsorted(name: str, layer: nn.Module, case: Case) -> nn.Module:
    found = paca_layer(name, layer, case)
    found.index = found.index.flip(0)
    with torch.no_grad():
        found.columns.copy_(found.columns.flip(1))
    return found


def _other_columns(name: str, layer: nn.Module, case: Case) -> nn.Module:
    return paca_layer(name + "?", layer, case)


def _undivided(name: str, layer: nn.Module, case: Case) -> nn.Module:
    found = paca_layer(name, layer, case)
    with torch.no_grad():
        found.columns.mul_(found.scale)
    return found


PACA: dict[str, tuple[Callable[..., nn.Module], set[str], str]] = {
    "swapped index": (paca_of(_Swapped), {"columns"}, "differs"),
    "stale weight": (paca_of(_Stale), {"output", "logits"}, "after a step"),
    "no refresh": (paca_of(_NoRefresh), {"output", "logits"}, "after a step"),
    "no scale in the gradient": (paca_of(_Unscaled), {"columns"}, "differs"),
    "columns copied in on odd forwards": (paca_of(_OddForwards), {"output", "logits"}, "after a step"),
    "swapped in for forward alone": (paca_of(_SwapsForwardAlone), {"x", "columns"}, "after a step"),
    "unsorted columns": (_unsorted, {"index", "columns"}, ""),
    "other columns": (_other_columns, {"index", "columns"}, ""),
    "columns not divided by the scale": (_undivided, {"columns"}, "as built"),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("level", ["linear", "block", "model"])
@pytest.mark.parametrize("fault", PACA)
def test_faults_of_paca(models: dict[str, str], plant: Any, fault: str, level: str, precision: str) -> None:
    make, tensors, where = PACA[fault]
    impl = plant("paca", paca_impl(make))
    named(check(case_of(models, "gpt2", "paca", level, impl=impl, precision=precision), "cpu"), tensors, where)
