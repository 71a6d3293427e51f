"""Section 'Why' of the report: sentences, tables and figures of causes.csv, held to the file itself."""

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench.case.causes import CAUSES
from plots.__main__ import main
from plots.data.load import load
from plots.figures.causes import OTHER, PAINT
from plots.report import draw
from tests.plots.causes import SHARED, WEIGHTS, plant
from tests.plots.reading import cells_of, draw_tables, section, value, words_of

TYPES = [("full", "eager"), ("lora", "eager"), ("paca", "eager")]
ONE = ("gpt2-xl",)
FIGURES = ("causes", "waterfall")


def why(maker: Any) -> str:
    """The section after drawing the tables."""
    draw(load(maker.path), figures=())
    return section((maker.path / "report.md").read_text(), "## Why")


def recorded(folder: Path, case_id: str, pass_: str) -> dict[str, float]:
    """ms by cause as the file has them, read without the code that is tested."""
    with (folder / "causes.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if (line["case_id"], line["pass"]) == (case_id, pass_)]
    return {line["cause"]: float(line["ms"]) for line in lines}


def test_table_and_sentences_are_the_files_numbers(maker: Any, fill: Any, make_case: Any) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.write()
    plant(maker)
    text = why(maker)
    for pass_ in ("forward", "backward"):
        table = section(text, f"### Why: {pass_} by cause, gpt2-xl at 4 x 512")
        full = recorded(maker.path, make_case()["case_id"], pass_)
        for method, label in (("full", "Full-FT eager"), ("lora", "LoRA eager"), ("paca", "PaCA eager")):
            ours = recorded(maker.path, make_case(method)["case_id"], pass_)
            whole = cells_of(table, label, "all causes")
            assert value(whole["Time (ms)"]) == pytest.approx(sum(ours.values()), rel=1e-3)
            assert (whole["Profile, scale"], whole["Profile, remainder (%)"]) == ("1.02", "1.0")
            difference = sum(ours.values()) - sum(full.values())
            told = whole["More than Full-FT, % of the difference"] == "100"
            for cause in ours | full:
                cells, ms = cells_of(table, label, CAUSES[cause].label), ours.get(cause, 0.0)
                assert value(cells["Time (ms)"]) == pytest.approx(ms, rel=0.02)
                if cause in ours:
                    assert float(cells["GFLOP"]) == pytest.approx(10 * ms, rel=0.01)
                    assert float(cells["MB"]) == pytest.approx(10 * ms, rel=0.01)
                    assert float(cells["Launches"]) == pytest.approx(9 * ms, abs=0.51)
                if method != "full":
                    more = ms - full.get(cause, 0.0)
                    assert value(cells["More than Full-FT, ms"]) == pytest.approx(more, rel=0.02, abs=0.02)
                    share = cells["More than Full-FT, % of the difference"]
                    assert share == (f"{100 * more / difference:.0f}" if told else "") or share == "-0"
    extra = {c: ms - recorded(maker.path, make_case()["case_id"], "forward").get(c, 0.0)
             for c, ms in recorded(maker.path, make_case("lora")["case_id"], "forward").items()}  # fmt: skip
    total, first = sum(extra.values()), max(extra, key=lambda c: extra[c])
    words = f"of the extra {total:.3g} ms, {100 * extra[first] / total:.0f} % is {CAUSES[first].label}, "
    assert re.search(
        rf"^- LoRA eager forward takes 1\.\d\d \[1\S+ 1\S+\] times Full-FT eager's: {re.escape(words)}", text, re.M
    )
    assert re.search(r"^- LoRA eager backward takes", text, re.M) and re.search(r"^- PaCA eager backward", text, re.M)
    assert text in (maker.path / "report.md").read_text()
    assert "### Why: forward by cause" in (maker.path / "table1.md").read_text()


def test_a_ratio_that_holds_1_has_no_shares(maker: Any, fill: Any) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE, noise=0.02)
    maker.write()
    plant(maker)
    text = why(maker)
    assert re.search(
        r"PaCA eager forward takes 1\.00 \[0\S+ 1\S+\] times .* is not told apart from 1: there is no diff", text
    )
    table = section(text, "### Why: forward by cause")
    lines = [line.split("|") for line in table.splitlines() if line.startswith("| PaCA eager")]
    assert {line[8].strip() for line in lines} == {"not told apart from 1", ""}


def test_without_the_file_it_says_so_with_the_command(maker: Any, fill: Any) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.write()
    text = why(maker)
    assert "there is no causes.csv in this folder" in text
    assert f"\npython -m bench why {maker.path}\n" in text
    assert "|" not in text and not list(maker.path.glob("waterfall.*"))


def test_what_is_missing_or_measured_again_is_named(maker: Any, fill: Any, make_case: Any) -> None:
    fill(maker, [*TYPES, ("lora", "peft")], [(4, 512)], models=ONE)
    maker.failed(make_case("paca", "triton"), "oom", "CUDA out of memory")
    maker.write()
    plant(maker, skip=[make_case("lora", "peft")["case_id"]])
    for row in maker.rows:
        if row["case_id"] == make_case("paca")["case_id"] and row["pass"] == "forward":
            row.update({name: 1.01 * row[name] for name in ("median_ms", "ci_low_ms", "ci_high_ms")})
    maker.write()
    text = why(maker)
    assert "causes.csv has nothing of LoRA peft under clock eager." in text
    assert "PaCA eager forward was measured again since causes.csv was written" in text
    assert "PaCA triton: oom." in text and "python -m bench why" in text
    assert "LoRA eager forward takes" in text and "PaCA eager backward takes" in text
    assert "LoRA peft forward takes" not in text and "PaCA eager forward takes" not in text


def test_a_further_repeat_makes_another_median_and_them_stale(maker: Any, fill: Any) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.write()
    plant(maker)
    fill(maker, TYPES, [(4, 512)], models=ONE, repeat=1, shift=0.05)
    maker.write()
    text = why(maker)
    assert "LoRA eager forward takes" not in text and "measured again" in text and "python -m bench why" in text


@pytest.mark.parametrize(("remainder", "told"), [(0.08, "8.0 %"), (None, "not known")])
def test_a_large_remainder_is_said(maker: Any, fill: Any, remainder: float | None, told: str) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.write()
    plant(maker, remainder=remainder)
    text = why(maker)
    assert f"Profile and clock differ by more than 5 % in Full-FT eager forward ({told}), " in text
    assert "the shares are rough" in text and "and 2 more (the tables have all)" in text


def test_a_cpus_times_are_marked_and_the_step_is_told(maker: Any, make_case: Any) -> None:
    times = {"forward": 40.0, "backward": 90.0, "step": 150.0}
    maker.in_turns([make_case(), make_case("lora")], [times, {**times, "forward": 60.0, "step": 120.0}], drift=0.0)
    maker.write()
    step = {
        (m, "step"): {**SHARED, "base_forward": 60.0, "optimizer": 20.0 if m == "full" else 1.0}
        for m in ("full", "lora")
    }
    plant(maker, "cpu-time", weights={**WEIGHTS, **step}, source="operators", passes=("forward", "backward", "step"))
    text = why(maker)
    assert "operators, each without what it calls (self times)" in text and "clock cpu-time" in text
    assert (
        re.search(r"LoRA eager step takes 0\.80 \S+ \S+ times Full-FT eager's: of the 3", text) and "optimizer" in text
    )


def test_a_report_of_steps_alone_says_so(maker: Any, make_case: Any) -> None:
    maker.in_turns([make_case(), make_case("lora")], [{"step": 150.0}, {"step": 120.0}], drift=0.0)
    maker.write()
    _, said = draw(load(maker.path), figures=())
    assert said == "No answer: it is told of forward and backward, and optimizer steps alone were timed here."
    assert "| Tokens a second |" in (maker.path / "report.md").read_text()


def test_other_models_and_sizes_are_in_the_tables_file(maker: Any, fill: Any) -> None:
    """And the section tells of the longest time."""
    fill(maker, TYPES, [(4, 512), (4, 1024)])
    maker.write()
    plant(maker)
    text = why(maker)
    assert re.findall(r"^### Why: forward by cause, (.*?),", text, re.M) == ["gpt2-xl at 4 x 1024"]
    assert "table1.md has the causes of all models and sizes" in text
    every = re.findall(r"^### Why: forward by cause, (.*?),", (maker.path / "table1.md").read_text(), re.M)
    assert len(every) == len({*every}) == 6 and "gpt2-medium at 4 x 512" in every


def test_figures_come_and_go_with_the_file(maker: Any, fill: Any) -> None:
    fill(maker, TYPES, [(4, 512)], models=("tinyllama",))
    maker.write()
    plant(maker)
    before = (maker.path / "causes.csv").read_bytes()
    draw(load(maker.path), figures=FIGURES)
    text = (maker.path / "report.md").read_text()
    shown = section(text, "## Why")
    for stem in FIGURES:
        assert (maker.path / f"{stem}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert ElementTree.parse(maker.path / f"{stem}.svg").getroot().tag.endswith("svg")
        assert f"]({stem}.png)" in shown and text.count(f"]({stem}.png)") == 1
    drawn = words_of(maker.path / "causes.svg")
    assert {"branch GEMMs", "LoRA eager", "forward: tinyllama, 4 x 512"} <= {*drawn}
    assert "the method" in words_of(maker.path / "waterfall.svg")
    assert (maker.path / "causes.csv").read_bytes() == before
    again = [(maker.path / f"{stem}.svg").read_bytes() for stem in FIGURES]
    draw(load(maker.path), figures=FIGURES)
    assert again == [(maker.path / f"{stem}.svg").read_bytes() for stem in FIGURES]
    (maker.path / "causes.csv").unlink()
    draw(load(maker.path), figures=FIGURES)
    assert not [path for stem in FIGURES for path in maker.path.glob(f"{stem}.*")]


def test_small_causes_are_drawn_as_one_and_named(maker: Any, make_case: Any) -> None:
    for method, ms in (("full", 10.0), ("lora", 20.0)):
        maker.timed(make_case(method), {"forward": ms})
    maker.write()
    of_lora = {"base_forward": 50.0, "branch": 50.0, "casts": 0.3, "gaps": 0.2}
    plant(maker, weights={("full", "forward"): {"base_forward": 1.0}, ("lora", "forward"): of_lora})
    draw(load(maker.path), figures=("causes",))
    drawn = words_of(maker.path / "causes.svg")
    assert {OTHER, "branch GEMMs"} <= {*drawn} and "dtype casts" not in drawn
    assert "Other: dtype casts and launches/gaps, each below 1 % of every bar." in " ".join(drawn)


def test_every_two_causes_are_told_apart_in_grey() -> None:
    """By 15 of 100 in CIE lightness, worked out here, or by their hatch."""

    def lightness(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 116 * (0.2126 * r + 0.7152 * g + 0.0722 * b) ** (1 / 3) - 16

    assert list(PAINT) == [*CAUSES, OTHER]
    paint = list(PAINT.values())
    for i, (colour, hatch) in enumerate(paint):
        for other, its in paint[i + 1 :]:
            assert hatch != its or abs(lightness(colour) - lightness(other)) >= 15, (colour, other)


EVIL = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("branch", EVIL, "cause is"), (",eager,", ",eager,\x00", ""), ("kernels", "magic", "source is 'magic'"),
     (",1.02,", ",nan,", "scale"), (",1.02,", ",1e300,", "scale")],
)  # fmt: skip
def test_a_strangers_file_is_refused_with_its_line(
    old: str, new: str, told: str, maker: Any, fill: Any, capsys: Any
) -> None:
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.write()
    plant(maker)
    path = maker.path / "causes.csv"
    path.write_text(path.read_text().replace(old, new))
    assert main([str(maker.path)]) == 2
    said = capsys.readouterr().err
    assert "causes.csv:" in said and told in said and "python -m bench why" in said
    assert not (maker.path / "report.md").exists()


def test_what_a_stranger_may_write_is_not_shown(maker: Any, fill: Any) -> None:
    """Cases that are not in the folder, and intervals without bounds."""
    fill(maker, TYPES, [(4, 512)], models=ONE)
    maker.write()
    plant(maker)
    path = maker.path / "causes.csv"
    head, first, *rest = path.read_text().splitlines()
    case_id, *cells = first.split(",")
    huge = [*cells[:5], "1e30", str(2**53), "1e30", "1e30", *cells[9:]]
    path.write_text("\n".join([head, ",".join([EVIL, *cells]), ",".join([case_id, *huge]), *rest]) + "\n")
    draw(load(maker.path), figures=FIGURES)
    for name in ("report.md", "report.html", "table1.md", "causes.svg"):
        assert EVIL not in (maker.path / name).read_text()
    assert "LoRA eager forward takes" in (maker.path / "report.md").read_text()


def test_a_folder_without_full_fine_tuning_has_bars_alone(maker: Any, fill: Any) -> None:
    fill(maker, TYPES[1:], [(4, 512)], models=ONE)
    maker.write()
    plant(maker)
    draw(load(maker.path), figures=FIGURES)
    text = section((maker.path / "report.md").read_text(), "## Why")
    assert "Full-FT was not measured here, so there is no difference to explain." in text
    assert (maker.path / "causes.png").exists() and not (maker.path / "waterfall.png").exists()


def test_a_folder_without_times_has_no_such_section(maker: Any, make_case: Any) -> None:
    maker.failed(make_case(), "oom", "CUDA out of memory")
    draw_tables(maker)
    assert "## Why" not in (maker.path / "report.md").read_text()
