"""A whole run of small cases through the command line: files, columns, resuming, exit status."""

import csv
import json
import shlex
from pathlib import Path

import pytest

from bench.case.columns import RECORDED
from bench.devices import cpu_device
from bench.record.environment import source_hash
from bench.record.stats import summarize
from bench.runner.lock import only_run_on
from tests.conftest import ROOT, Bench, rows_of

CONTRACT = """
case_id, run_id, repeat, gpu, level, model, layer, method, impl, trainable_layers, rank, alpha, dropout, targets,
adapter_dtype, precision, batch, seq, pass, clock, l2, median_ms, ci_low_ms, ci_high_ms, p20_ms, p80_ms, min_ms, n,
outliers, stop, noisy, status, detail, peak_mib, trainable_params, flops, bytes, floor_ms, launches, sm_clock_mhz,
power_w, temperature_c, repro
""".replace("\n", " ").replace(" ", "").split(",")  # fmt: skip


def test_a_run_leaves_what_the_contract_says(
    bench: Bench, sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    done = bench("run", sweep_file, "--gpu", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out), "the folder alone, for scripts"
    assert "CPU times are no GPU times" in done.stderr
    assert "busy with other work" in done.stderr and "1 thread" in done.stderr
    assert done.stderr.splitlines()[-1] == f"Tables, plots and the answer: python -m plots {out}"
    rows = rows_of(out)
    assert len(rows) == 6 * 3 * 2 and set(CONTRACT) <= set(rows[0]) == set(RECORDED)
    assert len({r["process"] for r in rows}) == 3, "a worker for each (method, impl)"
    for r in rows:
        assert r["status"] == "ok" and r["clock"] in ("cpu-time", "cpu") and r["level"] == "linear"
        assert 0 < r["ci_low_ms"] <= r["median_ms"] <= r["ci_high_ms"]
        assert r["min_ms"] <= r["p20_ms"] <= r["p80_ms"]
        assert r["stop"] in ("converged", "budget", "wall", "rounds")
        assert r["peak_mib"] is None and r["l2"] is None, "an empty cell means not measured"
        assert (r["refresh_ms"] is not None) == (r["method"] == "paca")
        assert r["threads"] == 1 and r["beside"] == "comparison" and r["ratio_low"] <= r["ratio"] <= r["ratio_high"]
        base = next(b for b in rows if (b["method"], b["layer"]) == ("full", r["layer"]))
        assert r["ratio_to"] == base["case_id"] and (r["ratio"] == 1 or r["method"] != "full")
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    for r, s in zip(rows, samples, strict=True):
        assert (r["case_id"], r["pass"]) == (s["case_id"], s["pass"])
        assert len(s["samples_ms"]) == len(s["rounds"]) == r["n"] and len(set(s["rounds"])) == r["rounds"]
        assert summarize(s["samples_ms"]).median_ms == pytest.approx(r["median_ms"], abs=1e-6)
    for case in {r["case_id"] for r in rows}:
        f, b, fb = (next(s["samples_ms"] for s in samples if (s["case_id"], s["pass"], s["clock"]) == (case, p, "cpu"))
                    for p in ("forward", "backward", "forward-backward"))  # fmt: skip
        assert [x + y for x, y in zip(f, b, strict=True)] == pytest.approx(fb, abs=1e-5), "one iteration yields all"

    run = json.loads((out / "run.json").read_text())
    assert run["source_hash"] == source_hash() and run["torch"] and run["gpu_key"] == "cpu"
    assert run["run_id"] == rows[0]["run_id"]
    (invocation,) = run["invocations"]
    assert invocation["sweep"]["text"] == sweep_file.read_text()
    assert shlex.join(["python", "-m", "bench", "run", str(sweep_file)]) in invocation["command"]
    kinds = ["starting", "building", "compiling", "checking", "warming up", "measuring", "waiting"]
    assert list(invocation["spent_s"]) == kinds and all(s >= 0 for s in invocation["spent_s"].values())
    assert "The time went into: " in done.stderr and "measuring" in done.stderr
    with open(out / "rows.csv", newline="") as f:
        assert len(list(csv.DictReader(f))) == 36

    before = (out / "rows.jsonl").read_bytes()
    monkeypatch.setenv("LORABENCH_LOCKS", str(tmp_path))
    with only_run_on(cpu_device(), print):  # with nothing to measure it waits for nobody
        again = bench("run", sweep_file, "--gpu", "cpu", "--out", out)
    assert again.returncode == 0 and "all 6 cases are measured" in again.stderr
    assert (out / "rows.jsonl").read_bytes() == before, "a second run measures nothing again"


@pytest.mark.slow
def test_a_repro_command_measures_its_case_again(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", "smoke", "--gpu", "cpu", "--out", tmp_path / "a", "--where", "method=paca,full")
    assert done.returncode == 0, done.stderr
    row = rows_of(tmp_path / "a")[-1]
    words = shlex.split(row["repro"])
    assert words[:3] == ["python", "-m", "bench"]
    done = bench(*words[3:-1], tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert {r["case_id"] for r in rows_of(tmp_path / "b")} == {row["case_id"]}


@pytest.mark.slow
def test_repeats_are_fresh_processes_and_rows_of_their_own(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bench("run", sweep_file, "--out", out, "--where", "method=lora", "--repeat", "2")
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert sorted({r["repeat"] for r in rows}) == [0, 1]
    assert len({r["process"] for r in rows}) == 2
    assert len(rows) == 2 * 2 * 3 * 2


@pytest.mark.slow
def test_strict_counts_noisy_rows(bench: Bench, tmp_path: Path, sweep_file: Path) -> None:
    sweep_file.write_text(sweep_file.read_text().replace("measure: {", "measure: {noisy: 1.0e-9, "))
    out = tmp_path / "out"
    flags = ["run", sweep_file, "--out", out, "--where", "method=full"]
    assert bench(*flags).returncode == 0
    assert all(r["noisy"] for r in rows_of(out))
    assert bench(*flags, "--strict").returncode == 1
    assert len(rows_of(out)) == 12, "and measures nothing again for it"


def test_another_gpu_than_the_folders_is_refused(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert bench("run", sweep_file, "--out", out, "--where", "method=full").returncode == 0
    run = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(run | {"gpu": "NVIDIA A100-SXM4-80GB"}))
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    done = bench("run", sweep_file, "--out", out)
    assert done.returncode == 2 and "A100" in done.stderr and "run.json" in done.stderr
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before


@pytest.mark.slow
def test_step_and_a_single_pass(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    sweep_file.write_text(sweep_file.read_text() + "passes: [forward-backward, step]\n")
    out = tmp_path / "out"
    assert bench("run", sweep_file, "--out", out).returncode == 0
    ms = {(r["case_id"], r["pass"]): r["median_ms"] for r in rows_of(out)}
    assert {p for _, p in ms} == {"forward-backward", "step"}
    assert all(ms[c, "step"] > ms[c, "forward-backward"] for c, _ in ms), "the optimizer comes on top"


def test_measuring_leaves_the_tree_clean() -> None:
    import subprocess

    ignored = ["results/cpu/table1/rows.jsonl", "results/a100/table1/report.html", "results/repro/abc/run.json"]
    done = subprocess.run(["git", "check-ignore", *ignored], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("a copied tree has no git")
    assert done.stdout.splitlines() == ignored
    kept = ["results/paper/table1.csv", "results/a100/reference/table1/rows.jsonl", "results/a100/README.md"]
    assert subprocess.run(["git", "check-ignore", *kept], cwd=ROOT, capture_output=True).returncode == 1
