"""Which folders stand on a page over several boards, under which names, and where the page goes."""

import shutil
from pathlib import Path
from typing import Any

from plots.boards.report import draw_boards
from plots.boards.sorting import find_kin
from plots.data.load import load
from tests.plots.boards.made import DRAWN, Board, draw, page_of
from tests.plots.conftest import CPU_RUN, fill_cpu
from tests.plots.reading import cells_of, value, words_of


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
