"""Two checkouts measured in turns: the order, what is kept, what is cut off."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.compare.runs import CALM, two_runs
from tests.conftest import ROOT, Bench, Cli, children_of, is_running, rows_of, wait_for


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
    assert len(a) == len(b) == 2 * 2 * 3 * 2
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
    assert len(rows_of(out / "a")) == len(rows_of(out / "b")) == 2 * 2 * 3 * 2


def test_a_folder_of_another_kind_is_not_taken_for_rounds(cli: Cli, tmp_path: Path) -> None:
    two_runs(tmp_path, CALM)
    done = cli("compare", "--run", "1", ROOT, ROOT, "smoke", "--out", tmp_path)
    assert done.returncode == 2 and "not made by --run" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nope",), "checkout A, {root}: sweep nope: no such file or sweep."),
        (("smoke", "--where", "batch=77"), "checkout A, {root}: --where batch=77: '77' is not in this sweep."),
        (("smoke", "--where", "clock=sundial"), "--where clock=sundial: 'sundial' is no clock of this sweep."),
        (("smoke", "--gpu", "zx81"), "--gpu zx81: not on this machine."),
    ],
)
def test_what_a_checkout_would_refuse_is_said_once_and_changes_nothing(
    words: tuple[str, ...], says: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("compare", "--run", "5", ROOT, ROOT, *words)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {says.format(root=ROOT)}")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_checkout_that_cannot_start_is_told_of(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = tmp_path / "broken"
    (broken / "bench").mkdir(parents=True)
    (broken / "bench" / "__main__.py").write_text("raise SystemExit('error: out of order')")
    done = cli("compare", "--run", "5", ROOT, broken, "smoke", "--gpu", "cpu")
    assert done.returncode == 2 and done.stderr == f"error: checkout B, {broken}: out of order\n"
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


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
