"""Thirty optimizer steps: the loss curve under accelerate is PEFT's, within what a change of summation order makes.

The spread is measured, not assumed. PEFT itself is trained again with the rows of every batch in other orders, which
changes nothing but the order in which losses and weight gradients are summed, and once in float64, whose distance is
the whole rounding error of the float32 run. The accelerated run may lie SEVERAL times as far away, and no more.
"""

from __future__ import annotations

import pytest
import torch

from tests.kernels.peft.peft_training import distance, spread, train

SEVERAL = 4.0

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_loss_curve_is_pefts(kind: str, fused: list) -> None:
    theirs = train(kind)
    allowed = SEVERAL * spread(kind, theirs)
    assert not fused
    ours = train(kind, accelerated=True)
    assert len(fused) == 30 * (8 if kind == "gpt2" else 14)
    assert theirs[-1] < 0.95 * theirs[0], "it learns"
    assert 0 < allowed < 1e-4 * theirs[0]
    assert distance(ours, theirs) <= allowed
    # The bound is narrow enough to see a scale that is wrong by a thousandth.
    assert distance(train(kind, accelerated=True, scale=1.001), theirs) > allowed


def test_curves_differ_where_batches_do() -> None:
    """What spread() permutes is the order within a batch: another batch gives another curve."""
    theirs = train("gpt2")
    assert distance(train("gpt2", seed=1), theirs) > 100 * spread("gpt2", theirs)
    assert torch.equal(train("gpt2"), theirs), "the same run twice gives the same bits"
