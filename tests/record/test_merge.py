"""Results folders merged: which rows stand, as which repeats, with the same bytes again."""

import gzip
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

import bench
from bench.record.merge import merge_records
from bench.record.read import read_run
from tests.conftest import rows_of
from tests.record.merging import FILES, FULL, LORA, Measured, content, failed, folder, held, keys, once, timed
from tests.record.shards import ENVIRONMENT, shard
from tests.synthetic import case, sampled

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
