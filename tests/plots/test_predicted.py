"""`python -m plots` of a folder of predictions: what it draws is said to be predicted, and nothing measured changes."""

from itertools import pairwise
from pathlib import Path

import pytest

from bench.commands.predict.command import predict
from bench.commands.predict.request import Request
from plots.__main__ import main
from plots.data.predictions import load_predictions
from tests.plots.reading import words_of
from tests.predict.made_up_traces import made_up_trace

WHERE = ("impl=eager,peft-fp32",)
PAGE = "# Page\n\n<!-- predicted table 1 -->\nstale\n<!-- end -->\n\nrest\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "predicted"
    assert predict(Request("a100,h100", where=WHERE, out=out, host_us="12.5"), made_up_trace) == 0
    return out


def test_a_report_and_a_figure_a_clock(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    names = {path.name for path in folder.iterdir()} - {".lock"}
    figures = {f"predicted_ratio{more}.{kind}" for more in ("", "_graph") for kind in ("png", "svg")}
    assert names == {"predictions.csv", "predicted.md", *figures}
    assert "predicted, not measured" in capsys.readouterr().out
    lines = (folder / "predicted.md").read_text().splitlines()
    assert lines[0] == "# Predicted, not measured"
    heads = [above for above, line in pairwise(lines) if line.startswith("| ---")]
    for head in heads:
        assert all("redicted" in cell for cell in head.strip("| ").split(" | ")[3:])
    assert len(heads) == 2 * 2 + 2 * 2
    assert all("redicted" in line for line in lines if line.startswith(("#", "![")))
    for path in folder.glob("*.svg"):
        text = " ".join(words_of(path))
        assert "Predicted forward-backward time over Full-FT's, by board" in text
        assert "Predicted, not measured; whiskers: 80 % intervals." in text


def test_the_table_has_the_csvs_numbers(folder: Path) -> None:
    main([str(folder)])
    found = load_predictions(folder)
    case = next(c for c in found.cases if (c.method, c.impl, c.model, c.seq) == ("lora", "eager", "gpt2-xl", 512))
    ratio, time = found.ratio(case, "h100", "eager"), found.time(case, "h100", "forward-backward", "eager")
    assert ratio and time and ratio.low and ratio.high
    line = f"{ratio.value:.3g} ({ratio.low:.3g} .. {ratio.high:.3g}) |"
    assert line in (folder / "predicted.md").read_text()


def test_the_table_goes_between_a_pages_comments(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert main([str(folder), "--into", str(page)]) == 0
    first = page.read_text()
    assert first.startswith("# Page\n\n<!-- predicted table 1 -->\n") and first.endswith("<!-- end -->\n\nrest\n")
    assert (tmp_path / "predicted_ratio.png").stat().st_size > 1000
    assert (
        "(predicted_ratio.png)" in first
        and "Predicted, not measured" in first
        and "stale" not in first
        and "Predicted on 20" in first
    )
    assert main([str(folder), "--into", str(page)]) == 0 and page.read_text() == first


def test_a_page_without_a_place_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    assert main([str(folder), "--into", str(page)]) == 2
    assert "it has no lines <!-- predicted table 1 -->" in capsys.readouterr().err and page.read_text() == "# Page\n"


def test_a_damaged_file_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "predictions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace(",predicted,", ",measured,"), ""]))
    assert main([str(folder)]) == 2
    assert "predictions.csv:2: " in capsys.readouterr().err
    path.write_text(lines[0] + "\n")
    assert main([str(folder)]) == 2
    assert "has no line" in capsys.readouterr().err
