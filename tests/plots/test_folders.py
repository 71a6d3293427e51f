"""Every kind of results folder becomes a complete report, or one clear sentence."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from plots.__main__ import main
from plots.data.load import load
from plots.report import draw
from tests.conftest import ROOT
from tests.plots.reading import cells_of, draw_tables, section, value

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
ONE = ("gpt2-xl",)
FILES = ("table1.md", "table1.csv", "report.md", "report.html")


def whole(folder: Path) -> bool:
    return all((folder / name).stat().st_size > 0 for name in FILES)


class Page(HTMLParser):
    """Gathers what a browser would fetch, what links lead to, and which tags and ids there are."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = self.links if tag in ("a", "use") else self.fetched
        found += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action") and v]
        self.ids += [v for k, v in attrs if k == "id" and v]

    def leads_nowhere(self, folder: Path) -> list[str]:
        """Links to no place of the page and to no file beside it."""
        there = {f"#{name}" for name in self.ids} | {path.name for path in folder.iterdir()}
        return [link for link in self.links if link not in there]


def test_the_page_is_one_file_and_the_figures_are_valid(maker: Any, fill: Callable[..., None]) -> None:
    fill(maker, TYPES, [(4, 512), (4, 1024)])
    assert main([str(maker.write())]) == 0
    assert whole(maker.path)
    text = (maker.path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert not page.fetched and not page.leads_nowhere(maker.path)
    assert {"samples.jsonl", "table1.csv"} <= {*page.links} and "rows.csv" not in page.links, "files that are there"
    assert len(page.ids) == len(set(page.ids)), "figures share no ids"
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert {*re.findall(r"url\((.)", text)} == {"#"} and "@import" not in text
    for stem in ("throughput", "ratio"):
        assert (maker.path / f"{stem}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert ElementTree.parse(maker.path / f"{stem}.svg").getroot().tag.endswith("svg")
        assert f"]({stem}.png)" in (maker.path / "report.md").read_text()


def test_a_redraw_changes_nothing(maker: Any, fill: Callable[..., None]) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    main([str(maker.write())])
    names = (*FILES, "ratio.svg")
    before = [(maker.path / name).read_bytes() for name in names]
    main([str(maker.path)])
    assert before == [(maker.path / name).read_bytes() for name in names]


def test_figures_that_the_data_no_longer_support_are_removed(maker: Any, fill: Callable[..., None]) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    (maker.write() / "grid.png").write_bytes(b"old")
    draw(load(maker.path), figures=("grid",))
    assert not (maker.path / "grid.png").exists()


@pytest.mark.parametrize(
    ("sweep", "tables"),
    [("table1", {"table1.md", "table1.csv"}), ("table1-paper", {"table1.md", "table1.csv"}),
     ("lengths", {"tables.md", "summary.csv"})],
)  # fmt: skip
def test_table1_is_written_for_its_sweep_alone(maker: Any, make_case: Any, sweep: str, tables: set[str]) -> None:
    """And the tables that an earlier drawing wrote under the other names go; a stranger's file stays."""
    every = {"table1.md", "table1.csv", "tables.md", "summary.csv"}
    maker.timed(make_case(), {"forward": 1.0, "backward": 2.0, "forward-backward": 3.0})
    maker.run["invocations"][0]["sweep"] = {"name": sweep}
    maker.write()
    for name in (*every, "table3.md"):
        (maker.path / name).write_text("old")
    written, _ = draw(load(maker.path), figures=())
    names = {path.name for path in maker.path.iterdir()}
    assert names & every == tables == {path.name for path in written} - {"report.md", "report.html"}
    assert (maker.path / "table3.md").read_text() == "old"
    assert all((maker.path / name).read_text() != "old" for name in tables)


def test_half_finished_and_torn(maker: Any, fill: Callable[..., None], capsys: Any) -> None:
    fill(maker, TYPES, [(4, 512), (4, 1024)], models=ONE)
    maker.rows = maker.rows[:10]
    maker.run["invocations"][0] |= {"cases": 6}
    path = maker.write()
    with (path / "rows.jsonl").open("a") as file:
        file.write('{"case_id": "torn", "mod')
    with (path / "samples.jsonl").open("a") as file:
        file.write('{"case_id"')
    assert main([str(path)]) == 0
    assert whole(path)
    assert "not measured" in (path / "table1.md").read_text()
    assert "Half-finished: 4 of 6 measurements" in (path / "report.md").read_text()
    assert "rows.jsonl: its last line is torn" in capsys.readouterr().err


def test_a_torn_line_elsewhere_is_refused_by_its_number(maker: Any, fill: Callable[..., None], capsys: Any) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    path = maker.write()
    lines = (path / "rows.jsonl").read_text().splitlines()
    (path / "rows.jsonl").write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]) + "\n")
    assert main([str(path)]) == 2
    assert "rows.jsonl:2: damaged line" in capsys.readouterr().err
    assert not (path / "report.html").exists()


def test_a_later_row_replaces_an_earlier_one(maker: Any, make_case: Callable[..., Any]) -> None:
    maker.failed(make_case("full"), "crashed", "signal 9")
    maker.timed(make_case("full"), {"forward": 10.0, "backward": 20.0, "forward-backward": 30.0})
    draw_tables(maker)
    assert "crashed" not in (maker.path / "report.md").read_text()


def test_rows_csv_does_where_the_record_is_missing(maker: Any, fill: Callable[..., None]) -> None:
    import pandas as pd

    fill(maker, TYPES, [(4, 512)], models=ONE)
    draw_tables(maker)
    path = maker.path
    before = (path / "table1.md").read_text()
    pd.DataFrame(maker.rows).to_csv(path / "rows.csv", index=False)
    (path / "rows.jsonl").unlink()
    draw(load(path), figures=())
    table = [x for x in before.splitlines() if x.startswith("| gpt2-xl | LoRA")]
    assert table == [x for x in (path / "table1.md").read_text().splitlines() if x.startswith("| gpt2-xl | LoRA")]


@pytest.mark.parametrize("status", ["unsupported", "oom", "crashed"])
def test_a_folder_in_which_nothing_could_be_timed(maker: Any, make_case: Any, status: str, capsys: Any) -> None:
    for method in ("full", "lora", "paca"):
        maker.failed(make_case(method), status, "told by the worker")
    assert main([str(maker.write())]) == 0
    assert whole(maker.path)
    assert f"None of the 3 cases gave a time (status {status})" in capsys.readouterr().out
    assert "told by the worker" in (maker.path / "report.html").read_text()


def test_failures_without_pass_and_clock(maker: Any, fill: Callable[..., None], make_case: Any) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.failed(make_case("lora", seq=1024), "timeout", "said nothing for 300 s")
    for row in maker.rows[-3:]:
        row |= {"pass": None, "clock": None}
    draw_tables(maker)
    text = section((maker.path / "table1.md").read_text(), "### Forward and backward time")
    cells = cells_of(text, "gpt2-xl", "4 x 1024", "LoRA eager")
    assert list(cells.values())[3:] == ["timeout"] * 5 + ["none"]


def test_an_empty_folder_and_none_at_all(tmp_path: Path, capsys: Any) -> None:
    assert main([str(tmp_path)]) == 2
    assert "none of rows.jsonl, rows.csv, run.json is in it" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_rows_yet(maker: Any, capsys: Any) -> None:
    assert main([str(maker.write())]) == 0
    assert whole(maker.path)
    assert "Nothing has been measured in this folder yet." in capsys.readouterr().out


def test_rows_alone_are_enough(maker: Any, fill: Callable[..., None]) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.run, maker.samples = None, []
    path = maker.write()
    (path / "samples.jsonl").unlink()
    draw(load(path), figures=())
    text = section((path / "table1.md").read_text(), "### Forward and backward")  # the folder's name tells the sweep
    assert (path / "table1.csv").exists() and value(cells_of(text, "gpt2-xl", "LoRA eager")["Ratio to Full-FT"]) > 1.2


def test_another_schema_is_refused_and_nothing_written(maker: Any, fill: Callable[..., None], capsys: Any) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.run["schema"] = 2
    path = maker.write()
    before = sorted(p.name for p in path.iterdir())
    assert main([str(path)]) == 2
    said = capsys.readouterr().err
    assert "run.json" in said and "found schema 2" in said and "reads schema 1 alone" in said
    assert sorted(p.name for p in path.iterdir()) == before


def test_one_bad_folder_of_several_leaves_all_untouched(maker: Any, fill: Callable[..., None], tmp_path: Path) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    assert main([str(maker.write()), str(tmp_path / "nowhere")]) == 2
    assert not (maker.path / "report.html").exists()


def test_values_from_files_are_escaped(maker: Any, make_case: Callable[..., Any]) -> None:
    evil = "x|y</td><script>alert(1)</script>[a](javascript:b) $\\frac{$"
    for method in ("full", "lora"):
        maker.timed(make_case(method, model=evil), {"forward": 1.0, "backward": 2.0, "forward-backward": 3.0})
    maker.failed(make_case("paca", model=evil), "error", "<img src=http://example.invalid/x> | \n| broken")
    maker.run["commit"] = "<b onload=x>"
    assert main([str(maker.write())]) == 0
    page = Page()
    page.feed((maker.path / "report.html").read_text())
    assert not {"script", "b"} & set(page.tags) and not page.fetched and not page.leads_nowhere(maker.path)
    text = (maker.path / "table1.md").read_text()
    assert "<script" not in text and "<img" not in text
    times = section(text, "### Forward and backward")
    rows = [x for x in times.splitlines() if x.startswith(("| script", "| Model"))]
    assert len(rows) == 4 and len({len(re.findall(r"(?<!\\)\|", x)) for x in rows}) == 1  # as many cells as the head


def test_strange_values_do_not_stop_it(maker: Any, make_case: Callable[..., Any]) -> None:
    maker.timed(make_case("full"), {"forward": 1e-4, "backward": 20000.0}, n=3)
    maker.timed(make_case("lora"), {"forward": 5.0})
    maker.rows.append({"case_id": "bare"})
    maker.rows.append({"case_id": "odd", "status": "ok", "median_ms": None, "pass": "forward", "clock": "eager"})
    maker.run = {"invocations": [{}], "gpu": None, "of another version": {"1": [2]}}
    assert main([str(maker.write())]) == 0
    assert "no interval" in (maker.path / "table1.md").read_text()


def test_it_needs_no_torch_and_help_is_quick() -> None:
    code = (
        "import sys, plots.__main__ as m, contextlib\n"
        "with contextlib.suppress(SystemExit): m.main(['--help'])\n"
        "heavy = {'numpy', 'matplotlib', 'pandas', 'scipy', 'jinja2'} & set(sys.modules)\n"
        "import plots.report\n"
        "import json; print(json.dumps([sorted(heavy), sorted({'torch', 'triton', 'kernels'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout.splitlines()[-1]) == [[], []]
    assert "results folder" in done.stdout


@pytest.mark.parametrize("name", ["table1", "mine"])
@pytest.mark.parametrize("how", ["by path", "no run.json"])
def test_a_folder_says_by_its_sweep_or_by_its_name_what_it_is(how: str, name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    shutil.copytree(ROOT / "results" / "cpu" / "reference" / "table1", out)
    run = json.loads((out / "run.json").read_text())
    if how == "by path":
        run["invocations"][-1]["sweep"]["name"] = "bench/sweeps/table1.yaml"
        (out / "run.json").write_text(json.dumps(run))
    else:
        (out / "run.json").unlink()
    draw(load(out), figures=())
    names = {"table1.md", "table1.csv"} if how == "by path" or name == "table1" else {"tables.md", "summary.csv"}
    assert {path.name for path in out.iterdir()} & {"table1.md", "table1.csv", "tables.md", "summary.csv"} == names
