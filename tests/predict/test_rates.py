"""Times of operators, by hand and by what no board can do: more work in less time."""

from dataclasses import replace

import numpy as np
import pytest

from bench.predict.boards import boards
from bench.predict.rates import attention_us, gemm_us, memory_us
from tests.predict.made_up import EASY, made_up

KEYS = sorted(boards())
RNG = np.random.default_rng(0)
SIZES = RNG.integers(1, 9000, (3, 400)).astype(float)


def test_a_gemm_of_whole_waves_takes_its_operations_at_the_rate() -> None:
    """100 x 50 tiles of 128 x 256 are 50 waves of 100 SMs: 2 x 12800 x 12800 x 4096 at 1e8 a microsecond."""
    assert gemm_us(made_up(bandwidth_tbs=1e9), 12800, 12800, 4096) == pytest.approx(2 + 13421.77, rel=1e-6)


def test_a_gemm_of_one_row_takes_the_reading_of_its_weight() -> None:
    """16 MiB of weights at 2e6 bytes a microsecond; of products there is next to nothing."""
    board = made_up(tflops=1e6)
    assert gemm_us(board, 1, 2048, 4096) == pytest.approx(2 + 2 * 2048 * 4096 / 2e6, rel=2e-3)
    assert gemm_us(board, 1, 2048, 4096, width=4) == pytest.approx(2 + 4 * 2048 * 4096 / 2e6, rel=2e-3)


def test_a_tile_past_a_whole_wave_costs_more_than_its_operations() -> None:
    board = made_up(bandwidth_tbs=1e9)
    full, past = gemm_us(board, [1280, 1281], 2560, 8192)
    assert past / full > 1.02


def test_each_precision_has_its_rate() -> None:
    board = made_up(bandwidth_tbs=1e9, l2_tbs=1e9)
    half, tf32, ordinary = (
        float(gemm_us(board, 12800, 12800, 4096, **how)) for how in ({}, {"width": 4}, {"width": 4, "fp32": True})
    )
    assert (tf32 - 2) / (half - 2) == pytest.approx(2)
    assert (ordinary - 2) / (half - 2) == pytest.approx(10 / 0.8, rel=0.01)


def test_a_batch_fills_the_waves_that_one_product_leaves_empty() -> None:
    board = made_up(bandwidth_tbs=1e9, l2_tbs=1e9)
    one, many = gemm_us(board, 128, 256, 512, batch=[1, 100])
    assert many - 2 < 100 * (one - 2) / 4
    assert many == pytest.approx(2 + 100 * 2 * 128 * 256 * 512 / 1e8, rel=1e-6)


def test_a_long_gemm_loses_what_the_power_limit_takes() -> None:
    board = made_up(bandwidth_tbs=1e9)
    limited = replace(board, gemm=EASY.model_copy(update={"sag": 0.5}))
    size = np.array([1280.0, 64000.0])
    short, long = (gemm_us(limited, size, 12800, 4096) - 2) / (gemm_us(board, size, 12800, 4096) - 2)
    assert 1.2 < short < 1.35
    assert 1.45 < long < 1.5


@pytest.mark.parametrize("key", KEYS)
def test_more_of_anything_is_never_faster(key: str) -> None:
    m, n, k = SIZES
    board, more = boards()[key], RNG.integers(1, 600, SIZES.shape[1])
    before = gemm_us(board, m, n, k)
    for larger in (gemm_us(board, m + more, n, k), gemm_us(board, m, n + more, k), gemm_us(board, m, n, k + more)):
        assert (larger >= before * (1 - 1e-12)).all()
    assert (gemm_us(board, m, n, k, batch=2) >= before).all()
    sizes = np.geomspace(1, 1e10, 500)
    for kind in board.shares:
        assert (np.diff(memory_us(board, sizes, kind)) > 0).all()
    assert (np.diff(attention_us(board, sizes)) > 0).all()


@pytest.mark.parametrize("key", KEYS)
def test_a_board_with_more_of_everything_is_never_slower(key: str) -> None:
    """More SMs at rates that grow with them: with more SMs at the same rate each would be slower."""
    board = boards()[key]
    rates = ("sms", "tflops", "fp32_tflops", "bandwidth_tbs", "l2_mib", "l2_tbs")
    better = replace(board, **{name: getattr(board, name) * 2 for name in rates})
    assert (gemm_us(better, *SIZES) <= gemm_us(board, *SIZES)).all()
    assert (gemm_us(better, *SIZES, width=4, fp32=True) <= gemm_us(board, *SIZES, width=4, fp32=True)).all()
    sizes = np.geomspace(1, 1e10, 500)
    for kind in board.shares:
        assert (memory_us(better, sizes, kind) <= memory_us(board, sizes, kind)).all()
    assert (attention_us(better, sizes, backward=True) <= attention_us(board, sizes, backward=True)).all()


def test_a_kernel_takes_its_launch_and_its_bytes() -> None:
    board = made_up()
    assert memory_us(board, 0, "elementwise") == 2.5
    assert memory_us(board, 1.6e9, "elementwise") == pytest.approx(2.5 + 1000)
    assert memory_us(board, 1.6e9, "norm", graph=True) == pytest.approx(1 + 1600)


def test_what_the_l2_holds_comes_at_its_rate() -> None:
    """0.6 of 10e6 bytes a microsecond up to 28 MiB, and the memory's rate alone from 56."""
    board, size = made_up(warm=1.0), np.array([20.0, 60.0]) * 2**20
    assert memory_us(board, size, "norm").tolist() == pytest.approx([2.5 + size[0] / 6e6, 2.5 + size[1] / 1e6])
    held = gemm_us(replace(board, tflops=1e6), 8192, 64, 1024)
    assert held == pytest.approx(2 + 2 * 64 * 1024 / 2e6 + 2 * 8192 * (64 + 1024) / 6e6, rel=1e-3)


def test_attention_takes_its_operations_at_its_share_of_the_rate() -> None:
    assert attention_us(made_up(), 1e10) == pytest.approx(2.5 + 200)
    assert attention_us(made_up(), 1e10, backward=True, graph=True) == pytest.approx(1 + 400)


def test_sizes_may_be_arrays_or_numbers() -> None:
    board, m = boards()["a100"], np.array([256.0, 1000.0, 4096.0])
    at_once = gemm_us(board, m[:, None], np.array([64.0, 5632.0]), 2048, batch=3)
    one_by_one = [[float(gemm_us(board, x, y, 2048, batch=3)) for y in (64, 5632)] for x in (256, 1000, 4096)]
    assert at_once.tolist() == one_by_one
