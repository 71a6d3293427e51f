"""The page over several boards: which folders stand on it, what its table, figure and sentences say of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plots.__main__ import main
from plots.boards.report import draw_boards
from plots.boards.sorting import find_kin
from plots.data.load import load
from plots.data.results import read_results
from tests.plots.conftest import CPU_RUN, FACTORS, Maker, fill_cpu, fill_table1
from tests.plots.reading import cells_of, lines_of, pick, section, value, words_of

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
ONE = ("gpt2-xl",)
DRAWN = {f"boards.{kind}" for kind in ("md", "html", "csv", "png", "svg")}

Board = Callable[..., Maker]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A maker of results/<key>/<sweep>, whose LoRA takes `lora` times Full-FT's time."""

    def make(key: str, gpu: str, lora: float = 1.3, sweep: str = "table1", fill: bool = True, **options: Any) -> Maker:
        maker = Maker(tmp_path / "results" / key / sweep)
        assert maker.run
        maker.run |= {"gpu": gpu, "gpu_key": key, "run_id": f"run-of-{key}"}
        maker.run["invocations"][0]["sweep"]["name"] = sweep
        monkeypatch.setitem(FACTORS, ("lora", "eager"), (lora, lora))
        if fill:
            fill_table1(maker, TYPES, [(4, 512)], **({"models": ONE} | options))
        return maker

    return make


def draw(*folders: object, out: Path | None = None) -> int:
    return main([*map(str, folders), *(["--out", str(out)] if out else [])])


def page_of(*makers: Maker) -> str:
    """boards.md of what these makers hold, without the reports of the folders, which take longer."""
    (kin,), _ = find_kin([load(maker.write()) for maker in makers])
    draw_boards(kin.place, kin)
    return (kin.place / "boards.md").read_text()


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


def test_one_folder_and_one_board_of_several_sweeps_change_nothing(board: Board, tmp_path: Path, capsys: Any) -> None:
    first = board("h100", "H100").write()
    assert draw(first) == 0 and capsys.readouterr().err == ""
    alone = {path.name: path.read_bytes() for path in first.iterdir()}
    other = board("h100", "H100", sweep="lengths").write()
    assert draw(first, other) == 0 and capsys.readouterr().err == ""
    assert {path.name: path.read_bytes() for path in first.iterdir()} == alone
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["h100"]


def test_drawing_again_gives_the_same_and_a_glob_may_name_the_page(board: Board, capsys: Any) -> None:
    folders = [board(key, key.upper()).write() for key in ("a100", "h100")]
    where = folders[0].parents[1] / "boards"
    assert draw(*folders) == 0
    before = {name: (where / name).read_bytes() for name in DRAWN}
    capsys.readouterr()
    assert draw(*folders, where) == 0
    assert before == {name: (where / name).read_bytes() for name in DRAWN}
    assert "boards: no results folder" in capsys.readouterr().err


def test_two_folders_of_one_board_get_a_column_each_by_what_tells_their_paths_apart(board: Board) -> None:
    makers = [board(key, "NVIDIA L4", lora) for key, lora in (("node-1", 1.3), ("node-2", 1.4))]
    line = cells_of(page_of(*makers), "gpt2-xl", "LoRA eager")
    assert [*line][-2:] == ["L4 (node-1)", "L4 (node-2)"]
    assert 1.25 < value(line["L4 (node-1)"]) < 1.35 < value(line["L4 (node-2)"])


def test_a_copy_of_a_record_is_no_board_of_its_own(board: Board, tmp_path: Path, capsys: Any) -> None:
    first, other = board("a100", "A100").write(), board("h100", "H100", 0.9).write()
    copy = Path(shutil.copytree(first, first.parent / "reference" / "table1"))
    assert draw(first, copy, first) == 0 and not (first.parent / "boards").exists()
    assert f"note: {copy}: the same record as {first}" in capsys.readouterr().err
    (kin,), _ = find_kin([load(path) for path in (first, copy, other, first)])
    assert [*kin.folders] == ["A100", "H100"] and kin.place == tmp_path / "results" / "boards"


def test_only_folders_of_one_sweep_stand_side_by_side(board: Board, tmp_path: Path) -> None:
    folders = [board("a100", "A100").write(), board("h100", "H100").write()]
    lone = board("h100", "H100", sweep="lengths").write()
    (kin,), notes = find_kin([load(path) for path in (*folders, lone)])
    assert [folder.path for folder in kin.folders.values()] == folders
    assert notes == [f"{lone}: the only one of sweep lengths; not put beside others"]
    pair = board("a100", "A100", sweep="lengths").write()
    assert draw(*folders, lone, pair) == 0
    for sweep in ("table1", "lengths"):
        where = tmp_path / "results" / "boards" / sweep
        assert {path.name for path in where.iterdir()} == DRAWN
        assert (where / "boards.md").read_text().startswith(f"# Ratio to Full-FT by GPU, sweep {sweep}\n")


def test_two_boards_without_a_sweep_in_common_say_so(board: Board, tmp_path: Path, capsys: Any) -> None:
    folders = [board("a100", "A100").write(), board("h100", "H100", sweep="lengths").write()]
    assert draw(*folders) == 0
    told = capsys.readouterr().err
    assert "the only one of sweep table1" in told and "the only one of sweep lengths" in told
    assert not (tmp_path / "results" / "boards").exists()


def cpu(board: Board, key: str, gpu: str) -> Path:
    maker = board(key, gpu, fill=False)
    fill_cpu(maker)
    maker.run = CPU_RUN | {"gpu": gpu, "run_id": key}
    for row in maker.rows:
        row["gpu"] = gpu
    return maker.write()


def test_a_cpu_never_stands_beside_gpus(board: Board, tmp_path: Path, capsys: Any) -> None:
    gpus = [board("a100", "A100").write(), board("h100", "H100").write()]
    alone = cpu(board, "cpu", "Some CPU, 2 cores")
    (kin,), (note,) = find_kin([load(path) for path in (gpus[0], alone, gpus[1])])
    assert [*kin.folders] == ["A100", "H100"]
    assert note == f"{alone}: the only CPU, and CPU times are no GPU times; not put beside others"
    assert draw(gpus[0], alone) == 0, "and a pair of both makes no page"
    told = capsys.readouterr().err
    assert f"note: {alone}: the only CPU" in told and f"note: {gpus[0]}: the only GPU" in told
    assert not (tmp_path / "results" / "boards").exists()


def test_cpus_beside_each_other_are_said_to_be_no_gpus(board: Board, tmp_path: Path) -> None:
    (kin,), _ = find_kin([load(cpu(board, key, gpu)) for key, gpu in (("cpu-1", "Some CPU"), ("cpu-2", "Other CPU"))])
    where = tmp_path / "page"
    draw_boards(where, kin)
    text = (where / "boards.md").read_text()
    assert text.startswith("# Ratio to Full-FT by CPU")
    assert "**Measured on CPUs: these times say nothing about a GPU.**" in text
    assert "CPU times, no GPU times." in " ".join(words_of(where / "boards.svg"))
    assert [*cells_of(text, "gpt2-xl", "1 x 64", "LoRA eager")][3:] == ["Some CPU", "Other CPU"]


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
    makers[1].run |= {"commit": "fedcba98765", "driver": "999.1"}  # type: ignore[operator]
    makers[1].run["invocations"][0]["cases"] = 7  # type: ignore[index]
    text = page_of(*makers)
    assert text.index("Not measured with the same commit") < text.index("## Answer")
    assert "0123456789 on A100; fedcba9876 on H100." in text
    assert "H100: Half-finished: 3 of 7 measurements are on record." in text
    own = section(text + "\n## end", "## The boards")
    assert "driver 999.1" in own and "driver 580.65.06" in own, "what differs stands by board"
    assert "driver" not in section(text, "## Every ratio")


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


def test_names_from_a_record_can_name_no_other_folder_and_bring_no_script(board: Board, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> | x"
    for sweep in ("table1", "x/.."):
        for key in ("a100", "h100"):
            maker = board(key, f"{evil} {key}", sweep="table1" if sweep == "table1" else "odd")
            maker.run["invocations"][0]["sweep"]["name"] = sweep  # type: ignore[index]
            maker.write()
    assert draw(*sorted((tmp_path / "results").glob("*/*"))) == 0
    where = tmp_path / "results" / "boards"
    assert sorted(path.name for path in where.iterdir()) == ["sweep", "table1"]
    assert "<script" not in "".join(path.read_text() for path in where.rglob("*.[hms]*") if path.suffix != ".png")


def test_the_ratio_is_that_of_the_record_alone(board: Board) -> None:
    """Beside a board with other cases the digits of a ratio do not change."""
    maker = board("a100", "A100")
    alone = read_results(load(maker.write()))
    (lora,) = [case for case in alone.cases if case.method == "lora"]
    page_of(maker, board("h100", "H100", models=("gpt2-xl", "tinyllama")))
    found = alone.ratio(lora, "forward-backward", "eager").value
    line = pick(maker.path.parents[1] / "boards" / "boards.csv", board="A100", method="lora", model="gpt2-xl")
    assert found and float(line["ratio_ci_low"]) == found.low and float(line["ratio_ci_high"]) == found.high
