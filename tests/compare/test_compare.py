"""Comparing two runs: every verdict, what is refused, what is listed, and two checkouts measured in turns."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.case.schema import SCHEMA
from bench.commands.compare import Comparison, compare_folders
from bench.compare.verdict import Process, Verdict, interval, judge
from bench.errors import UserError
from tests.conftest import ROOT, Bench, children_of, is_running, rows_of, wait_for
from tests.synthetic import START, abba, case, row, write_run

CALM = (2.000, 2.004, 1.998, 2.002, 1.996)  # ms of five processes, 0.2 % apart
WILD = (2.00, 2.20, 1.90, 2.10, 1.80)


def processes(name: str, minutes: Sequence[float], medians: Sequence[float]) -> list[Process]:
    times = [START + timedelta(minutes=m) for m in minutes]
    return [Process(f"{name}{i}", i, ms, at) for i, (ms, at) in enumerate(zip(medians, times, strict=True))]


def turns(a: Sequence[float], b: Sequence[float], order: str = "") -> tuple[list[Process], list[Process]]:
    """Processes in this order of sides; default ABBA."""
    order = order or abba(len(a))
    minutes = [[i for i, s in enumerate(order) if s == side] for side in "AB"]
    return processes("a", minutes[0], a), processes("b", minutes[1], b)


def scaled(by: float, medians: Sequence[float] = CALM) -> list[float]:
    return [by * x for x in medians]


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        (scaled(1.03), Verdict.SLOWER),
        (scaled(0.97), Verdict.FASTER),
        (scaled(1.001), Verdict.SAME),
        (CALM, Verdict.SAME),
        (scaled(1.0085), Verdict.UNCLEAR),  # the interval excludes 1, but the change is below 1 %
        (WILD, Verdict.UNCLEAR),
        (scaled(1.03, WILD), Verdict.UNCLEAR),
    ],
)
def test_verdicts(b: Sequence[float], verdict: Verdict) -> None:
    o = judge(*turns(CALM, b))
    assert (o.verdict, o.why) == (verdict, "")
    assert o.low is not None and o.high is not None and o.low <= o.ratio <= o.high
    assert o.ratio == pytest.approx(sorted(b)[2] / 2.0), "the ratio of the medians"


def test_the_verdict_turns_around_with_the_sides() -> None:
    a, b = turns(CALM, scaled(1.05))
    forth, back = judge(a, b), judge(b, a)
    assert (forth.verdict, back.verdict) == (Verdict.SLOWER, Verdict.FASTER)
    assert forth.ratio == pytest.approx(1 / back.ratio)
    assert judge(a, b) == forth, "the same rows give the same interval"


@pytest.mark.parametrize(
    ("order", "fine"),
    [
        (abba(5), True),
        (abba(6), True),
        ("AB" * 5, True),
        ("BA" * 5, True),
        ("AABBAABBAB", True),
        ("AAAAABBBBB", False),
        ("BBBBBAAAAA", False),
        ("AAABBBBBAA", False),
        (abba(5) + "B" * 40, False),  # one side measured on alone
    ],
)  # fmt: skip
def test_interleaved_or_not(order: str, fine: bool) -> None:
    a, b = ([2.0 * by + 0.001 * (i % 5) for i in range(order.count(s))] for s, by in (("A", 1), ("B", 2)))
    o = judge(*turns(a, b, order))
    assert o.ratio == pytest.approx(2, rel=0.01), "the ratio is given in any case"
    if fine:
        assert (o.verdict, o.why) == (Verdict.SLOWER, "")
    else:
        assert (o.verdict, o.cell) == (Verdict.UNCLEAR, "UNCLEAR (not interleaved)")
        assert o.low is None, "an interval would not hold the drift between them"


def test_unknown_times_are_not_interleaved() -> None:
    a, b = turns(CALM, scaled(1.05))
    b[2] = Process("b2", 2, 2.1, None)
    assert judge(a, b).cell == "UNCLEAR (not interleaved)"


@pytest.mark.parametrize(("n", "said"), [((4, 4), "4 of 5"), ((5, 3), "5 and 3 of 5"), ((1, 1), "1 of 5")])
def test_too_few_processes_give_a_ratio_and_no_verdict(n: tuple[int, int], said: str) -> None:
    o = judge(processes("a", range(n[0]), CALM[: n[0]]), processes("b", range(n[1]), scaled(1.5)[: n[1]]))
    assert o.verdict is None and o.low is None
    assert o.cell == f"no verdict ({said} processes a side)"
    assert o.ratio == pytest.approx(1.5, rel=0.01)


def test_a_drift_under_both_is_taken_out() -> None:
    """5 % from first to last: without that the interval would be as wide as the drift."""
    drift = [1 + 0.05 * i / 9 for i in range(10)]
    places = ([i for i, side in enumerate(abba(5)) if side == s] for s in "AB")
    a, b = ([ms * drift[i] for ms, i in zip(CALM, at, strict=True)] for at in places)
    o = judge(*turns(a, b))
    assert o.verdict is Verdict.SAME and o.low is not None and o.low > 0.99


def test_the_interval_is_the_bootstrap_of_scipy_where_nothing_drifts() -> None:
    import numpy as np
    from scipy.stats import bootstrap

    rng = np.random.default_rng(8)
    x, y = (2 * by * (1 + 0.01 * rng.standard_normal(12)) for by in (1.0, 1.02))
    # The same values forth and back in time: the fitted line is flat.
    a, b = turns([*x, *x[::-1]], [*y, *y[::-1]], "AB" * 12 + "BA" * 12)
    order = np.array([[0, 1] * 12 + [1, 0] * 12, [i // 2 for i in range(48)]], dtype=np.float64)
    low, high = interval(a, b, order)
    theirs = bootstrap(
        ([p.median_ms for p in a], [p.median_ms for p in b]),
        lambda a, b, axis: np.median(b, axis=axis) / np.median(a, axis=axis),
        n_resamples=9999, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.0015)


# Through folders


def two_runs(tmp_path: Path, b: Sequence[float], a: Sequence[float] = CALM, **columns: Any) -> tuple[Path, Path]:
    """Folders a and b, measured in turns; one case."""
    ps = turns(a, b)
    lines = [
        [row(name, p.repeat, (p.at - START).seconds / 60, p.median_ms, **columns) for p in side if p.at]
        for name, side in zip("ab", ps, strict=True)
    ]
    return write_run(tmp_path / "a", lines[0]), write_run(tmp_path / "b", lines[1])


def edit(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Rewrites rows.jsonl with every row changed, or dropped where the change gives None."""
    kept = [new for r in rows_of(folder) if (new := change(r)) is not None]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))


def only(c: Comparison) -> Any:
    ((_, outcome),) = c.judged
    return outcome


def test_folders_give_the_verdict_and_the_sentence(tmp_path: Path) -> None:
    c = compare_folders(*two_runs(tmp_path, scaled(1.5)))
    assert only(c).verdict is Verdict.SLOWER and c.slower
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
    with pytest.raises(UserError, match=r"run\.json: schema"):
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


def test_exit_status_table_sentence_and_json(bench: Bench, tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, scaled(1.03))
    done = bench("compare", a, b)
    assert done.returncode == 0, done.stderr
    assert "1 comparison: 1 SLOWER." in done.stdout and "0123456789" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("B took 1.030 +- 0.003 times as long as A on")
    slower = bench("compare", a, b, "--fail-on-slower", "--json", tmp_path / "c.json")
    assert slower.returncode == 1 and slower.stdout == done.stdout
    found = json.loads((tmp_path / "c.json").read_text())
    (comparison,) = found["comparisons"]
    assert (comparison["verdict"], comparison["case_id"], comparison["pass"]) == ("SLOWER", case().case_id, "forward")
    assert comparison["low"] <= comparison["ratio"] <= comparison["high"]
    assert found["counts"] == {"FASTER": 0, "SLOWER": 1, "SAME": 0, "UNCLEAR": 0}
    assert found["sentence"] == done.stdout.splitlines()[-1]
    assert bench("compare", b, a, "--fail-on-slower").returncode == 0, "faster is fine"


def test_bad_requests_end_with_two(bench: Bench, tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, CALM)
    for arguments, said in (
        ((a, tmp_path / "nowhere"), "nowhere: no such folder"),
        ((a, b, "smoke"), "only with --run"),
        ((a, b, "--gpu", "cpu"), "--gpu: only with --run"),
        ((a, b, "--json", tmp_path / "no" / "c.json"), "no such folder"),
        (("--run", "1", ROOT, b, "smoke"), f"checkout B, {b}: no bench/__main__.py"),
    ):
        done = bench("compare", *arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and not done.stdout


# Measuring two checkouts


def checkout(path: Path) -> Path:
    """A copy of this suite, as a second working tree would be."""
    for part in ("bench", "kernels"):
        shutil.copytree(ROOT / part, path / part, ignore=shutil.ignore_patterns("__pycache__"))
    return path


@pytest.mark.slow
def test_two_checkouts_are_measured_in_turns(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    one, two = checkout(tmp_path / "one"), checkout(tmp_path / "two")
    (two / "bench" / "__init__.py").write_text('"""Another version."""\n')
    out = tmp_path / "out"
    flags = ["--out", out, "--gpu", "cpu", "--where", "method=full"]
    command = ["compare", "--run", "2", one, two, sweep_file.name, *flags]
    done = bench(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a verdict needs 5 rounds" in done.stderr
    a, b = rows_of(out / "a"), rows_of(out / "b")
    assert len(a) == len(b) == 2 * 2 * 3
    turns = sorted({(r["measured_at"], side, r["repeat"]) for side, rows in (("A", a), ("B", b)) for r in rows})
    order = [(side, repeat) for _, side, repeat in turns]
    assert list(dict.fromkeys(order)) == [("A", 0), ("B", 0), ("B", 1), ("A", 1)]
    assert len({r["process"] for r in (*a, *b)}) == 4, "a fresh process a round and side"
    hashes = [json.loads((out / s / "run.json").read_text())["source_hash"] for s in "ab"]
    assert len(set(hashes)) == 2 and all(h in done.stdout for h in hashes), "each ran its own sources"
    assert "6 comparisons: 6 without a verdict." in done.stdout and "2 of 5 processes a side" in done.stdout

    before = (out / "a" / "rows.jsonl").read_bytes()
    again = bench(*command, cwd=tmp_path)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert (out / "a" / "rows.jsonl").read_bytes() == before, "what was measured stays measured"

    (two / "bench" / "__init__.py").write_text('"""Yet another version."""\n')
    changed = bench(*command, cwd=tmp_path)
    assert changed.returncode == 0 and "the sources have changed" in changed.stderr
    (earlier,) = (out / "earlier").iterdir()
    assert (earlier / "a" / "rows.jsonl").read_bytes() == before, "both sides start anew, nothing is lost"
    assert min(r["measured_at"] for r in rows_of(out / "a")) > max(r["measured_at"] for r in (*a, *b))


@pytest.mark.slow
def test_a_cut_off_measurement_goes_on_where_it_stopped(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    one = checkout(tmp_path / "one")
    out = tmp_path / "out"
    command = ["compare", "--run", "2", one, one, sweep_file, "--out", out, "--gpu", "cpu", "--where", "method=full"]
    process = bench.start(*command)
    wait_for(lambda: rows_of(out / "a"))
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "To go on: python -m bench compare --run 2" in stderr
    first = rows_of(out / "a")
    done = bench(*command)
    assert done.returncode == 0, done.stderr
    assert rows_of(out / "a")[: len(first)] == first
    assert len(rows_of(out / "a")) == len(rows_of(out / "b")) == 2 * 2 * 3


def test_a_folder_of_another_kind_is_not_taken_for_rounds(bench: Bench, tmp_path: Path) -> None:
    two_runs(tmp_path, CALM)
    done = bench("compare", "--run", "1", ROOT, ROOT, "smoke", "--out", tmp_path)
    assert done.returncode == 2 and "not made by --run" in done.stderr


@pytest.mark.slow
def test_a_killed_comparison_takes_its_run_along(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    sweep_file.write_text(sweep_file.read_text().replace("budget_s: 0.05, wall_s: 1", "target: 1.0e-9, budget_s: 60"))
    process = bench.start("compare", "--run", "1", ROOT, ROOT, sweep_file, "--out", tmp_path / "out", "--gpu", "cpu")
    run = wait_for(lambda: processes_below(process.pid))[0]
    child = wait_for(lambda: children_of(run))[0]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: not is_running(run) and not is_running(child))


def processes_below(pid: int) -> list[int]:
    """The runs that a comparison has started (Linux)."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(p) for p in found if b"--repeat" in Path(f"/proc/{p}/cmdline").read_bytes()]
