"""Results folders merged: what is passed over or refused, kinds of GPU, where it goes, and a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import UserError
from bench.record.merge import merge_records
from bench.record.ratios import repeats_of
from bench.record.read import read_kept_rows, read_run, read_samples
from plots.data.load import load, row_key
from tests.conftest import ROOT, rows_of
from tests.record.merging import FILES, FULL, LORA, change, content, folder, held, keys, once, timed
from tests.record.shards import ENVIRONMENT, SWEEP

# What is passed over, and what is refused


def test_torn_last_lines_and_empty_folders_are_passed_over_with_a_note(tmp_path: Path) -> None:
    a, b = once(tmp_path, "a", "b")
    for name in ("rows.jsonl", "samples.jsonl"):
        with open(a / name, "ab") as f:
            f.write(b'{"case_id": "torn')
    (a / "causes.csv").write_text("x")
    begun = folder(tmp_path / "begun", [])
    (tmp_path / "new" / "logs").mkdir(parents=True)
    found = merge_records([a, begun, b, tmp_path / "new"], tmp_path / "out")
    assert found.rows == 4 and found.torn == (a / "rows.jsonl", a / "samples.jsonl")
    assert found.empty == (begun, tmp_path / "new") and found.left == ("causes.csv",)
    assert sum("torn and was passed over" in n for n in found.notes) == 2
    assert any("left where it is: causes.csv" in n for n in found.notes)
    held(tmp_path / "out")


def refused(sources: list[Path], said: str, out: Path, **options: Any) -> None:
    before = content_of(out)
    with pytest.raises(UserError, match=said):
        merge_records(sources, out, **options)
    assert content_of(out) == before, "nothing was changed"


def content_of(path: Path) -> dict[str, bytes] | None:
    """Of all files; None where there is no such folder."""
    return {p.name: p.read_bytes() for p in path.iterdir()} if path.is_dir() else None


@pytest.mark.parametrize("name", ["rows.jsonl", "samples.jsonl"])
def test_other_damage_is_refused_by_file_and_line(tmp_path: Path, name: str) -> None:
    a, b = once(tmp_path, "a", "b")
    lines = (b / name).read_text().splitlines()
    for bad in ('{"case_id": "torn', json.dumps(json.loads(lines[1]) | {"repeat": -1}), "[]"):
        (b / name).write_text("\n".join([lines[0], bad, *lines[1:]]) + "\n")
        refused([a, b], rf"b/{name}:2: damaged line", tmp_path / "out")


def test_what_is_no_results_folder_is_refused(tmp_path: Path) -> None:
    (a,) = once(tmp_path, "a")
    out = tmp_path / "out"
    refused([a, tmp_path / "nowhere"], "nowhere: no such folder", out)
    refused([a, a / "run.json"], "this is a file", out)
    refused([a, tmp_path], r"no run\.json is in it\. Results folders in it: a\.", out)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused([a, tmp_path / "loop"], "loop: no such folder", out)
    (tmp_path / "empty").mkdir()
    refused([tmp_path / "empty"], "empty: nothing was measured there yet", out)
    (a / "run.json").unlink()
    refused([a], r"rows\.jsonl: a record without its run\.json", out)


def test_rows_of_another_gpu_than_the_folders_are_refused_with_their_line(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", [timed("a", FULL, 0), timed("a", LORA, 1, gpu="Board 2")])
    refused([a], r"rows\.jsonl:2: measured on 'Board 2', and .*run\.json says 'Board 1'", tmp_path / "out")


def test_another_schema_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    a, b = once(tmp_path, "a", "b")
    change(b, schema=2)
    refused([a, b], r"b/run\.json: found schema 2", tmp_path / "out", allow=frozenset({"commit", "sweep"}))


OTHER_TEXT = [{"sweep": SWEEP | {"text": "description: another\n"}}]


@pytest.mark.parametrize(
    ("word", "values", "said"),
    [
        ("commit", {"source_hash": "ff00"}, r"source_hash is '00ff' in .*a, and 'ff00' in .*b\."),
        ("commit", {"commit": "fedcba"}, r"commit is '0123456789abcdef' in .*a, and 'fedcba' in .*b\."),
        ("commit", {"dirty": True}, r"dirty is False in .*a, and True in .*b\."),
        (
            "sweep",
            {"invocations": [{"sweep": SWEEP | {"name": "layers"}}]},
            r"the sweep is 'grid' in .*a, and 'layers' in",
        ),
        ("sweep", {"invocations": OTHER_TEXT}, r"first in line 1: 'description: a grid' in .*a, and 'description: ano"),
        ("sweep", {"invocations": []}, r"the sweep is 'grid' in .*a, and None in .*b\."),
        ("torch", {"torch": "2.14.0"}, r"torch is '2.13.0' in .*a, and '2.14.0' in .*b\."),
        ("triton", {"triton": None}, r"triton is '3.7.1' in .*a, and None in .*b\."),
        ("driver", {"driver": "600.1"}, "driver is '580.1' in .*a, and '600.1' in "),
        ("threads", {"threads": 2}, "threads is None in .*a, and 2 in "),
    ],
)
def test_what_differs_is_named_unless_it_is_allowed(
    tmp_path: Path, word: str, values: dict[str, Any], said: str
) -> None:
    a, b = once(tmp_path, "a", "b")
    out = tmp_path / "out"
    change(b, **values)
    refused([a, b], said, out)
    refused([a, b], rf"only with --allow {word}\.", out, allow=frozenset({"commit", "sweep", "torch"} - {word}))
    merge_records([a, b], out, allow=frozenset({word}))
    first = content(out)
    run = read_run(out)
    for name in values:
        assert name == "invocations" or (run[name] is None and run["merged"][1][name] == values[name])
    refused([out, b], r" in .*out \(of a\), and .* in .*out \(of b\)", tmp_path / "next")
    merge_records([out, b, a], out, allow=frozenset({word}))
    assert content(out) == first


def test_other_words_of_the_command_another_place_and_an_unknown_commit_are_no_difference(tmp_path: Path) -> None:
    a, b, c = once(tmp_path, "a", "b", "c")
    change(b, invocations=[{"sweep": SWEEP | {"words": ["grid", "--where", "batch=1"]}}], commit=None, dirty=None)
    change(c, invocations=[{"sweep": SWEEP | {"name": "/home/me/grid.yaml"}}], python="3.12.1", gpu_uuid="GPU-9")
    merge_records([a, b, c], tmp_path / "out")
    run = read_run(tmp_path / "out")
    assert (run["commit"], run["dirty"], run["python"]) == (ENVIRONMENT["commit"], False, None)


def test_an_unknown_word_is_refused(tmp_path: Path) -> None:
    said = (
        r"--allow: 'comit' is not valid\. Did you mean 'commit'\? Valid: commit, sweep, torch, triton, driver, threads"
    )
    refused(once(tmp_path, "a", "b"), said, tmp_path / "out", allow=frozenset({"comit"}))


# Several kinds of GPU


def test_rows_of_different_gpus_never_share_a_folder(tmp_path: Path) -> None:
    a, b, c, d = once(tmp_path, "a", "b", "c", "d")
    small, large = ({"gpu": f"Board {n}GB", "gpu_key": "board"} for n in (40, 80))
    for path, values in ((b, {"gpu": "Board 2", "gpu_key": "board-2", "driver": "600"}), (c, small), (d, large)):
        change(path, **values)
        rows = [r | {"gpu": values["gpu"]} for r in rows_of(path)]
        (path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    out = tmp_path / "out"
    for given in ([a, b, c, d], [d, c, b, a]):
        found = merge_records(given, out)
        names = {"board-1": "a", "board-2": "b", "board-Board-40GB": "c", "board-Board-80GB": "d"}
        assert {p.name for p in found.folders} == {p.name for p in out.iterdir()} == names.keys()
        assert {n: {r["run_id"] for r in rows_of(out / n)} for n in names} == {n: {x} for n, x in names.items()}
    merge_records([a], tmp_path / "flat")
    refused([a, b], "each of which gets a folder in it, and it holds a record itself", tmp_path / "flat")
    change(b, commit="fedcba")
    refused([a, b], "--allow commit", tmp_path / "next")


# Where it goes


def test_nothing_that_merge_did_not_make_is_overwritten(tmp_path: Path) -> None:
    a, b, c = once(tmp_path, "a", "b", "c")
    refused([a, b], "b: it holds a record that merge did not make", b)
    refused([a], "b: it holds a record that merge did not make", b)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "rows.jsonl").write_text("")
    refused([a], r"half: it holds a record that merge did not make \(rows\.jsonl\)", tmp_path / "half")
    out = tmp_path / "out"
    merge_records([a, b], out)
    refused([a, c], r"out: 2 of its rows, of b, are in none of the given folders and would be lost", out)
    # A run went on in the merged folder.
    run = read_run(out)
    change(out, invocations=[*run["invocations"], {"started": "2026-02-01T00:00:00+00:00", "sweep": SWEEP}])
    with open(out / "rows.jsonl", "a") as f:
        f.write(json.dumps(timed(run["run_id"], LORA, 90)[0]) + "\n")
    refused([a, b], "out: 1 of its rows, of out, are in none", out)
    merge_records([a, b, out], out)
    assert ("lora", 2, run["run_id"], "ok") in keys(out), "whoever gives the folder itself keeps them"
    assert len(read_run(out)["invocations"]) == 3


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (a,) = once(tmp_path, "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out" / "rows.csv").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=r"rows\.csv: this is a symbolic link"):
        merge_records([a], tmp_path / "out")
    (tmp_path / "out" / "rows.csv").unlink()
    (tmp_path / "out" / "rows.jsonl.new").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="symbolic link"):
        merge_records([a], tmp_path / "out")
    assert (tmp_path / "mine").read_text() == "mine"


# A kill in the middle

KILLED = """
import os, pathlib, signal, sys
from bench.record.merge import merge_records
left, replace = int(sys.argv[1]), pathlib.Path.replace
def cut(self, there):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return replace(self, there)
pathlib.Path.replace = cut
merge_records([pathlib.Path(p) for p in sys.argv[3:]], pathlib.Path(sys.argv[2]))
"""


@pytest.mark.parametrize("after", range(5))
@pytest.mark.parametrize("first", [True, False])
def test_a_kill_between_the_files_leaves_nothing_that_is_misread(tmp_path: Path, first: bool, after: int) -> None:
    """The second merge finds an earlier run: the repeats of all others move by one."""
    early = folder(tmp_path / "early", [timed("early", FULL, 0, 7.0), timed("early", LORA, 1, 7.7)])
    late = folder(
        tmp_path / "late",
        [timed("late", of, 60 + i + j / 2, 2.0 + i, repeat=i) for i in range(3) for j, of in enumerate((FULL, LORA))],
    )
    out = tmp_path / "out"
    if not first:
        merge_records([late], out)
    command = [sys.executable, "-c", KILLED, str(after), str(out), str(early), str(late)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if after < 4 else 0), done.stderr
    rows, lines = read_kept_rows(out)[0], read_samples(out)[0]
    medians = {(r["run_id"], r["process"], r["method"]): r["median_ms"] for s in (early, late) for r in rows_of(s)}
    for r in rows:
        assert r["median_ms"] == medians[r["run_id"], r["process"], r["method"]]
    for repeats in repeats_of(rows, lines).values():
        for one in repeats:
            assert not one.samples_ms or np.median(one.samples_ms) == pytest.approx(one.median_ms)
    if content(out):
        drawn = load(out)
        for r in drawn.rows:
            line = drawn.lines.get(row_key(r))
            assert line is None or np.median(line.samples_ms) == pytest.approx(r["median_ms"])
    merge_records([early, late], out)
    assert len(rows_of(out)) == 8 and sorted(p.name for p in out.iterdir()) == sorted(FILES)
    held(out)


def test_no_room_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = once(tmp_path, "a", "b")
    merge_records([a], tmp_path / "out")
    before = content(tmp_path / "out")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        merge_records([a, b], tmp_path / "out")
    assert content(tmp_path / "out") == before and len(list((tmp_path / "out").iterdir())) == 4
