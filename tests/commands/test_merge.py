"""python -m bench merge from outside: where records go, what is printed, and what the merged folder is good for."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import psutil
import pytest

from bench.cluster.layout import Layout
from bench.commands.cluster.attach import gather
from bench.record.provenance import ALLOWED
from bench.record.read import read_kept_rows, read_run, read_samples
from bench.record.sources import are_many
from tests.conftest import ROOT, Bench, Cli, rows_of
from tests.record.merging import FULL, change, content, folder, held, once, timed
from tests.record.shards import shard
from tests.synthetic import abba

several_cores = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="forks need several cores, and Linux"
)


def submitted(path: Path, shards: int = 3) -> Path:
    """A folder that jobs were submitted from."""
    for i in range(shards):
        shard(path / "shards" / f"{i:03d}", i, comparisons=1)
    (path / "cluster.json").write_text("{}")
    return path


def test_a_submitted_folder_gets_the_rows_of_its_shards_itself(cli: Cli, tmp_path: Path) -> None:
    path = submitted(tmp_path / "grid")
    (path / "shards" / "003").mkdir()
    done = cli("merge", path)
    assert (done.returncode, done.stdout) == (0, f"{path}\n"), done.stderr
    assert "003: nothing was measured there yet; passed over" in done.stderr and "120 rows\n" in done.stderr
    assert f"python -m plots {path}" in done.stderr
    held(path)
    first = content(path)
    assert cli("merge", path).returncode == 0 and content(path) == first
    assert cli("merge", path, "--out", tmp_path / "out").stdout == f"{tmp_path / 'out'}\n"
    assert content(tmp_path / "out") == first


def test_several_submitted_folders_become_repeats_and_attempts_in_one_do_not(cli: Cli, tmp_path: Path) -> None:
    paths = []
    for i, name in enumerate("ab"):
        paths.append(tmp_path / name)
        for j, attempt in enumerate(("000", "000.2")):
            found = [timed(f"{name}{j}", FULL, 10 * i + j)]
            folder(paths[-1] / "shards" / attempt, found)
        (paths[-1] / "cluster.json").write_text("{}")
    assert cli("merge", *paths, "--out", tmp_path / "out").returncode == 0
    assert [(r["run_id"], r["repeat"]) for r in rows_of(tmp_path / "out")] == [("a1", 0), ("b1", 1)]


def test_a_folder_that_went_on_with_more_cases_after_a_commit(cli: Cli, tmp_path: Path) -> None:
    """The sources are the same, and so is the record: as for a run in one process."""
    path = tmp_path / "grid"
    for i, name in enumerate(("000", "001")):
        folder(path / "shards" / name, [timed(f"a{i}", FULL, i)])
    change(path / "shards" / "001", commit="fedcba", dirty=True)
    run = json.loads((path / "shards" / "001" / "run.json").read_text())
    run["invocations"][0]["sweep"]["text"] += "more: cases"
    (path / "shards" / "001" / "run.json").write_text(json.dumps(run))
    (path / "cluster.json").write_text("{}")
    assert len(gather(Layout(path)).rows) == 1
    done = cli("merge", path)
    assert done.returncode == 0, done.stderr
    assert [r["run_id"] for r in rows_of(path)] == ["a1"]


def test_a_submitted_folder_takes_no_rows_of_others(cli: Cli, tmp_path: Path) -> None:
    """A later `run` or `status` would find rows in it that are none of its shards'."""
    path, other = submitted(tmp_path / "grid"), shard(tmp_path / "other", 5, comparisons=1)
    assert cli("merge", path).returncode == 0
    before = content(path)
    done = cli("merge", path, other, "--out", path)
    assert done.returncode == 2 and f"{other} is none of theirs. Pass another --out" in done.stderr, done.stderr
    assert content(path) == before
    assert cli("merge", path, path / "shards" / "001", "--out", path).returncode == 0 and content(path) == before


def test_where_it_goes_by_default(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = once(tmp_path, "a", "b")
    done = cli("merge", a, b)
    assert (done.returncode, done.stdout) == (0, "results/board-1/merged-grid\n"), done.stderr
    assert "4 rows, 2 repeats of a case at most" in done.stderr
    change(b, gpu="Board 2", gpu_key="board-2")
    (b / "rows.jsonl").write_text((b / "rows.jsonl").read_text().replace("Board 1", "Board 2"))
    done = cli("merge", a, b, "--out", "both")
    assert done.stdout == "both/board-1\nboth/board-2\n"
    assert "Tables, plots and the answer: python -m plots both/board-1 both/board-2\n" in done.stderr


def test_what_cannot_be_merged_ends_with_2_and_one_line(cli: Cli, tmp_path: Path) -> None:
    a, b = once(tmp_path, "a", "b")
    (tmp_path / "file").write_text("")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "cluster.json").write_text("{}")
    change(b, commit="fedcba")
    for arguments, said in (
        ((a, tmp_path / "nowhere"), "nowhere: no such folder"),
        ((a, b), "--allow commit"),
        ((a, b, "--allow", "comit"), "Did you mean 'commit'?"),
        ((a, "--out", tmp_path / "file"), "this is a file"),
        ((a, "--out", tmp_path / "file" / "out"), "is a file"),
        ((a, "--out", a), "a: it holds a record that merge did not make"),
        ((tmp_path / "none",), "nothing was measured there yet"),
        (("",), "it is empty, and names nothing"),
        ((a, "--out", ""), "it is empty, and names nothing"),
        (("\x1b[31mx",), "no such folder"),
        ((), "Missing argument"),
    ):
        done = cli("merge", *arguments)
        assert done.returncode == 2 and said in done.stderr and not done.stdout, done.stderr
        assert done.stderr.count("\n") == 1 and done.stderr[:-1].isprintable()
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "file", "none"}, "no folder is left behind"
    assert cli("merge", a, b, "--allow", "torch, commit", "--out", tmp_path / "out").returncode == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(cli: Cli, tmp_path: Path) -> None:
    (a,) = once(tmp_path, "a")
    (tmp_path / "closed").mkdir(mode=0o555)
    done = cli("merge", a, "--out", tmp_path / "closed")
    assert done.returncode == 2 and "nothing can be written into" in done.stderr


def test_it_needs_no_torch(bench: Bench, tmp_path: Path) -> None:
    """Nor does anything that it imports: a login node has none."""
    path = submitted(tmp_path / "grid")
    code = (
        "import sys\n"
        "for name in ('torch', 'triton', 'transformers', 'pandas', 'submitit'): sys.modules[name] = None\n"
        f"from bench.cli import main; main(['merge', {str(path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=bench.env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{path}\n"), done.stderr


@pytest.mark.slow
def test_five_runs_merged_on_both_sides_get_verdicts_as_repeats_do(bench: Bench, tmp_path: Path) -> None:
    sides: dict[str, list[Path]] = {"A": [], "B": []}
    for i, side in enumerate(abba(5)):
        name = f"{side}{len(sides[side])}"
        source = "00ff" if side == "A" else "ff00"
        path = folder(tmp_path / name, [timed(name, FULL, i, 2.0 if side == "A" else 2.4)], source_hash=source)
        sides[side].append(path)
    alone = bench("compare", sides["A"][0], sides["B"][0])
    assert alone.returncode == 0 and "SLOWER" not in alone.stdout
    for side, paths in sides.items():
        assert bench("merge", *paths, "--out", tmp_path / side).returncode == 0
    found = json.loads(bench("compare", tmp_path / "A", tmp_path / "B", "--format", "json").stdout)
    (only,) = found["comparisons"]
    assert only["verdict"] == "SLOWER" and only["ratio"] == pytest.approx(1.2, rel=0.01)
    repeated = {
        side: folder(
            tmp_path / "one" / side,
            [timed(f"{side}", FULL, i, 2.0 if side == "A" else 2.4, repeat=n) for n, i in enumerate(minutes)],
        )
        for side, minutes in (("A", [0, 3, 4, 7, 8]), ("B", [1, 2, 5, 6, 9]))
    }
    as_one = json.loads(bench("compare", repeated["A"], repeated["B"], "--format", "json").stdout)["comparisons"][0]
    assert as_one["verdict"] == only["verdict"] and as_one.keys() == only.keys()
    drawn = bench.plots(tmp_path / "A")
    assert drawn.returncode == 0, drawn.stderr


def measured(bench: Bench, sweep: Path, out: Path, *more: str) -> Path:
    done = bench("run", sweep, "--gpu", "cpu", "--out", out, *more)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_real_runs_are_merged_drawn_and_gone_on_with(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    whole = measured(bench, sweep_file, tmp_path / "1")
    parts = [measured(bench, sweep_file, tmp_path / f"{n}", "--where", f"layer=square-{n}") for n in (48, 64)]
    out = tmp_path / "out"
    done = bench("merge", *parts, whole, "--out", out)
    assert done.returncode == 0 and "2 repeats of a case at most" in done.stderr, done.stderr
    rows, torn = read_kept_rows(out)
    assert torn is None and len(rows) == 2 * len(rows_of(whole))
    held(out)
    assert {r["ratio_to"] for r in rows} - {None} and all(r["ratio"] for r in rows if r["rounds"])
    assert bench.plots(out).returncode == 0
    assert "merged" in read_run(out) and len(read_run(out)["invocations"]) == 3


@pytest.mark.slow
def test_a_running_shard_counts_as_far_as_it_is_whole(bench: Bench, tmp_path: Path) -> None:
    """Its files grow while they are read."""
    whole = shard(tmp_path / "whole", 1, comparisons=20)
    growing = tmp_path / "growing"
    growing.mkdir()
    (growing / "run.json").write_bytes((whole / "run.json").read_bytes())
    texts = {name: (whole / name).read_bytes() for name in ("samples.jsonl", "rows.jsonl")}
    for part in range(1, 9):
        for name, data in texts.items():
            (growing / name).write_bytes(data[: len(data) * part // 8 - (1 if part < 8 else 0)])
        done = bench("merge", growing, "--out", tmp_path / "out")
        assert done.returncode == 0 and ("rows.jsonl: its last line is torn" in done.stderr) == (part < 8)
        assert len(rows_of(tmp_path / "out")) == (growing / "rows.jsonl").read_bytes().count(b"\n")
    held(tmp_path / "out")


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_the_old_record_or_the_new(bench: Bench, tmp_path: Path) -> None:
    shards = [shard(tmp_path / f"{i:03d}", i, comparisons=6) for i in range(4)]
    out = tmp_path / "out"
    assert bench("merge", *shards[:2], "--out", out).returncode == 0
    old = content(out)
    began = time.monotonic()
    assert bench("merge", *shards, "--out", tmp_path / "whole").returncode == 0
    took = time.monotonic() - began
    new = content(tmp_path / "whole")
    for i in range(8):
        for name, data in old.items():
            (out / name).write_bytes(data)
        run = bench.start("merge", *shards, "--out", out)
        time.sleep(took * (0.3 + 0.1 * i))
        run.send_signal(signal.SIGKILL)
        run.communicate()
        found = content(out)
        assert all(data in (old[name], new[name]) for name, data in found.items()), "each file whole"
        assert len(read_kept_rows(out)[0]) in (480, 960) and read_samples(out)[1] is None
    assert bench("merge", *shards, "--out", out).returncode == 0
    assert content(out) == new and sorted(p.name for p in out.iterdir() if p.name != ".lock") == sorted(new)


def test_two_merges_into_one_folder_wait_for_each_other(bench: Bench, tmp_path: Path) -> None:
    shards = [shard(tmp_path / f"{i:03d}", i, comparisons=4) for i in range(3)]
    runs = [bench.start("merge", *given, "--out", tmp_path / "out") for given in (shards, shards[::-1])]
    assert [run.wait(120) for run in runs] == [0, 0]
    assert len(rows_of(tmp_path / "out")) == 480
    held(tmp_path / "out")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """So many rows that several processes merge them."""
    folder = tmp_path_factory.mktemp("many")
    shards = [shard(folder / f"{i:03d}", i) for i in range(8)]
    assert are_many(shards)
    return shards


@pytest.mark.slow
@several_cores
def test_on_several_cores_it_writes_and_refuses_what_it_does_on_one(
    bench: Bench, many: list[Path], tmp_path: Path
) -> None:
    given = [tmp_path / path.name for path in many]
    for path, to in zip(many, given, strict=True):
        shutil.copytree(path, to)
    cores = os.sched_getaffinity(0)
    told = {}
    for name, allowed in (("one", {min(cores)}), ("several", cores)):
        os.sched_setaffinity(0, allowed)
        try:
            first = bench("merge", *given, "--out", tmp_path / name)
            assert first.returncode == 0 and len(rows_of(tmp_path / name)) == 8000, first.stderr
            said = []
            for file in ("samples.jsonl", "rows.jsonl"):  # the first damage is told, and that of rows before all
                for i in (6, 5):
                    whole = (many[i] / file).read_bytes()
                    (given[i] / file).write_bytes(whole.replace(b"\n{", b"\n[", 1))
                    said.append(bench("merge", *given, "--out", tmp_path / "none").stderr)
                    assert f"{given[i] / file}:2: damaged line" in said[-1] and said[-1].count("\n") == 1
            for i, file in product((5, 6), ("samples.jsonl", "rows.jsonl")):
                shutil.copy(many[i] / file, given[i] / file)
        finally:
            os.sched_setaffinity(0, cores)
        told[name] = content(tmp_path / name), said
    assert told["one"] == told["several"]


@pytest.mark.slow
@several_cores
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_it(bench: Bench, many: list[Path], tmp_path: Path, number: int) -> None:
    run = bench.start("merge", *many, "--out", tmp_path / "out")
    forks = list[psutil.Process]()
    while not forks:
        assert run.poll() is None
        forks = psutil.Process(run.pid).children()
    run.send_signal(number)
    assert run.wait(60) in (130, -number)
    assert not psutil.wait_procs(forks, timeout=60)[1]
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_help_names_the_words_that_allow(cli: Cli) -> None:
    said = " ".join(cli("merge", "--help").stdout.replace("│", " ").split())
    assert ", ".join(ALLOWED) in said
