"""predict --check on made-up operators: what it prints and writes, and what it refuses. Needs no published timings."""

import csv
from pathlib import Path

import pytest

from bench.case import Case
from bench.commands.predict.check import BEGIN, END, check, redrawn
from bench.commands.predict.groups import TYPICAL, spanning
from bench.commands.predict.measured import results
from bench.commands.predict.paper import paper
from bench.errors import UserError
from bench.predict.boards import board
from bench.predict.judged import Judged
from bench.predict.ops import Op, Trace
from bench.predict.predicted import price
from tests.synthetic import row, write_run

HEAD = "model,method,gpu,batch,seq,forward_ms,backward_ms\n"


def made_up(case: Case) -> Trace:
    """As many products as the model has blocks; of LoRA one more each."""
    one = Op("aten::mm", "base_forward", "gemm", (case.tokens, 2048, 2048, 1))
    count = case.blocks * (2 if case.method == "lora" else 1)
    return Trace({"forward": (one,) * count, "backward": (one,) * 2 * count, "optimizer": (one,), "refresh": ()})


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Tables whose times are those predicted without a host, but for LoRA's backward, which takes twice as long."""
    folder = tmp_path / "paper"
    folder.mkdir()
    lines = []
    for method, impl in (("full", "eager"), ("lora", "peft")):
        case = Case("model", "tinyllama", None, method, impl, "all", None, None, None, None, None, "amp-fp16", 4, 512)
        found = price(made_up(case), board("a100"), ("forward", "backward"))
        ms = [found[p, "graph"].ms for p in ("forward", "backward")]
        lines.append(f"tinyllama,{method},a100,4,512,{ms[0]},{ms[1] * (2 if method == 'lora' else 1)}\n")
    (folder / "table1.csv").write_text(HEAD + "".join(lines))
    (folder / "table2.csv").write_text(
        "method,trainable_layers,training_time\nnone,none,\nlora,all,2:00:00\npaca,all,1:30:00\n"
    )
    return folder


def test_errors_are_those_of_the_cells(tables: Path) -> None:
    found = {group.name: group for group in paper(made_up, tables)}
    alone = found["GPU time alone"].judged
    assert [j.error for j in alone] == pytest.approx([0, 0, 0, -0.5])
    typical = found[f"a host of {TYPICAL.forward_us:g} us an operator"]
    assert typical.target == 0.08 and TYPICAL.source == typical.note
    assert [g.fitted for name, g in found.items() if "fitted" in name] == [True, True]
    ratio = found["training time over LoRA's, by a step"].judged
    assert [j.measured for j in ratio] == [0.75]


def test_tables_are_drawn_between_the_markers_again_and_again(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "docs"
    out.mkdir()
    (out / "predict.md").write_text(f"Before.\n\n{BEGIN}\nstale\n{END}\n\nAfter.\n")
    for _ in range(2):
        assert check(None, out, made_up, tmp_path / "no results", tables) == 0
    text = (out / "predict.md").read_text()
    assert text.startswith(f"Before.\n\n{BEGIN}\nDrawn by `python -m bench predict --check` on 20")
    assert text.endswith(f"{END}\n\nAfter.\n") and "stale" not in text and text.count("GPU time alone") == 1
    assert "FITTED to these rows" in text and "FITTED to these rows" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "check.csv").read_text().splitlines()))
    alone = next(r for r in rows if r["group"] == "GPU time alone")
    assert (alone["rows"], alone["mean"], alone["bias"]) == ("4", "0.1250", "-0.1250")


def test_a_page_without_markers_is_not_written_over(tmp_path: Path) -> None:
    page = tmp_path / "predict.md"
    page.write_text("Somebody's text.\n")
    with pytest.raises(UserError, match="no lines <!-- check: begin -->"):
        redrawn(page, "tables")
    assert redrawn(tmp_path / "new.md", "tables") == f"{BEGIN}\ntables\n{END}\n"


def test_it_is_refused_before_anything_is_traced(tmp_path: Path) -> None:
    (tmp_path / "predict.md").write_text("Somebody's text.\n")
    with pytest.raises(UserError, match="between which the tables belong"):
        check(None, tmp_path, never)


def never(case: Case) -> Trace:
    raise AssertionError("nothing should be traced")


def test_a_published_folder_that_is_not_there_is_refused_before_anything_is_traced(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--published .*no such folder"):
        check(tmp_path / "none", None, never)
    with pytest.raises(UserError, match="not there"):
        check(tmp_path, None, never)  # a folder without the files


def test_a_paper_s_table_that_is_missing_is_named(tables: Path) -> None:
    (tables / "table1.csv").unlink()
    with pytest.raises(UserError, match=r"table1\.csv: not there\..*git checkout"):
        paper(made_up, tables)


def test_an_interval_over_hosts_spans_all_of_theirs() -> None:
    slow = Judged("a", 20, 15, ((18, 22), (16, 24)))
    found = spanning([Judged("a", 10, 15, ((9, 11), (8, 12))), slow])
    assert (found.predicted, found.intervals) == (10, ((9, 22), (8, 24))) and found.holds(80)


def test_a_measured_folder_is_judged_by_the_board_that_its_rows_name(tmp_path: Path) -> None:
    case = Case("model", "tinyllama", None, "full", "eager", "all", None, None, None, None, None, "bf16", 4, 512)
    known, name = board("h100"), "NVIDIA H100 80GB HBM3"
    ms = price(made_up(case), known, ("forward",))["forward", "graph"].ms
    same = {"case_id": case.case_id, **case.axes(), "pass": "forward", "clock": "graph"}
    lines = [row("r", 0, 0, 2 * ms, **same, gpu=name), row("r", 1, 1, None, **same, gpu=name, status="oom")]
    write_run(tmp_path / "h100" / "reference" / "table1", [*lines, row("r", 2, 2, ms, **same, gpu="Board 1")])
    (group,) = results(made_up, tmp_path)
    assert [judged.error for judged in group.judged] == pytest.approx([-0.5])
    assert known.name in group.name
