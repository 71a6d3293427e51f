"""The model of a GEMM in tiles: properties over the shapes of the tables, and times worked out by hand."""

from math import ceil, isclose

import pytest

from kernels.runtime import tile_tables as tables
from kernels.runtime.architectures import features
from kernels.runtime.dispatch import Case, allows, choose_tile, tiles_of
from kernels.runtime.tile_model import blocks_per_sm, cublas_us, gemm_us, gpu, relative, shared_bytes
from kernels.runtime.tile_tables import Tile
from kernels.tune.cases import MODELS

#: GPUs by architecture and SMs: A100, RTX A6000, RTX 4090, H100 SXM, a GH200's 144, B200, RTX PRO 6000.
GPUS = [(80, 108), (86, 84), (89, 128), (90, 132), (90, 144), (100, 148), (120, 188)]
SHAPES = [(m, layer.n, layer.k) for m in (2048, 4096) for layers in MODELS.values() for layer in layers]
GEMMS = ("gemm", "gemm_tma", "single_pass")


def chosen(kernel: str, arch: int, sms: int, shape: tuple[int, int, int], rank: int = 8, masked: bool = False) -> Tile:
    m, n, k = shape
    return choose_tile(kernel, Case(m, n, k, rank, arch, sms), m, n, masked)


def useful(tile: Tile, sms: int, shape: tuple[int, int, int]) -> float:
    """Share of the SMs' time, by rounds of tiles, in which a tile of the output is computed."""
    m, n, _ = shape
    rounds = ceil(ceil(m / tile.bm) * ceil(n / tile.bn) / sms)
    return m * n / (rounds * sms * tile.bm * tile.bn)


@pytest.mark.parametrize(
    ("arch", "sms", "kernel"),
    [(arch, sms, kernel) for arch, sms in GPUS for kernel in GEMMS if kernel != "gemm_tma" or features(arch).tma],
)
def test_the_tile_is_the_fastest_that_is_allowed(arch: int, sms: int, kernel: str) -> None:
    device = gpu(arch, sms)
    assert device is not None
    tma, rank = kernel == "gemm_tma", 16 if kernel == "single_pass" else 0
    for shape in SHAPES:
        tile = chosen(kernel, arch, sms, shape)
        assert tile in tiles_of(kernel, arch) and allows(tile, 8, False)
        best = relative(tile, device, *shape, tma=tma, rank=rank)
        assert best >= 1
        for other in tiles_of(kernel, arch):
            if allows(other, 8, False):
                assert best <= relative(other, device, *shape, tma=tma, rank=rank)
        first = next(tile for tile in tiles_of(kernel, arch) if allows(tile, 8, False))
        worse = useful(tile, sms, shape) < useful(first, sms, shape)
        assert not worse or best < relative(first, device, *shape, tma=tma, rank=rank), (
            "idle SMs only for a faster loop"
        )


@pytest.mark.parametrize(("arch", "sms"), GPUS)
def test_every_tile_fits_and_more_of_k_takes_longer(arch: int, sms: int) -> None:
    device = gpu(arch, sms)
    assert device is not None
    for kernel in GEMMS:
        tma = kernel == "gemm_tma"
        if tma and not features(arch).tma:
            continue
        for tile in tiles_of(kernel, arch):
            rank = tile.max_rank if kernel == "single_pass" else 0
            assert shared_bytes(tile, arch, tma, rank) <= features(arch).shared_limit, tile
            assert blocks_per_sm(tile, arch, tma, rank) >= blocks_per_sm(tile, arch, tma, rank, heavy=True) >= 1
            times = [gemm_us(tile, device, 4096, 4096, k, tma=tma) for k in (16, 256, 1024, 1040, 4096, 16384)]
            assert times == sorted(times) and times[-1] > times[0]


def test_the_share_of_sm_time_is_not_below_that_of_the_first_tile_with_enough_waves() -> None:
    """The choice before: the first tile of the list that fills 0.8 of the SMs once, else the last."""
    better = 0
    for sms in (132, 144):
        for shape in SHAPES:
            tiles = [tile for tile in tiles_of("gemm_tma", 90) if allows(tile, 8, False)]
            enough = (t for t in tiles if ceil(shape[0] / t.bm) * ceil(shape[1] / t.bn) >= 0.8 * sms)
            before, now = next(enough, tiles[-1]), chosen("gemm_tma", 90, sms, shape)
            device = gpu(90, sms)
            assert device is not None
            assert relative(now, device, *shape, tma=True) <= relative(before, device, *shape, tma=True)
            better += useful(now, sms, shape) > useful(before, sms, shape)
            assert useful(now, sms, shape) >= useful(before, sms, shape)
    assert better >= 4


def test_two_times_by_hand() -> None:
    """An H100 in 128x256 by TMA: 4096 x 2048 are 256 tiles, two rounds of 132 SMs. A tile takes 2 * 128 * 256 * K FLOPs
    at 4096 a clock, 256 clocks for 16 of K, at 0.95, and 0.1 * 128 * 256 clocks for its epilogue. The clock is 800
    TFLOP/s over 132 * 4096. On an A100 128x128x32 with 4 warps has two blocks an SM, which hide all epilogues but one:
    4096 x 1024 are 256 tiles, three rounds of 108."""
    h100, a100 = gpu(90, 132), gpu(80, 108)
    assert h100 is not None and a100 is not None
    by_hand = 2 * (64 * 256 / 0.95 + 3276.8) / (800e6 / 132 / 4096)
    assert isclose(gemm_us(Tile(128, 256, 64, 4, 8, ""), h100, 4096, 2048, 1024, tma=True), by_hand)
    by_hand = (3 * 64 * 256 / 0.93 + 1638.4) / (270e6 / 108 / 2048)
    assert isclose(gemm_us(Tile(128, 128, 32, 4, 4, ""), a100, 4096, 1024, 1024), by_hand)


def test_rates_are_those_of_the_machine() -> None:
    """128x128 on an H100 reads and writes 160 bytes of shared memory a clock of 128, and 64 bytes from L2, of 48."""
    h100 = gpu(90, 132)
    assert h100 is not None
    coarse, fine = (gemm_us(Tile(128, bn, 64, 3, 8, ""), h100, 8192, 8448, 65536) for bn in (256, 128))
    assert fine / coarse == pytest.approx(64 / 48, rel=0.02)
    ideal = 2e-6 * 8192 * 8448 * 8192 / 800
    assert cublas_us(h100, 8192, 8448, 8192) == pytest.approx(ideal, rel=0.05)
    assert gpu(90, 66) is not None and cublas_us(gpu(90, 66), 8192, 8448, 8192) == pytest.approx(2 * ideal, rel=0.05)
    assert gpu(103, 148) is None, "unknown rates"


def test_narrow_outputs_are_not_cut_into_wide_tiles() -> None:
    """tinyllama's k and v (N 256): 128x256 leaves three quarters of an H100 idle."""
    for m in (2048, 4096):
        for masked in (False, True):
            tile = chosen("gemm" if masked else "gemm_tma", 90, 132, (m, 256, 2048), masked=masked)
            assert (tile.bm, tile.bn) != (128, 256)


def test_blocks_of_an_sm() -> None:
    assert blocks_per_sm(Tile(128, 256, 64, 4, 8, ""), 90, tma=True) == 1, "224 KiB"
    assert blocks_per_sm(Tile(128, 128, 64, 3, 8, ""), 90, tma=True) == 2, "112 KiB, 120 registers of 256 threads"
    assert blocks_per_sm(Tile(128, 128, 64, 3, 8, ""), 90, tma=True, heavy=True) == 1
    assert blocks_per_sm(Tile(128, 128, 32, 4, 4, ""), 86) == 2, "48 KiB of 100"
    assert blocks_per_sm(Tile(128, 256, 32, 2, 8, ""), 100, tma=True) == 1, "two accumulators fill tensor memory"
    assert tables.KNOWN == (80, 86, 89, 90, 100, 120)
