"""make publish: a measured folder where git sees it."""

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.errors import UserError
from plots.data.load import load
from tests.conftest import ROOT
from tests.synthetic import row, write_run


def test_published_samples_are_packed_where_they_are_large(checkout: Path) -> None:
    """A folder of more than a MiB of samples is published with them packed, and drawn as it was."""
    run = checkout / "results" / "h100" / "table1"
    subprocess.run(["git", "init", "-q", "."], cwd=checkout, check=True)
    for _ in range(2):  # published again, the packed file is replaced
        subprocess.run(["make", "publish", "GPU=h100"], cwd=checkout, check=True, capture_output=True)
    published = checkout / "results" / "h100" / "reference" / "table1"
    listed = subprocess.run(["git", "ls-files"], cwd=checkout, capture_output=True, text=True).stdout.split()
    assert [Path(p).name for p in listed] == ["rows.jsonl", "run.json", "samples.jsonl.gz"]
    packed = gzip.decompress((published / "samples.jsonl.gz").read_bytes())
    assert packed == (run / "samples.jsonl").read_bytes()
    assert load(published).lines == load(run).lines != {}
    (published / "samples.jsonl.gz").write_bytes(packed[:100])
    with pytest.raises(UserError, match=r"samples\.jsonl\.gz"):
        load(published)


def publish(checkout: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    words = [f"{name}={value}" for name, value in {"GPU": "h100", **variables}.items()]
    return subprocess.run(["make", "publish", *words], cwd=checkout, capture_output=True, text=True)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_is_published_is_exactly_what_the_folder_holds(checkout: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], cwd=checkout, check=True)
    run = checkout / "results" / "h100" / "my sweep"
    (checkout / "results" / "h100" / "table1").rename(run)
    for name in (".lock", "rows.csv.new", "logs/full.log", "earlier/x/run.json", ".plots-x/a.png"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("not for publication")
    for name in ("my figure.png", "-n", "NOTES"):
        (run / name).write_text("for publication")
    assert publish(checkout, SWEEP="my sweep").returncode == 0
    published = checkout / "results" / "h100" / "reference" / "my sweep"
    first = ["-n", "NOTES", "my figure.png", "rows.jsonl", "run.json", "samples.jsonl.gz"]
    assert names(published) == first
    for name in ("my figure.png", "-n"):
        (run / name).unlink()
    (run / "samples.jsonl").write_bytes((run / "samples.jsonl").read_bytes()[:5000].rpartition(b"\n")[0] + b"\n")
    (published / "by hand").touch()
    assert publish(checkout, SWEEP="my sweep").returncode == 0
    assert names(published) == ["NOTES", "rows.jsonl", "run.json", "samples.jsonl"]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, capture_output=True, text=True).stdout
    assert sorted(Path(p).name for p in listed.split("\0") if p) == names(published), "git drops what is gone"
    assert sorted(p.name for p in run.parent.iterdir()) == ["my sweep", "reference"], "nothing else is left"


def test_a_copy_that_was_cut_off_replaces_nothing(checkout: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], cwd=checkout, check=True)
    assert publish(checkout).returncode == 0
    published = checkout / "results" / "h100" / "reference" / "table1"
    before = {p.name: p.read_bytes() for p in published.iterdir()}
    run = checkout / "results" / "h100" / "table1"
    (run / "another.png").touch()
    tools = checkout / "tools"
    tools.mkdir()
    (tools / "cp").write_text('#!/bin/sh\n/bin/cp "$2" "$(eval echo \\$$#)"\necho "No space left" >&2\nexit 1\n')
    (tools / "cp").chmod(0o755)
    done = subprocess.run(
        ["make", "publish", "GPU=h100", f"PATH={tools}:{os.environ['PATH']}"], cwd=checkout, capture_output=True
    )
    assert done.returncode == 2 and b"No space left" in done.stderr
    assert {p.name: p.read_bytes() for p in published.iterdir()} == before
    assert publish(checkout).returncode == 0 and "another.png" in names(published), "the next one is whole"


@pytest.mark.parametrize("sweep", ["nope", "reference", "../h100/table1", "table1/", ".", "", "$(HOME)"])
def test_what_holds_no_run_is_not_published(checkout: Path, sweep: str) -> None:
    done = publish(checkout, SWEEP=sweep)
    assert done.returncode == 2 and "error: " in done.stderr
    assert not (checkout / "results" / "h100" / "reference").exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout's Makefile with one measured folder whose samples are over a MiB."""
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    rows = [row("table1", n, n, 1.0) for n in range(60)]
    keys = ("case_id", "run_id", "repeat", "pass", "clock")
    samples = [{k: r[k] for k in keys} | {"samples_ms": [1.0 + n / 7e3 for n in range(1500)]} for r in rows]
    write_run(tmp_path / "results" / "h100" / "table1", rows, samples)
    return tmp_path
