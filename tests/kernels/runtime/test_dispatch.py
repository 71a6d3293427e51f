"""The dispatcher and its tables: plain functions of shapes."""

from dataclasses import replace

import pytest

from kernels.runtime import dispatch
from kernels.runtime import tile_tables as tables
from kernels.runtime.dispatch import (
    BACKWARD_SCHEMES,
    FORWARD_SCHEMES,
    Case,
    choose_backward,
    choose_forward,
    choose_tile,
)

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
            assert not (dropout and forward.scheme == "f2"), "F2 draws no mask"
            if arch not in tables.KNOWN and arch >= 80 and rank <= 64:
                assert (forward.scheme, backward.scheme) == ("f0", "b1"), "cuBLAS's GEMMs are right everywhere"
            if arch < 80 or rank > 64:
                assert forward.scheme == backward.scheme == "torch"
            for kernel in tables.TILES:
                if kernel != "persistent" or arch == 90:
                    assert choose_tile(kernel, asked, m, n).reason


def test_small_layers_take_one_kernel_and_large_ones_cublas() -> None:
    assert choose_forward(case(80, 1024, 1024)).scheme == "f2"
    assert choose_forward(case(80, 4096, 4096)).scheme == "f1"
    assert choose_forward(case(80, 8192, 8192)).scheme == "f0"
    assert choose_forward(case(90, 4096, 4096)).scheme == "f1t"
    assert choose_forward(case(90, 4096, 4096, fits_tma=False)).scheme == "f1"
    assert choose_forward(case(90, 1600, 1600, bordered=True)).scheme == "f3p"
    assert choose_backward(case(90, 1024, 1024)).scheme == "b2r"
    assert choose_backward(case(90, 4096, 4096, dropout=True)).scheme == "b2"


def test_override() -> None:
    assert dispatch.split_scheme("f1/b2") == ("f1", "b2")
    assert dispatch.split_scheme("/b2") == (None, "b2")
    assert dispatch.split_scheme("f0") == ("f0", None)
    assert choose_forward(case(90, 8192, 8192), "f2").scheme == "f2"
    for wrong in ("f7", "f1/b7", "b2"):
        with pytest.raises(ValueError, match=f"scheme is '{wrong}', expected"):
            dispatch.split_scheme(wrong)


def test_a_measurement_wins_over_a_rule_near_its_tokens(monkeypatch) -> None:
    entry = tables.Measured(90, "forward", 4096, 2048, 2048, 16, False, "f1", (128, 128, 64, 3, 8), "us: f1 1.0")
    monkeypatch.setattr(tables, "MEASURED", (entry, replace(entry, m=8192, scheme="f0", tile=None)))
    choice = choose_forward(case(90))
    assert (choice.scheme, choice.reason) == ("f1", "us: f1 1.0") and choice.tile is not None and choice.tile.bm == 128
    assert choose_forward(case(90, m=7000)).scheme == "f0", "the nearest number of tokens"
    assert choose_forward(case(90, m=512)).reason != "us: f1 1.0", "too far away"
    assert choose_forward(case(90, rank=8)).scheme == "f1", "ranks that pad alike run the same kernels"
    assert (
        choose_forward(case(90, dropout=True)).scheme != "f1"
        or "us" not in choose_forward(case(90, dropout=True)).reason
    )
    assert choose_forward(case(80)).reason != "us: f1 1.0"


def test_every_entry_has_a_reason() -> None:
    rules = [*tables.FORWARD, *tables.BACKWARD]
    tiles = [tile for kernel in tables.TILES.values() for by_arch in kernel.values() for tile in by_arch]
    assert all(len(entry.reason) > 10 for entry in [*rules, *tiles])
    for kernel, by_arch in tables.TILES.items():
        for tiles_ in by_arch.values():
            assert tiles_[-1].min_waves == 0 or len(tiles_) == 1 or kernel in ("persistent",), (
                "the last one takes anything"
            )


def test_describe_says_what_and_why() -> None:
    text = dispatch.describe(case(90, 4096, 4096))
    assert text.startswith("forward: f1t (") and "backward: b2t (" in text
