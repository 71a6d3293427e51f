"""Our kernels as pieces: on every board, and where the dispatcher leaves the work to torch."""

from dataclasses import replace

import numpy as np
import pytest

from bench.predict.boards import boards
from bench.predict.fused import taken_apart
from bench.predict.ops import Op
from bench.predict.price import prices
from kernels.runtime.architectures import ARCHITECTURES

KEYS = sorted(boards())
SIZES = [(m, n, k, r) for m in (512, 8192) for n, k in ((2048, 2048), (5632, 2048), (1600, 6400)) for r in (8, 64, 128)]


def ops(kind: str, **more: bool) -> list[Op]:
    return [Op(f"lorabench::{kind}", "fused", kind, s, **more) for s in SIZES]  # type: ignore[arg-type]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", ["lora_forward", "lora_backward"])
@pytest.mark.parametrize("dropout", [False, True])
def test_a_layer_takes_no_less_than_its_product_and_not_many_times_as_much(kind: str, dropout: bool, key: str) -> None:
    board = boards()[key]
    turned = [(m, n, k, 1) if kind == "lora_forward" else (m, k, n, 1) for m, n, k, _ in SIZES]
    plain = prices(board, [Op("aten::mm", "base_forward", "gemm", s) for s in turned]).us
    ours = prices(board, ops(kind, dropout=dropout))
    assert (ours.us >= plain).all()
    assert (ours.us < 6 * plain).all()
    assert (ours.launches >= 1).all()


@pytest.mark.parametrize("key", KEYS)
def test_paca_s_product_takes_no_less_than_the_reading_of_dy(key: str) -> None:
    board = boards()[key]
    found = [Op("lorabench::paca", "branch", "paca_product", (m, n, r)) for m, n, _, r in SIZES if r <= 64]
    least = np.array([2 * op.sizes[0] * op.sizes[1] for op in found]) / (max(board.l2_tbs, board.bandwidth_tbs) * 1e6)
    ours = prices(board, found)
    assert (ours.us >= least).all()
    assert (ours.us < 60 * least + 20).all()


@pytest.mark.parametrize("key", KEYS)
def test_every_board_has_an_architecture_that_the_kernels_know(key: str) -> None:
    assert boards()[key].arch in ARCHITECTURES


@pytest.mark.parametrize("change", [{"width": 4}, {"sizes": (4096, 2048, 2048, 128)}])
def test_what_the_kernels_do_not_serve_is_one_operator_after_another(change: dict[str, object]) -> None:
    """fp32, and ranks above 64: y, S', the branch, and adding it; of all of which only y is the base layer's."""
    op = replace(Op("lorabench::lora_forward", "fused", "lora_forward", (4096, 2048, 2048, 16)), **change)  # type: ignore[arg-type]
    apart = taken_apart(op, 80, 108)
    rank = op.sizes[3]
    assert [p.op.sizes for p in apart.of][:3] == [(4096, 2048, 2048, 1), (4096, rank, 2048, 1), (4096, 2048, rank, 1)]
    assert [p.op.cause for p in apart.of] == ["base_forward", "fused", "fused", "fused"]
    assert apart.launches == 4
    assert {p.times for p in apart.of} == {1.0}


def test_an_unknown_architecture_has_no_share_of_cublas() -> None:
    assert taken_apart(Op("x", "fused", "lora_backward", (4096, 2048, 2048, 16)), 103, 150).of[0].times == 1.0


def test_dropout_makes_a_layer_no_faster() -> None:
    for key in KEYS:
        without, with_it = (prices(boards()[key], ops("lora_forward", dropout=d)).us for d in (False, True))
        assert (with_it >= without).all()
