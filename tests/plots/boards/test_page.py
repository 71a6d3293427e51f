"""The page over several boards: what its table, figure and sentences say of them."""

from pathlib import Path
from typing import Any

import pytest

from plots.data.load import load
from plots.data.results import read_results
from tests.plots.boards.made import DRAWN, ONE, TYPES, Board, draw, page_of
from tests.plots.conftest import fill_table1
from tests.plots.reading import cells_of, lines_of, pick, section, value, words_of


def test_a_column_a_board_with_the_ratios_of_its_own_report(board: Board, tmp_path: Path, capsys: Any) -> None:
    makers = [board("a100", "NVIDIA A100-SXM4-80GB", 1.3), board("h100", "NVIDIA H100 80GB HBM3", 0.8)]
    assert draw(*(maker.write() for maker in makers)) == 0
    out = capsys.readouterr().out.splitlines()
    where = tmp_path / "results" / "boards"
    assert {path.name for path in where.iterdir()} == DRAWN
    line = cells_of((where / "boards.md").read_text(), "gpt2-xl", "LoRA eager")
    assert [*line][-2:] == ["A100-SXM4-80GB", "H100 80GB HBM3"]
    for maker, head in zip(makers, [*line][-2:], strict=True):
        own = section((maker.path / "table1.md").read_text(), "### Forward and backward time")
        assert line[head] == cells_of(own, "gpt2-xl", "LoRA eager")["Ratio to Full-FT"]
        drawn = pick(where / "boards.csv", board=head, method="lora")
        assert float(drawn["ratio_to_full"]) == pytest.approx(value(line[head]), rel=1e-3)
        assert Path(drawn["folder"]) == maker.path
    assert [r["verdict"] for r in lines_of(where / "boards.csv", method="lora")] == ["slower", "faster"]
    said = next(words for words in out if "LoRA eager" in words and "by the 95 % intervals" in words)
    assert said.startswith("Whole models, bf16, clock eager, by the 95 % intervals of forward-backward: LoRA eager is ")
    assert "slower than Full-FT eager on A100-SXM4-80GB (1." in said and "; faster on H100 80GB HBM3 (0." in said
    assert said in (where / "boards.md").read_text()
    figure = words_of(where / "boards.svg")
    assert {"A100-SXM4-80GB", "H100 80GB HBM3", "LoRA eager", "PaCA eager", "gpt2-xl, 4 x 512"} <= {*figure}
    page = (where / "boards.html").read_text()
    assert "<svg" in page and 'href="boards.csv"' in page and "<script" not in page


def test_what_a_board_lacks_and_what_failed_there_stands_as_a_word(board: Board, make_case: Any) -> None:
    small, full = board("t4", "T4", 0.8), board("a100", "A100")
    fill_table1(full, TYPES, [(4, 1024)], models=ONE)
    small.failed(make_case("full", model="tinyllama"), "oom", "no room")
    small.timed(make_case("lora", model="tinyllama"), {"forward": 1.0, "backward": 2.0, "forward-backward": 3.0})
    full.failed(make_case("lora", model="tinyllama"), "crashed", "signal 9")
    text = page_of(full, small)
    assert cells_of(text, "gpt2-xl", "4 x 1024", "LoRA eager")["T4"] == "not measured"
    line = cells_of(text, "tinyllama", "4 x 512", "LoRA eager")
    assert (line["A100"], line["T4"]) == ("crashed", "Full-FT oom")
    assert "LoRA eager is slower than Full-FT eager on A100 in every case with a ratio (" in text
    figure = " ".join(words_of(full.path.parents[1] / "boards" / "boards.svg"))
    assert "not measured" in figure and "crashed" in figure and "Full-FT oom" in figure
    words = {r["verdict"] for r in lines_of(full.path.parents[1] / "boards" / "boards.csv", board="T4", method="lora")}
    assert words == {"faster", "not measured", "Full-FT oom"}


def test_a_training_type_that_no_board_can_do_is_left_out_and_named(board: Board, make_case: Any) -> None:
    makers = [board("a100", "A100"), board("h100", "H100")]
    for maker in makers:
        maker.failed(make_case("lora", "triton"), "unsupported", "no")
    makers[0].failed(make_case("paca", "triton"), "unsupported", "no")
    fill_table1(makers[1], [("paca", "triton")], [(4, 512)], models=ONE)
    text = page_of(*makers)
    assert "Left out, since no board can do it: LoRA triton." in text and "| LoRA triton |" not in text
    assert cells_of(text, "gpt2-xl", "PaCA triton")["A100"] == "unsupported"


def test_unreliable_ratios_are_marked_and_claim_no_winner(board: Board) -> None:
    makers = [board("a100", "A100", 1.03, noise=0.3, n=12), board("h100", "H100"), board("l4", "L4")]
    text = page_of(*makers)
    assert "Most values of these columns are noisy and carry no mark: A100." in text
    assert "† marks a ratio whose interval is wider than ±5 %." in text
    assert "slower than Full-FT eager on H100 and L4 (" in text and "undecided on A100." in text
    figure = " ".join(words_of(makers[0].path.parents[1] / "boards" / "boards.svg"))
    assert "Hollow: noisy" in figure


def test_boards_with_other_cases_and_clocks_are_named(board: Board, make_case: Any) -> None:
    makers = [board("a100", "A100"), board("h100", "H100"), board("l4", "L4", clock="graph")]
    fp16 = board("t4", "T4", axes={"precision": "fp16"})
    empty = board("b200", "B200", fill=False)
    text = page_of(*makers, fp16, empty)
    assert "**L4: nothing under clock eager.**" in text
    line = cells_of(text, "gpt2-xl", "LoRA eager")
    assert line["L4"] == "not measured" and [*line][2:] == ["A100", "H100", "L4"]
    assert (
        "T4 is not among the boards of whole models, bf16, clock eager: there was measured level model in fp16." in text
    )
    assert "B200 is not among the boards of whole models, bf16, clock eager: nothing has been measured there." in text


def test_boards_that_have_nothing_in_common_make_no_page(board: Board, tmp_path: Path, capsys: Any) -> None:
    makers = [board("a100", "A100"), board("t4", "T4", axes={"precision": "fp16"})]
    assert draw(*(maker.write() for maker in makers)) == 0
    assert "No page over boards: no two of A100, T4 have a level" in capsys.readouterr().out
    assert not (tmp_path / "results" / "boards").exists()


def test_sources_that_differ_and_unfinished_boards_are_said_first(board: Board) -> None:
    makers = [board("a100", "A100"), board("h100", "H100")]
    makers[1].run |= {"commit": "fedcba98765", "source_hash": "11", "torch": "2.14.0+cu130", "driver": "999.1"}  # type: ignore[operator]
    makers[1].run["invocations"][0]["cases"] = 7  # type: ignore[index]
    text = page_of(*makers)
    assert text.index("Not measured with the same commit") < text.index("## Answer")
    assert "0123456789 on A100; fedcba9876 on H100." in text and "2.13.0 on A100; 2.14.0+cu130 on H100." in text
    assert "H100: Half-finished: 3 of 7 measurements are on record." in text
    own = section(text + "\n## end", "## The boards")
    assert "driver 999.1" in own and "driver 580.65.06" in own, "what differs stands by board"
    assert "driver" not in section(text, "## Every ratio")


def test_another_commit_with_the_same_sources_makes_no_difference(board: Board) -> None:
    makers = [board("a100", "A100"), board("h100", "H100")]
    makers[1].run["commit"] = "fedcba98765"  # type: ignore[index]
    text = page_of(*makers)
    assert "Not measured with the same" not in text and "commit fedcba9876" in text


def test_another_schema_refuses_all_and_nothing_is_written(board: Board, tmp_path: Path, capsys: Any) -> None:
    first, other = board("a100", "A100"), board("h100", "H100")
    other.run["schema"] = 2  # type: ignore[index]
    folders = [first.write(), other.write()]
    assert draw(*folders) == 2
    told = capsys.readouterr().err
    assert str(folders[1] / "run.json") in told and "found schema 2" in told
    assert not (folders[0] / "report.html").exists() and not (tmp_path / "results" / "boards").exists()


def test_the_page_goes_where_out_says_but_never_over_anothers(board: Board, tmp_path: Path, capsys: Any) -> None:
    folders = [board("a100", "A100").write(), board("h100", "H100").write()]
    assert draw(folders[0], out=tmp_path / "page") == 2
    assert "--out" in capsys.readouterr().err and not (tmp_path / "page").exists()
    assert draw(*folders, out=tmp_path / "page") == 0
    assert {path.name for path in (tmp_path / "page").iterdir()} == DRAWN
    assert f"--out {tmp_path / 'page'}" in (tmp_path / "page" / "boards.md").read_text()
    assert not (tmp_path / "results" / "boards").exists()
    (tmp_path / "page" / "boards.md").write_text("# My thesis\n")
    assert draw(*folders, out=tmp_path / "page") == 2
    assert "Say with --out" in capsys.readouterr().err
    assert (tmp_path / "page" / "boards.md").read_text() == "# My thesis\n"


def test_a_place_that_cannot_be_written_is_named(board: Board, tmp_path: Path, capsys: Any) -> None:
    folders = [board("a100", "A100").write(), board("h100", "H100").write()]
    (tmp_path / "results" / "boards").write_text("a file")
    assert draw(*folders) == 2
    told = capsys.readouterr().err
    assert f"cannot write into {tmp_path / 'results' / 'boards'}" in told and "--out" in told


def test_the_ratio_is_that_of_the_record_alone(board: Board) -> None:
    """Beside a board with other cases the digits of a ratio do not change."""
    maker = board("a100", "A100")
    alone = read_results(load(maker.write()))
    (lora,) = [case for case in alone.cases if case.method == "lora"]
    page_of(maker, board("h100", "H100", models=("gpt2-xl", "tinyllama")))
    found = alone.ratio(lora, "forward-backward", "eager").value
    line = pick(maker.path.parents[1] / "boards" / "boards.csv", board="A100", method="lora", model="gpt2-xl")
    assert found and float(line["ratio_ci_low"]) == found.low and float(line["ratio_ci_high"]) == found.high
