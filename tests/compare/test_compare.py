"""Two folders compared: the verdict and its sentence, what is refused, what is listed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.case.schema import SCHEMA
from bench.commands.compare import Comparison, compare_folders
from bench.compare.verdict import Verdict
from bench.errors import UserError
from tests.compare.runs import CALM, WILD, scaled, two_runs
from tests.conftest import ROOT, Cli, rows_of
from tests.synthetic import case


def edit(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Rewrites rows.jsonl with every row changed, or dropped where the change gives None."""
    kept = [new for r in rows_of(folder) if (new := change(r)) is not None]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))


def only(c: Comparison) -> Any:
    ((_, outcome),) = c.judged
    return outcome


def test_folders_give_the_verdict_and_the_sentence(tmp_path: Path) -> None:
    c = compare_folders(*two_runs(tmp_path, scaled(1.5)))
    assert only(c).verdict is Verdict.SLOWER
    assert c.head is not None
    assert c.head.sentence == (
        "B took 1.500 +- 0.004 times as long as A on square-64 full/eager fp32 1x32: forward, clock eager."
    )
    fast = compare_folders(*two_runs(tmp_path / "fast", scaled(1 / 1.47, (2.0, 2.06, 2.0, 1.94, 2.0)))).head
    assert fast is not None and fast.sentence.startswith("B ran 1.47 +- 0.04 times faster than A on square-64")
    same = compare_folders(*two_runs(tmp_path / "same", CALM)).head
    assert same is not None and same.sentence.startswith("B ran as fast as A, within 1%, on")
    wild = compare_folders(*two_runs(tmp_path / "wild", WILD)).head
    assert wild is not None and wild.sentence.startswith("It is unclear whether B is faster than A (B/A 1.000, 95 %")


def test_nothing_is_changed_by_comparing(tmp_path: Path) -> None:
    folders = two_runs(tmp_path, CALM)
    torn = folders[0] / "rows.jsonl"
    torn.write_bytes(torn.read_bytes() + b'{"case_id": "torn')
    before = {p: p.read_bytes() for f in folders for p in f.iterdir()}
    c = compare_folders(*folders)
    assert any("torn" in n for n in c.notes)
    assert {p: p.read_bytes() for f in folders for p in f.iterdir()} == before


def test_rows_without_a_counterpart_or_a_time_are_listed(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, CALM)
    extra, failing, part = case("square-128"), case("square-256"), case("square-512")
    for folder in (a, b):
        rows = rows_of(folder)
        for r in list(rows):
            for other in (extra, failing, part):
                if other is extra and folder == b:
                    continue
                new = r | {"case_id": other.case_id, **other.axes()}
                if folder == b and other is failing:
                    new |= {"status": "oom", "median_ms": None, "detail": "OutOfMemoryError: 80 GiB"}
                if folder == b and other is part and r["repeat"] == 1:
                    new |= {"status": "throttled", "median_ms": None}
                rows.append(new)
        (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    c = compare_folders(a, b)
    assert [(x.side, x.axes["layer"], x.why, x.partly) for x in c.left] == [
        ("A", "square-128", "only in A", False),
        ("B", "square-256", "oom: OutOfMemoryError: 80 GiB", False),
        ("B", "square-512", "1 of 5 processes throttled", True),
    ]
    assert [(p.axes["layer"], o.cell) for p, o in c.judged] == [
        ("square-64", "SAME"),
        ("square-512", "no verdict (5 and 4 of 5 processes a side)"),
    ]


def test_passes_and_clocks_are_rows_of_their_own(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, CALM)
    keys = [("forward", "host"), ("forward", "eager"), ("forward-backward", "eager"), ("forward-backward", "graph")]
    for folder, by in ((a, 1.0), (b, 1.1)):
        new = [
            r | {"pass": p, "clock": c, "median_ms": r["median_ms"] * (by if c == "graph" else 1)}
            for r in rows_of(folder)
            for p, c in keys
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in new))
    c = compare_folders(a, b)
    assert [(p.key[1:], o.verdict) for p, o in c.judged] == [
        (k, Verdict.SLOWER if k[1] == "graph" else Verdict.SAME) for k in keys
    ]
    assert c.head is not None and (c.head.pass_, c.head.clock) == ("forward-backward", "eager")
    assert len(compare_folders(a, b, ("clock=graph,host",)).judged) == 2
    assert len(compare_folders(a, b, ("pass=forward", "clock=eager", "layer=square-64")).judged) == 1


def test_several_cases_have_a_geometric_mean_and_its_ends(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, CALM)
    layers = {"square-64": 1.0, "square-128": 1.21, "square-256": 1.1}
    for folder in (a, b):
        new = []
        for layer, by in layers.items():
            of = case(layer)
            for r in rows_of(folder):
                ms = r["median_ms"] * (by if folder == b else 1)
                new.append(r | {"case_id": of.case_id, **of.axes(), "median_ms": ms})
        (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in new))
    head = compare_folders(a, b).head
    assert head is not None and head.cases == 3
    assert head.outcome.ratio == pytest.approx((1.0 * 1.21 * 1.1) ** (1 / 3), rel=1e-6)
    assert head.outcome.verdict is Verdict.SLOWER and head.outcome.a_processes == 5
    assert "geometric mean over 3 cases" in head.sentence
    assert "slowest square-128" in head.sentence and "B/A 1.210, SLOWER" in head.sentence
    assert "fastest square-64" in head.sentence and "B/A 1.000, SAME" in head.sentence


def test_the_same_run_on_both_sides_is_no_comparison(tmp_path: Path) -> None:
    a, _ = two_runs(tmp_path, CALM)
    assert only(compare_folders(a, a)).cell == "UNCLEAR (the same processes on both sides)"


def run_json(folder: Path, **changes: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_cannot_be_compared_is_refused_with_both_sides_named(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, CALM)
    run_json(b, gpu="Board 2")
    with pytest.raises(UserError, match=r"A, .*a, on 'Board 1' and B, .*b, on 'Board 2'"):
        compare_folders(a, b)
    run_json(b, gpu="Board 1")
    with pytest.raises(UserError, match=r"B, .*nowhere: no such folder"):
        compare_folders(a, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"A, .*no run\.json.*results folders in it: a, b"):
        compare_folders(tmp_path, b)
    with pytest.raises(UserError, match=r"--where rnak=8: unknown axis 'rnak'\. Did you mean 'rank'\? Axes: level, "):
        compare_folders(a, b, ("rnak=8",))
    with pytest.raises(UserError, match=r"'square-1' is in neither folder\. .* Values of layer: square-64"):
        compare_folders(a, b, ("layer=square-1",))
    edit(b, lambda r: r | {"case_id": "ffffffffffff"})
    with pytest.raises(UserError, match=rf"no rows in common.*{case().case_id}.*forward.*eager.*ffffffffffff"):
        compare_folders(a, b)
    edit(b, lambda r: None)
    with pytest.raises(UserError, match=r"rows\.jsonl: no rows"):
        compare_folders(a, b)
    run_json(b, schema=SCHEMA + 1)
    with pytest.raises(UserError, match=r"run\.json: found schema"):
        compare_folders(a, b)


def test_differing_environments_and_settings_are_said(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, CALM)
    run_json(b, torch="2.14.0", invocations=[{"settings": {"budget_s": 3.0}}])
    run_json(a, invocations=[{"settings": {"budget_s": 0.2}}], gpu_key="cpu")
    edit(a, lambda r: r | {"noisy": True})
    notes = "\n".join(compare_folders(a, b).notes)
    assert "torch 2.13.0 in A, 2.14.0 in B" in notes
    assert "budget_s 0.2 in A, 3.0 in B" in notes
    assert "CPU times are no GPU times" in notes
    assert "A: 5 of 5 rows are flagged noisy" in notes
    run_json(b, source_hash="of-a")
    assert any("the same sources" in n for n in compare_folders(a, b).notes)


# Through the command line


def test_exit_status_table_sentence_and_json(cli: Cli, tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, scaled(1.03))
    done = cli("compare", a, b)
    assert done.returncode == 0, done.stderr
    assert "1 comparison: 1 SLOWER." in done.stdout and "0123456789" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("B took 1.030 +- 0.003 times as long as A on")
    slower = cli("compare", a, b, "--fail-on-slower", "--json", tmp_path / "c.json")
    assert slower.returncode == 1 and slower.stdout == done.stdout
    found = json.loads((tmp_path / "c.json").read_text())
    (comparison,) = found["comparisons"]
    assert (comparison["verdict"], comparison["case_id"], comparison["pass"]) == ("SLOWER", case().case_id, "forward")
    assert comparison["low"] <= comparison["ratio"] <= comparison["high"]
    assert found["counts"] == {"FASTER": 0, "SLOWER": 1, "SAME": 0, "UNCLEAR": 0}
    assert found["sentence"] == done.stdout.splitlines()[-1]
    assert cli("compare", b, a, "--fail-on-slower").returncode == 0, "faster is fine"


def test_bad_requests_end_with_two(cli: Cli, tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, CALM)
    for arguments, said in (
        ((a, tmp_path / "nowhere"), "nowhere: no such folder"),
        ((a, b, "smoke"), "only with --run"),
        ((a, b, "--gpu", "cpu"), "--gpu: only with --run"),
        ((a, b, "--json", tmp_path / "no" / "c.json"), "no such folder"),
        (("--run", "1", ROOT, b, "smoke"), f"checkout B, {b}: no bench/__main__.py"),
    ):
        done = cli("compare", *arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and not done.stdout
