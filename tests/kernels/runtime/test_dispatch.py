"""The dispatcher and its tables: plain functions of shapes."""

from dataclasses import replace

import pytest

from kernels.runtime import tile_tables as tables
from kernels.runtime.dispatch import Case, choose_backward, choose_forward, choose_tile, using_tiles
from kernels.runtime.schemes import ALIASES, BACKWARD_SCHEMES, FORWARD_SCHEMES, split_scheme
from kernels.runtime.tuned import Measured, Tuned, tuned_path, write_tuned

SMS = {80: 108, 86: 84, 89: 142, 90: 132, 100: 148, 120: 170}


def case(arch: int, n: int = 2048, k: int = 2048, **more) -> Case:
    return Case(**{"m": 4096, "n": n, "k": k, "rank": 16, "arch": arch, "sms": SMS.get(arch, 80), **more})


@pytest.mark.parametrize("arch", [80, 86, 89, 90, 100, 103, 120, 121, 75, 70, 60])
@pytest.mark.parametrize("rank", [1, 5, 16, 24, 64, 65, 256])
@pytest.mark.parametrize("m", [1, 37, 4096, 10**6])
def test_every_case_has_an_answer(arch: int, rank: int, m: int) -> None:
    for n, k in ((1, 1), (17, 81), (1024, 1024), (11008, 4096), (4096, 11008), (65536, 16384)):
        for dropout in (False, True):
            asked = case(arch, n, k, rank=rank, m=m, dropout=dropout)
            forward, backward = choose_forward(asked), choose_backward(asked)
            assert forward.scheme in FORWARD_SCHEMES and forward.reason
            assert backward.scheme in BACKWARD_SCHEMES and backward.reason
            assert not (dropout and forward.scheme == "single_pass"), "it draws no mask"
            if arch not in tables.KNOWN and arch >= 80 and rank <= 64:
                assert (forward.scheme, backward.scheme) == ("cublas", "cublas"), "cuBLAS's GEMMs are right everywhere"
            if arch < 80 or rank > 64:
                assert forward.scheme == backward.scheme == "torch"
            for kernel in tables.TILES:
                if kernel != "gemm_tma" or arch == 90:
                    assert choose_tile(kernel, asked, m, n).reason


def test_small_layers_take_one_kernel_and_large_ones_cublas() -> None:
    assert choose_forward(case(80, 1024, 1024)).scheme == "single_pass"
    assert choose_forward(case(80, 4096, 4096)).scheme == "epilogue"
    assert choose_forward(case(80, 8192, 8192)).scheme == "cublas"
    assert choose_forward(case(90, 4096, 4096)).scheme == "epilogue_tma"
    assert choose_forward(case(90, 4096, 4096, fits_tma=False)).scheme == "epilogue"
    assert choose_forward(case(90, 1600, 1600, bordered=True)).scheme == "bordered"
    assert choose_backward(case(90, 1024, 1024)).scheme == "epilogue_fused_da"
    assert choose_backward(case(90, 4096, 4096, dropout=True)).scheme == "epilogue_tma"
    assert choose_backward(case(90, 4096, 4096, rank=64, dropout=True)).scheme == "epilogue", "by TMA rank 64 spills"


def test_override() -> None:
    assert split_scheme("epilogue/cublas") == ("epilogue", "cublas")
    assert split_scheme("/epilogue_fused_da") == (None, "epilogue_fused_da")
    assert split_scheme("cublas") == ("cublas", None)
    assert choose_forward(case(90, 8192, 8192), "single_pass").scheme == "single_pass"
    for wrong in ("f7", "f1/b7", "b2", "bordered/single_pass", "cublas_fused_da"):
        with pytest.raises(ValueError, match=f"scheme is '{wrong}', expected"):
            split_scheme(wrong)


def test_earlier_codes_are_accepted() -> None:
    forward = {"f0": "cublas", "f1": "epilogue", "f1t": "epilogue_tma", "f2": "single_pass", "f3p": "bordered"}
    backward = {"b1": "cublas", "b1r": "cublas_fused_da", "b2": "epilogue", "b2r": "epilogue_fused_da",
                "b2t": "epilogue_tma", "b2tr": "epilogue_tma_fused_da"}  # fmt: skip
    assert {"forward": forward, "backward": backward} == ALIASES
    for code, name in forward.items():
        assert split_scheme(code) == (name, None) and name in FORWARD_SCHEMES
    for code, name in backward.items():
        assert split_scheme(f"f1/{code}") == ("epilogue", name) and name in BACKWARD_SCHEMES


DEVICE = "NVIDIA Test 9000"


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """Two measurements on a device, in a folder of this test."""
    monkeypatch.setenv("LORABENCH_TUNED", str(tmp_path))
    entry = Measured("forward", 4096, 2048, 2048, 16, False, "epilogue", (128, 128, 64, 3, 8), "us: epilogue 1.0")
    entries = (entry, replace(entry, m=8192, scheme="cublas", tile=None))
    write_tuned(tuned_path(DEVICE), Tuned(DEVICE, 90, "3.7.1", "2.13.0", "2026-01-31", entries))


def test_a_measurement_wins_over_a_rule_near_its_tokens(tuned) -> None:
    def chosen(**more) -> tuple[str, str]:
        choice = choose_forward(case(90, device=DEVICE, **more))
        return choice.scheme, choice.reason

    choice = choose_forward(case(90, device=DEVICE))
    assert (choice.scheme, choice.reason) == ("epilogue", "us: epilogue 1.0")
    assert choice.tile is not None and choice.tile.bm == 128
    assert chosen(m=7000)[0] == "cublas", "the nearest number of tokens"
    assert "us" not in chosen(m=512)[1], "too far away"
    assert chosen(rank=8)[0] == "epilogue", "ranks that pad alike run the same kernels"
    assert "us:" not in chosen(dropout=True)[1]
    assert "us:" not in choose_forward(case(90, device="NVIDIA Another")).reason
    assert "us:" not in choose_forward(case(90)).reason


def test_given_tiles_stand_for_the_tables_only_within() -> None:
    asked, tile = case(90), tables.Tile(16, 16, 16, 1, 1, "given")
    with using_tiles({"gemm": tile}):
        assert choose_tile("gemm", asked, 4096, 2048) is tile and choose_tile("project", asked, 4096, 0) is not tile
    assert choose_tile("gemm", asked, 4096, 2048) is not tile


def test_every_entry_has_a_reason() -> None:
    rules = [*tables.FORWARD, *tables.BACKWARD]
    tiles = [tile for kernel in tables.TILES.values() for by_arch in kernel.values() for tile in by_arch]
    assert all(len(entry.reason) > 10 for entry in [*rules, *tiles])
    for kernel, by_arch in tables.TILES.items():
        for tiles_ in by_arch.values():
            assert tiles_[-1].min_waves == 0 or len(tiles_) == 1 or kernel == "gemm_tma", "the last one takes anything"
