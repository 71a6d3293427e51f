"""The dispatcher and its tables: plain functions of shapes."""

from dataclasses import replace

import pytest

from kernels.runtime import tile_tables as tables
from kernels.runtime.architectures import features
from kernels.runtime.dispatch import Case, allows, choose_backward, choose_forward, choose_tile, using_tiles
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
                if not kernel.endswith("tma") or features(arch).tma:
                    assert choose_tile(kernel, asked, m, n).reason


def test_a_scheme_is_chosen_by_what_it_costs_beside_its_gemm() -> None:
    assert choose_forward(case(80, 256, 2048)).scheme == "single_pass", (
        "reading X again would cost more than 16 columns"
    )
    assert choose_forward(case(80, 1600, 1600)).scheme == "epilogue"
    assert choose_forward(case(80, 8192, 8192)).scheme == "cublas", "a pass over Y is little against 7 % of the GEMM"
    assert choose_forward(case(90, 2048, 2048)).scheme == "epilogue_tma"
    assert choose_forward(case(90, 2048, 2048, fits_tma=False)).scheme == "epilogue"
    assert choose_backward(case(90, 1024, 1024)).scheme == "epilogue_tma_fused_da"
    assert choose_backward(case(90, 1024, 1024, fits_tma=False)).scheme == "epilogue_fused_da"
    assert choose_backward(case(90, 2048, 2048)).scheme == "epilogue_tma"
    assert choose_backward(case(90, 2048, 2048, dropout=True)).scheme == "epilogue_tma"
    assert choose_backward(case(90, 2048, 2048, rank=64, dropout=True)).scheme == "cublas", "by TMA rank 64 spills"


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("n", [4800, 1600, 6400])
def test_tiles_that_waste_a_quarter_of_the_sms_lose_to_cublas(n: int, dropout: bool) -> None:
    """gpt2-xl on an H100: N = 1600 leaves 128x256 tiles idle; bordered where the weight has room, cublas where K is
    long and the copy of X dear."""
    wide = case(90, n, 1600, rank=8, dropout=dropout, bordered=True)
    assert choose_forward(wide).scheme == "bordered"
    assert choose_forward(replace(wide, bordered=False)).scheme != "bordered", "the weight has no room"
    assert choose_forward(replace(wide, n=1600, k=6400)).scheme == "cublas"


def test_estimates_are_called_so_and_name_what_they_compare() -> None:
    reason = choose_forward(case(90, 2048, 2048)).reason
    assert reason.startswith("modelled microseconds: epilogue_tma ") and "cublas" in reason and "bordered" not in reason


@pytest.mark.parametrize("m", [37, 4096])
@pytest.mark.parametrize("dropout", [False, True])
def test_the_interpreter_takes_what_an_a100_does(m: int, dropout: bool) -> None:
    interpreted = case(0, 72, 80, m=m, sms=16, rank=8, dropout=dropout, interpreted=True)
    on_a100 = replace(interpreted, arch=80, sms=108, interpreted=False)
    assert (
        choose_forward(interpreted).scheme
        == choose_forward(on_a100).scheme
        == ("epilogue" if dropout else "single_pass")
    )
    assert choose_backward(interpreted).scheme == choose_backward(on_a100).scheme == "epilogue_fused_da"
    assert choose_tile("gemm", interpreted, m, 72).bm == 32, "small tiles, so that a small shape has several"


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


def test_a_measurement_wins_over_the_model_near_its_tokens(tuned) -> None:
    def chosen(**more) -> tuple[str, str]:
        choice = choose_forward(case(90, device=DEVICE, **more))
        return choice.scheme, choice.reason

    choice = choose_forward(case(90, device=DEVICE))
    assert (choice.scheme, choice.reason) == ("epilogue", "us: epilogue 1.0")
    assert choice.tile is not None and choice.tile.bm == 128
    assert chosen(m=7000)[0] == "cublas", "the nearest number of tokens"
    assert "us:" not in chosen(m=512)[1], "too far away"
    assert chosen(rank=8)[0] == "epilogue", "ranks that pad alike run the same kernels"
    assert "us:" not in chosen(dropout=True)[1]
    assert "us:" not in choose_forward(case(90, device="NVIDIA Another")).reason
    assert "us:" not in choose_forward(case(90)).reason


def test_given_tiles_stand_for_the_tables_only_within() -> None:
    asked, tile = case(90), tables.Tile(16, 16, 16, 1, 1, "given")
    with using_tiles({"gemm": tile}):
        assert choose_tile("gemm", asked, 4096, 2048) is tile and choose_tile("project", asked, 4096, 0) is not tile
    assert choose_tile("gemm", asked, 4096, 2048) is not tile


def test_every_tile_has_a_reason_and_every_case_a_tile() -> None:
    for kernel, by_arch in tables.TILES.items():
        for tiles in by_arch.values():
            assert all(len(tile.reason) > 10 for tile in tiles)
            assert tiles[-1].min_waves == 0, "the last one takes anything"
            # By TMA a case without a tile is none of the scheme's.
            for rank in () if kernel.endswith("tma") else (16, 32, 64):
                for masked in (False, True):
                    assert any(allows(tile, rank, masked) for tile in tiles), (kernel, rank, masked)
