"""One results folder and many runs: no row twice, nothing overwritten, and lines to paste that do what they say."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK_SWEEP, Bench, Cli, rows_of, wait_for

ROWS = 2 * 2  # cases, clocks


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """In a folder whose name a shell would take apart."""
    folder = tmp_path / "my sweeps --fresh"
    folder.mkdir()
    (folder / "it's.yaml").write_text(QUICK_SWEEP)
    return folder / "it's.yaml"


def keys(folder: Path) -> list[tuple[Any, ...]]:
    return [(r["case_id"], r["pass"], r["clock"], r["repeat"]) for r in rows_of(folder)]


def paste(line: str, bench: Bench, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """A line as a shell reads it, with this Python."""
    python = shlex.quote(sys.executable)
    assert line.startswith("python -m bench ")
    command = line.replace("python", python, 1)
    return subprocess.run(command, shell=True, cwd=cwd, env=bench.env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_two_runs_that_begin_at_once_measure_every_row_once(bench: Bench, sweep: Path, tmp_path: Path) -> None:
    """They have no place of the device's lock in common, as in two containers."""
    running = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        bench.env |= {"LORABENCH_LOCKS": str(tmp_path / name), "TMPDIR": str(tmp_path / name)}
        running.append(bench.start("run", sweep, "--out", tmp_path / "out"))
    said = [p.communicate(timeout=200)[1] for p in running]
    assert [p.returncode for p in running] == [0, 0, 0], said
    assert len(keys(tmp_path / "out")) == len(set(keys(tmp_path / "out"))) == ROWS
    assert sum(" is measuring into " in text for text in said) == 2
    others = {str(p.pid) for p in running}
    assert all(text.split("(process ")[1].split(")")[0] in others for text in said if "(process " in text)


@pytest.mark.slow
def test_a_record_that_was_copied_back_is_not_overwritten(bench: Bench, sweep: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    assert bench("run", sweep, "--out", out).returncode == 0
    shutil.copytree(out, back)
    before = []
    for number in range(3):
        done = bench("run", sweep, "--out", out, "--fresh")
        assert done.returncode == 0, done.stderr
        names = sorted(p.name for p in (out / "earlier").iterdir())
        assert len(names) == number + 1
        for rows in (out / "earlier").glob("*/rows.csv"):
            rows.write_text(f"{rows.read_text()}# noted by hand {number}\n")
        notes = {p: p.read_bytes() for p in (out / "earlier").rglob("*") if p.is_file()}
        assert all(notes[p] == b or p.name == "rows.csv" for p, b in before)
        before = list(notes.items())
        shutil.copytree(back, out, dirs_exist_ok=True)
    assert len(keys(out)) == ROWS and all("noted" in (p / "rows.csv").read_text() for p in (out / "earlier").iterdir())


@pytest.mark.slow
def test_the_line_of_an_interrupted_fresh_run_goes_on_with_it(bench: Bench, sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "my results --fresh"
    flags = [
        "run",
        sweep,
        "--fresh",
        f"--out={out}",
        "--where",
        "seq=4,8",
        "--repeat",
        3,
        "--gpu",
        "cpu",
        "--threads=1",
    ]
    running = bench.start(*flags)
    wait_for(lambda: rows_of(out))
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    first = rows_of(out)
    line = said.strip().splitlines()[-1].partition("To go on: ")[2]
    assert running.returncode == 130 and line and 0 < len(first) < 3 * ROWS
    done = paste(line, bench, tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows_of(out)[: len(first)] == first and len(keys(out)) == len(set(keys(out))) == 3 * ROWS
    assert not (out / "earlier").exists()


@pytest.mark.slow
def test_the_line_about_what_failed_measures_it_again(bench: Bench, sweep: Path, tmp_path: Path) -> None:
    """A worker that may say nothing for a nanosecond is a timeout; so is its retry, into the same folder."""
    sweep.write_text(QUICK_SWEEP.replace("{budget_s", "{timeout_s: 1.0e-9, budget_s"))
    out = tmp_path / "my results"
    flags = ["--out", out, "--retry=oom", "--where", "seq=8", "--repeat", "2", "--fresh"]
    done = bench("run", *flags, "--", sweep)
    assert done.returncode == 1 and {r["status"] for r in rows_of(out)} == {"timeout"}
    line = next(x for x in done.stderr.splitlines() if "failed again: " in x).partition("failed again: ")[2]
    assert paste(line, bench, tmp_path).returncode == 1
    assert len(rows_of(out)) == 2 * len(set(keys(out))) == 2 * ROWS and not (tmp_path / "results").exists()
    sweep.write_text(QUICK_SWEEP)
    done = paste(line, bench, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [r["status"] for r in rows_of(out)][-ROWS:] == ["ok"] * ROWS and set(keys(out)[-ROWS:]) == set(keys(out))


def test_another_gpu_s_folder_and_a_refused_one_keep_no_trace(cli: Cli, sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run = {"schema": 1, "run_id": "x", "gpu": "NVIDIA A100-SXM4-80GB", "invocations": []}
    (out / "run.json").write_text(json.dumps(run))
    done = cli("run", sweep, "--gpu", "cpu", "--out", out)
    assert done.returncode == 2 and "A100" in done.stderr
    assert [p.name for p in out.iterdir()] == ["run.json"]
    os.mkfifo(out / ".lock")
    (out / "run.json").unlink()
    for fresh in ((), ("--fresh",)):
        done = cli("run", sweep, "--gpu", "cpu", "--out", out, *fresh)
        assert done.returncode == 2 and done.stderr.startswith(f"error: --out {out}: {out}/.lock: it is not a plain")
    assert [p.name for p in out.iterdir()] == [".lock"]


def test_a_device_that_cannot_be_locked_leaves_no_folder(
    cli: Cli, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORABENCH_LOCKS", str(tmp_path / "nowhere"))
    done = cli("run", sweep, "--gpu", "cpu", "--out", tmp_path / "a" / "out")
    assert done.returncode == 2 and "LORABENCH_LOCKS" in done.stderr and not (tmp_path / "a").exists()
