"""Results folders merged: which rows stand, as which repeats, with the same bytes again; what is refused."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
from bench.case import Case
from bench.case.columns import COLUMNS
from bench.errors import UserError
from bench.record.budget import with_budget
from bench.record.merge import merge_records
from bench.record.ratios import repeats_of, with_ratios
from bench.record.read import read_kept_rows, read_run, read_samples, write_csv
from plots.data.load import load, row_key
from tests.conftest import ROOT, rows_of
from tests.record.shards import ENVIRONMENT, SWEEP, shard
from tests.synthetic import START, case, row, sampled, write_run

FULL, LORA = case(), case(method="lora", rank=4, alpha=8.0, dropout=0.0)
FILES = ("rows.jsonl", "samples.jsonl", "run.json", "rows.csv")
Measured = tuple[dict[str, Any], dict[str, Any]]


def timed(name: str, of: Case, minute: float, ms: float = 2.0, repeat: int = 0, **more: Any) -> Measured:
    """A row with a time and its samples, as the process of that minute found it."""
    x = ms * (1 + 0.01 * np.random.default_rng(int(100 * minute) + repeat).standard_normal(24))
    found, line = sampled(name, repeat, minute, x)
    same = {"case_id": of.case_id}
    return found | of.axes() | same | more, line | same | {k: v for k, v in more.items() if k in line}


def failed(name: str, of: Case, minute: float, repeat: int = 0, status: str = "oom", **more: Any) -> Measured:
    found = row(name, repeat, minute, None, status=status, process=None, **more)
    return found | {"case_id": of.case_id} | of.axes(), {}


def folder(path: Path, found: Iterable[Measured], **run: Any) -> Path:
    found = list(found)
    write_run(path, [r for r, _ in found], [line for _, line in found if line])
    told = {"started": START.isoformat(), "command": f"python -m bench run grid --out {path.name}", "sweep": SWEEP}
    change(path, **ENVIRONMENT | {"gpu_uuid": f"GPU-{path.name}", "invocations": [told]} | run)
    return path


def change(path: Path, **values: Any) -> None:
    file = path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def once(tmp_path: Path, *names: str) -> list[Path]:
    """Folders of a comparison that each measured once, one a quarter of an hour after the other."""
    return [
        folder(tmp_path / name, [timed(name, FULL, 15 * i), timed(name, LORA, 15 * i + 1, 3.0)])
        for i, name in enumerate(names)
    ]


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES if (out / name).exists()}


def keys(out: Path) -> list[tuple[str, int, str, str]]:
    """(method, repeat, run_id, status) of the rows."""
    return [(r["method"], r["repeat"], r["run_id"], r["status"]) for r in rows_of(out)]


def held(out: Path) -> None:
    """Every row with a time has its own samples, and rows.csv says what the record does."""
    rows, torn = read_kept_rows(out)
    lines, torn_line = read_samples(out)
    assert torn is None and torn_line is None
    by_key = {(x["case_id"], x["pass"], x["clock"], x["repeat"]): x for x in lines}
    assert len(by_key) == len(lines)
    for r in rows:
        line = by_key.pop((r["case_id"], r["pass"], r["clock"], r["repeat"]), None)
        assert (line is not None) == (r["status"] == "ok")
        assert line is None or (line["run_id"], line["process"]) == (r["run_id"], r["process"])
    assert not by_key
    again = out.parent / "again.csv"
    write_csv(again, COLUMNS, with_budget(with_ratios(rows, lines), read_run(out)), "ignore")
    assert (out / "rows.csv").read_bytes() == again.read_bytes()


# Which rows stand


def test_shards_of_one_plan_come_together_with_their_samples(tmp_path: Path) -> None:
    shards = [shard(tmp_path / f"{i:03d}", i, comparisons=2) for i in range(3)]
    found = merge_records(shards, tmp_path / "out", one_plan=True)
    assert (found.rows, found.repeats, found.folders) == (240, 1, (tmp_path / "out",))
    assert rows_of(tmp_path / "out") == [r for s in shards for r in rows_of(s)], "as they were, in the shards' order"
    held(tmp_path / "out")
    run = read_run(tmp_path / "out")
    assert [(m["folder"], m["gpu_uuid"]) for m in run["merged"]] == [(f"{i:03d}", f"GPU-{i}") for i in range(3)]
    assert (run["gpu"], run["commit"], run["gpu_uuid"]) == ("Board 1", ENVIRONMENT["commit"], None)
    assert len(run["invocations"]) == 3 and run["run_id"].startswith("merged-")


def test_of_two_attempts_the_later_row_stands(tmp_path: Path) -> None:
    a = folder(tmp_path / "003", [timed("a", FULL, 0), failed("a", LORA, 1, status="crashed")])
    b = folder(tmp_path / "003.2", [timed("b", LORA, 5, 3.0)])
    c = folder(tmp_path / "003.10", [timed("c", LORA, 9, 3.5)])
    merge_records([c, a, b], tmp_path / "out", one_plan=True)
    assert keys(tmp_path / "out") == [("full", 0, "a", "ok"), ("lora", 0, "c", "ok")]
    held(tmp_path / "out")
    assert [m["folder"] for m in read_run(tmp_path / "out")["merged"]] == ["003", "003.2", "003.10"]


def test_the_same_case_in_several_records_becomes_repeats_in_the_order_of_time(tmp_path: Path) -> None:
    a, b, c = once(tmp_path, "z", "y", "x")
    found = merge_records([b, c, a], tmp_path / "out")
    assert (found.rows, found.repeats) == (6, 3)
    assert keys(tmp_path / "out") == [(m, i, name, "ok") for i, name in enumerate("zyx") for m in ("full", "lora")]
    held(tmp_path / "out")


def test_a_comparison_keeps_one_number_and_others_are_not_counted_on(tmp_path: Path) -> None:
    longer = case(seq=64)
    a = folder(tmp_path / "a", [timed("a", FULL, 0)])
    b = folder(tmp_path / "b", [timed("b", FULL, 1), timed("b", LORA, 2), timed("b", longer, 3)])
    merge_records([a, b], tmp_path / "out")
    found = {(r["run_id"], r["method"], r["seq"]): r["repeat"] for r in rows_of(tmp_path / "out")}
    assert found == {("a", "full", 32): 0, ("b", "full", 32): 1, ("b", "lora", 32): 1, ("b", "full", 64): 0}


def test_repeats_of_two_records_do_not_mix_and_a_gap_stays_one(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", [timed("a", FULL, i, repeat=i) for i in (0, 2)])
    b = folder(tmp_path / "b", [timed("b", FULL, 10 + i, repeat=i) for i in range(3)])
    merge_records([a, b], tmp_path / "out")
    assert [(r["run_id"], r["repeat"]) for r in rows_of(tmp_path / "out")] == [
        ("a", 0), ("a", 2), ("b", 1), ("b", 3), ("b", 4)
    ]  # fmt: skip
    held(tmp_path / "out")


def test_a_time_beats_a_failure_and_of_two_failures_the_later_stands(tmp_path: Path) -> None:
    other = case("square-128")
    a = folder(tmp_path / "a", [timed("a", FULL, 0), failed("a", LORA, 1), failed("a", other, 2, status="timeout")])
    b = folder(tmp_path / "b", [timed("b", FULL, 5), timed("b", LORA, 6), failed("b", other, 7, status="oom")])
    merge_records([b, a], tmp_path / "out")
    assert keys(tmp_path / "out") == [
        ("full", 0, "a", "ok"), ("full", 1, "b", "ok"), ("lora", 1, "b", "ok"), ("full", 0, "b", "oom")
    ]  # fmt: skip
    held(tmp_path / "out")


def test_what_was_measured_again_in_a_folder_counts_once(tmp_path: Path) -> None:
    a = folder(
        tmp_path / "a", [timed("a", FULL, 0), failed("a", LORA, 1), timed("a", FULL, 5, 4.0), timed("a", LORA, 6)]
    )
    merge_records([a], tmp_path / "out")
    assert keys(tmp_path / "out") == [("full", 0, "a", "ok"), ("lora", 0, "a", "ok")]
    assert rows_of(tmp_path / "out")[0]["median_ms"] > 3.5
    held(tmp_path / "out")


def test_a_copy_of_a_folder_adds_nothing_and_a_later_state_of_it_its_new_rows(tmp_path: Path) -> None:
    a, b = once(tmp_path, "a", "b")
    shutil.copytree(a, tmp_path / "copy")
    line = json.dumps(failed("a", case(seq=64), 50)[0])
    with open(tmp_path / "copy" / "rows.jsonl", "a") as f:
        f.write(line + "\n")
    found = merge_records([a, b, tmp_path / "copy", a, tmp_path / "b" / ".." / "b"], tmp_path / "out")
    assert (found.rows, found.repeats) == (5, 2)
    assert len(read_run(tmp_path / "out")["merged"]) == 2


def test_packed_samples_and_a_link_to_a_folder(tmp_path: Path) -> None:
    a, b, c = once(tmp_path, "a", "b", "c")
    for path in (a, b):
        with gzip.open(path / "samples.jsonl.gz", "wb") as f:
            f.write((path / "samples.jsonl").read_bytes())
        (path / "samples.jsonl").unlink()
    (tmp_path / "link").symlink_to(c)
    merge_records([a, b, tmp_path / "link", c], tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 6
    held(tmp_path / "out")


# Ratios


def in_turns(name: str, minute: float, ratio: float, turns: str) -> list[Measured]:
    """A comparison in rounds, on a machine whose speed differs from round to round and from run to run."""
    speed = np.repeat(1 + np.abs(np.random.default_rng(int(minute)).standard_normal(12)), 2)
    rounds = [int(i) for i in np.repeat(np.arange(12), 2)]
    found = []
    for of, by in ((FULL, 1.0), (LORA, ratio)):
        r, line = sampled(name, 0, minute, 2 * by * speed)
        more = {"rounds": 12, "beside": "comparison"}
        line |= {"case_id": of.case_id, "rounds": rounds, "turns": turns, "process": f"{name}-{of.method}"}
        found.append((r | of.axes() | more | {"case_id": of.case_id, "process": line["process"]}, line))
    return found


def test_ratios_pair_the_rounds_of_one_run_alone(tmp_path: Path) -> None:
    """Even where the turns of two runs have one name: both began in the same moment."""
    ratios = (1.5, 1.2, 1.9)
    runs = [
        folder(tmp_path / n, in_turns(n, 10 * i, r, "t")) for i, (n, r) in enumerate(zip("abc", ratios, strict=True))
    ]
    merge_records(runs, tmp_path / "out")
    frame = bench.read(tmp_path / "out", method="lora")
    assert frame.set_index("run_id").ratio.to_dict() == pytest.approx(dict(zip("abc", ratios, strict=True)), rel=1e-4)
    held(tmp_path / "out")


def test_ratios_that_rows_lack_are_those_of_the_whole_record(tmp_path: Path) -> None:
    """held() works them out of all rows and samples at once."""
    compiled = case(impl="compile")
    a = folder(
        tmp_path / "a", [timed("a", compiled, 0, 1.5), timed("a", LORA, 1, 3.0), timed("a", LORA, 2, 3.0, repeat=1)]
    )
    b = folder(tmp_path / "b", [timed("b", FULL, 4), timed("b", LORA, 5, 3.1), timed("b", compiled, 6, 1.6)])
    merge_records([a, b], tmp_path / "out")
    held(tmp_path / "out")
    rows = bench.read(tmp_path / "out", method="lora")
    assert rows.ratio_to.dropna().unique().tolist() == [FULL.case_id]


# The same bytes


def test_merging_again_in_any_order_and_with_what_came_of_it_gives_the_same_bytes(tmp_path: Path) -> None:
    sources = once(tmp_path, "a", "b", "c", "d")
    sources.append(folder(tmp_path / "e", [failed("e", LORA, 70), timed("e", case(seq=64), 3)]))
    out, other = tmp_path / "out", tmp_path / "other"
    merge_records(sources, out)
    first = content(out)
    for given in (sources, sources[::-1], [*sources, out], [out, *sources[::-1]], [out]):
        merge_records(given, out)
        assert content(out) == first
    merge_records([out], other)
    assert content(other) == first
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)


def test_shards_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    shards = [shard(tmp_path / f"{i:03d}", i, comparisons=1) for i in (9, 10, 3, 100)]
    out = tmp_path / "out"
    merge_records(shards, out, one_plan=True)
    first = content(out)
    for given in (shards[::-1], [out, *shards], [out]):
        merge_records(given, out, one_plan=True)
        assert content(out) == first


def test_a_record_grows_by_another_folder_as_if_all_had_been_given(tmp_path: Path) -> None:
    sources = once(tmp_path, "a", "b", "c")
    merge_records(sources, tmp_path / "at-once")
    merge_records(sources[:2], tmp_path / "out")
    merge_records([tmp_path / "out", sources[2]], tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "at-once")


def test_the_order_of_sources_never_matters(tmp_path: Path) -> None:
    rng = random.Random(1)
    statuses = ("oom", "timeout", "unsupported")
    sources = []
    for i in range(6):
        cases = [case(seq=s, **m) for s in (32, 64) for m in ({}, {"method": "lora", "rank": 4})]
        found = [
            timed(f"r{i}", of, 20 * i + j + r / 2, repeat=r)
            if rng.random() < 0.6
            else failed(f"r{i}", of, 20 * i + j + r / 2, r, rng.choice(statuses))
            for r in range(2)
            for j, of in enumerate(cases)
            if rng.random() < 0.8
        ]
        sources.append(folder(tmp_path / f"r{i}", found))
    merge_records(sources, tmp_path / "out")
    held(tmp_path / "out")
    first = content(tmp_path / "out")
    for _ in range(5):
        given = [*sources, tmp_path / "out"]
        rng.shuffle(given)
        merge_records(given, tmp_path / "out")
        assert content(tmp_path / "out") == first
    fit = {(r["run_id"], r["process"], r["measured_at"]) for s in sources for r in rows_of(s) if r["status"] == "ok"}
    assert {
        (r["run_id"], r["process"], r["measured_at"]) for r in rows_of(tmp_path / "out") if r["status"] == "ok"
    } == fit


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
