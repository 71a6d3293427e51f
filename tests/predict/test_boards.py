"""The boards that can be predicted, and where their numbers come from."""

import subprocess
import sys
from typing import get_args

import pytest

from bench.errors import UserError
from bench.predict.boards import MemoryKind, board, boards
from bench.roofline.peaks import peaks_of
from tests.conftest import ROOT


def test_the_boards_of_every_family_are_there() -> None:
    assert {"a100", "a100-80gb-pcie", "a6000", "a40", "l40s", "rtx3090", "rtx4090", "rtx5090", "rtxpro6000"} < {
        *boards()
    }
    assert {"h100", "h200", "b200"} < {*boards()}


def test_a_board_is_found_by_its_key_and_by_its_name() -> None:
    assert board("a100").name == "A100-SXM4-80GB"
    assert board("a100-sxm4-80gb") is board("a100")
    assert board("rtx-pro-6000-blackwell-server-edition") is board("rtxpro6000-server")


def test_an_unknown_board_is_told_what_there_is() -> None:
    with pytest.raises(UserError, match=r"--gpu: 'h10' is not valid\. Did you mean 'h100'\?.*Valid: a100, .*b200\."):
        board("h10")


@pytest.mark.parametrize("key", sorted(boards()))
def test_its_numbers_are_possible_and_have_sources(key: str) -> None:
    known = boards()[key]
    assert {*known.shares} == {*get_args(MemoryKind)}
    assert all(0 < share <= 1 for share in [*known.shares.values(), *known.attention.values(), known.gemm.ebw])
    assert 0.5 < known.gemm.e < 1.3
    assert 0 < known.graph_us < known.launch_us < 5
    assert known.l2_tbs > known.bandwidth_tbs
    assert all(0 < narrow <= wide < 1 for narrow, wide in known.errors.values())
    assert {*known.errors} == {"gemm", "memory", "attention"}
    assert {"sheet", "gemm", "shares", "l2_tbs", "launch_us", "attention"} == {*known.sources}


def test_a_board_without_rows_of_its_own_has_the_wider_interval() -> None:
    widest = max(b.errors["gemm"] for b in boards().values() if b.fitted == "grid")
    assert all(b.errors["gemm"] > widest for b in boards().values() if b.fitted != "grid")


def test_data_sheets_are_those_that_peaks_come_from() -> None:
    known = [(b, peaks) for b in boards().values() if (peaks := peaks_of(b.name, b.sms))]
    assert len(known) >= len(boards()) - 2
    for b, peaks in known:
        assert (b.tflops, b.fp32_tflops, b.bandwidth_tbs) == (peaks.bf16_tflops, peaks.fp32_tflops, peaks.memory_tbs)


def test_predicting_needs_no_torch() -> None:
    code = "import sys, bench.predict.rates; print('torch' in sys.modules, 'pandas' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split() == ["False", "False"]
