"""A campaign as a person runs it, on the CPU."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.campaign.command import _run, _stop
from bench.campaign.stages import Stage
from bench.commands import precompile
from bench.sweeps.expand import make_plan
from bench.errors import UserError
from plots.data.load import load
from tests.conftest import ROOT, Bench, children_of, is_running, rows_of, wait_for
from tests.synthetic import row, write_run

MANY = """
description: four cases, long enough to be cut off
axes: {level: linear, layer: [square-32, square-48], batch: 1, seq: 16, precision: fp32}
methods:
  - {method: full}
  - {method: lora, rank: 4, alpha: 8}
measure: {min_samples: 500000, max_samples: 500000, budget_s: 1.0, wall_s: 1.2, warmup_s: 0.01, warmup_calls: 1}
"""


@pytest.mark.slow
def test_a_whole_campaign_on_the_cpu(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "cpu"
    flags = ("campaign", "--gpu", "cpu", "--stages", f"gpu-tests,precompile,tune,{sweep_file},report", "--out", out)
    done = bench(*flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out), "the folder alone, for scripts"
    assert len(rows_of(out / "small")) == 18 and (out / "small" / "report.html").is_file()
    told = json.loads((out / "campaign.json").read_text())["stages"]
    assert {n: p["status"] for n, p in told.items()} == {
        "gpu-tests": "skipped", "precompile": "skipped", "tune": "skipped", str(sweep_file): "done", "report": "done"
    }  # fmt: skip
    assert "CPU times are no GPU times" in done.stderr
    before = (out / "small" / "rows.jsonl").read_bytes()
    again = bench(*flags)
    assert again.returncode == 0 and "0 of 6 cases to measure" in again.stderr
    assert (out / "small" / "rows.jsonl").read_bytes() == before, "a finished campaign measures nothing again"


@pytest.mark.slow
def test_a_piece_ends_in_time_and_the_next_goes_on(bench: Bench, tmp_path: Path) -> None:
    """Pieces too short for the sweep, each twice as long as the last: whole rows at any time, and in the end all."""
    (tmp_path / "many.yaml").write_text(MANY)
    flags = ("campaign", "--gpu", "cpu", "--stages", f"{tmp_path / 'many.yaml'},report", "--out", tmp_path / "cpu")
    counts, piece = [], 4
    while (done := bench(*flags, "--piece", piece)).returncode == 3:
        counts.append(len(rows_of(tmp_path / "cpu" / "many")))
        assert "this piece is over" in done.stderr and "To go on: python -m bench campaign" in done.stderr
        piece *= 2
    assert done.returncode == 0, done.stderr
    keys = [(r["case_id"], r["pass"]) for r in rows_of(tmp_path / "cpu" / "many")]
    assert counts and counts == sorted(counts) and len(keys) == len(set(keys)) == 4 * 3, "nothing was measured twice"


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""


def test_a_stage_that_does_not_heed_is_ended_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", STUBBORN, str(note)], start_new_session=True)
    started = int(wait_for(lambda: note.exists() and note.read_text()))
    _stop(process, 0.1)
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not is_running(started))


def test_time_ends_a_stage_and_no_time_leaves_it_its_exit_status() -> None:
    assert _run(Stage("long", 1, ("sleep", "600")), 0.2, 60) is None
    assert _run(Stage("quick", 1, ("sh", "-c", "exit 5")), 600, 60) == 5


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_campaign_takes_its_stage_along(how: signal.Signals, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(MANY)
    out = tmp_path / "cpu"
    running = bench.start("campaign", "--gpu", "cpu", "--stages", tmp_path / "many.yaml", "--out", out)
    stages = wait_for(lambda: rows_of(out / "many") and descendants(running.pid))
    children = [c for s in stages for c in children_of(s)]
    running.send_signal(how)
    _, said = running.communicate(timeout=60)
    if how is not signal.SIGKILL:
        assert running.returncode == 128 + how and "To go on: python -m bench campaign" in said
    wait_for(lambda: not any(is_running(p) for p in (*stages, *children)))
    assert bench("campaign", "--gpu", "cpu", "--stages", tmp_path / "many.yaml", "--out", out).returncode == 0
    assert len(rows_of(out / "many")) == 4 * 3


def descendants(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_cannot_be_carried_out_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for flags, word in (
        (("--stages", "no-such"), "no stage"), (("--piece", "soon"), "duration"), (("--gpu", "h100"), "not on this"),
    ):  # fmt: skip
        done = bench("campaign", "--out", out, *flags, env=bench.env | {"CUDA_VISIBLE_DEVICES": ""})
        assert done.returncode == 2 and done.stderr.startswith("error: ") and word in done.stderr
    assert not out.exists()


def test_make_campaign_is_the_command() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # these tests' own make
    command = ["make", "-n", "campaign", "GPU=h100", "PYTHON=python3"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
    assert done.stdout.decode().strip() == "python3 -m bench campaign --gpu h100"


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
    assert load(published).samples_ms == load(run).samples_ms != {}
    (published / "samples.jsonl.gz").write_bytes(packed[:100])
    with pytest.raises(UserError, match=r"samples\.jsonl\.gz"):
        load(published)


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


def test_precompiling_launches_each_layer_of_the_sweeps_once(tmp_path: Path) -> None:
    """Of whole models and of single layers; on the CPU the same calls take the reference."""
    (tmp_path / "s.yaml").write_text("""
description: a model and layers
axes: {batch: 1, seq: 16, precision: fp32}
methods:
  - {method: full, level: model, model: tinyllama}
  - {method: lora, impl: triton, rank: 4, alpha: 8, dropout: 0.1, level: model, model: [tinyllama, gpt2-medium]}
  - {method: paca, impl: triton, rank: 4, alpha: 8, level: linear, layer: [square-64, square-96]}
""")
    layers = precompile.layers_of(make_plan(str(tmp_path / "s.yaml"), on_cpu=False).cases)
    found = [(c.method, c.model, c.layer) for c in layers]
    assert len(found) == len(set(found)) and ("paca", None, "square-64") in found
    ours = {layer for method, model, layer in found if (method, model) == ("lora", "tinyllama")}
    assert {"self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj", "mlp.down_proj"} <= ours
    assert "self_attn.o_proj" not in ours, "of q_proj's shape"
    assert {layer for method, model, layer in found if model == "gpt2-medium"} == {
        "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"
    }  # fmt: skip
    assert [precompile.launch(c, "cpu") for c in layers if c.layer == "square-64"] == [None]
    assert "square-64" in (precompile.launch(layers[-2], "nowhere") or "")


@pytest.mark.slow
def test_precompiling_in_processes(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("""
description: three layers
axes: {level: linear, layer: [square-32, square-64, square-96], batch: 1, seq: 16, precision: fp32}
methods: [{method: lora, impl: triton, rank: 4, alpha: 8}]
""")
    code = f"import sys; from bench.commands.precompile import main; sys.exit(main(['{tmp_path / 's.yaml'}'], 'cpu'))"
    (tmp_path / "m.py").write_text(f"if __name__ == '__main__':\n    {code}\n")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, tmp_path / "m.py"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 layers in ") and "; 0 failed" in done.stdout
