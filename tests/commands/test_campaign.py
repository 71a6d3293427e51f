"""A campaign as a person runs it, on the CPU, through real processes."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.runner.signals import run_command
from bench.terminal import seconds_of
from tests.conftest import ROOT, Bench, Cli, children_of, is_running, rows_of, wait_for

QUICK = """
description: one case
axes: {level: linear, layer: square-48, batch: 1, seq: 16, precision: fp32}
methods: [{method: full}]
measure: {min_samples: 8, budget_s: 0.05, wall_s: 1, warmup_s: 0.01, warmup_calls: 1}
"""
MANY = """
description: four cases, long enough to be cut off
axes: {level: linear, layer: [square-32, square-48], batch: 1, seq: 16, precision: fp32}
methods:
  - {method: full}
  - {method: lora, rank: 4, alpha: 8}
measure: {min_samples: 500000, max_samples: 500000, budget_s: 1.0, wall_s: 1.2, warmup_s: 0.01, warmup_calls: 1}
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    (tmp_path / "quick.yaml").write_text(QUICK)
    return tmp_path / "quick.yaml"


def told_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "campaign.json").read_text())["stages"]


@pytest.mark.slow
def test_a_whole_campaign_on_the_cpu(bench: Bench, quick: Path, tmp_path: Path) -> None:
    out, save = tmp_path / "cpu", tmp_path / "saved"
    stages = f"gpu-tests,precompile,tune,{quick},report"
    flags = ("campaign", "--gpu", "cpu", "--stages", stages, "--out", out, "--save", save)
    done = bench(*flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out), "the folder alone, for scripts"
    assert len(rows_of(out / "quick")) == 3 * 2 and (out / "quick" / "report.html").is_file()
    assert {n: p["status"] for n, p in told_of(out).items()} == {
        "gpu-tests": "skipped", "precompile": "skipped", "tune": "skipped", str(quick): "done", "report": "done"
    }  # fmt: skip
    assert "CPU times are no GPU times" in done.stderr
    assert any(line.split()[:2] == ["tune", "skipped"] for line in done.stderr.splitlines())
    with tarfile.open(save / "cpu.tar.gz") as tar:
        packed = tar.extractfile("cpu/quick/rows.jsonl")
        assert packed and packed.read() == (out / "quick" / "rows.jsonl").read_bytes()
    assert [p.name for p in save.iterdir()] == ["cpu.tar.gz"], "no draft is left"
    again = bench(*flags)
    assert again.returncode == 0 and f"== {quick}" not in again.stderr, "a finished stage is not started again"
    record = json.loads((out / "campaign.json").read_text())
    record["environment"]["torch"] = "0"
    (out / "campaign.json").write_text(json.dumps(record))
    other = bench(*flags)
    assert other.returncode == 0 and "all 1 cases are measured" in other.stderr, "asked anew, and the rows stay"


@pytest.mark.slow
def test_time_ends_it_in_order_and_the_same_command_goes_on(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(MANY)
    out = tmp_path / "cpu"
    flags = ("campaign", "--gpu", "cpu", "--stages", f"{tmp_path / 'many.yaml'},report", "--out", out)
    seconds, counts = 5, []
    while (done := bench(*flags, *["--fresh"] * (not counts), "--time", seconds)).returncode:
        assert done.returncode == 3, done.stderr
        counts.append(len(rows_of(out / "many")))
        assert "the time is over; open: " in done.stderr
        assert done.stderr.splitlines()[-1].endswith(f"--out {out} --time {seconds}"), "and without --fresh"
        seconds *= 2
    keys = [(r["case_id"], r["pass"], r["clock"]) for r in rows_of(out / "many")]
    assert counts and counts == sorted(counts) and len(keys) == len(set(keys)) == 4 * 3 * 2, (
        "nothing was measured twice"
    )


@pytest.mark.slow
def test_a_failed_stage_does_not_stop_the_rest_and_is_tried_again(bench: Bench, quick: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("description: not a sweep\n")
    out = tmp_path / "cpu"
    flags = ("campaign", "--gpu", "cpu", "--stages", f"{bad},{quick}", "--out", out)
    done = bench(*flags)
    assert done.returncode == 1 and len(rows_of(out / "quick")) == 3 * 2
    assert told_of(out)[str(bad)]["detail"] == "exit status 2" and told_of(out)[str(quick)]["status"] == "done"
    bad.write_text(QUICK)
    done = bench(*flags)
    assert done.returncode == 0 and f"== {bad}" in done.stderr and f"== {quick}" not in done.stderr


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
    assert len(rows_of(out / "many")) == 4 * 3 * 2


def descendants(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""


def test_a_command_that_does_not_heed_is_ended_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    ticks = []

    def meanwhile() -> None:
        ticks.append(note.exists() and note.read_text())

    command = [sys.executable, "-c", STUBBORN, str(note)]
    assert run_command(command, ROOT, seconds=3, shutdown_s=0.1, meanwhile=meanwhile, every_s=0.2) is None
    wait_for(lambda: not is_running(int(note.read_text())))
    assert len(ticks) > 2


def test_an_interrupted_command_is_interrupted_even_where_that_was_ignored(tmp_path: Path) -> None:
    """As under nohup, where started processes would not heed SIGINT."""
    code = "import time\ntry:\n time.sleep(600)\nexcept KeyboardInterrupt:\n open('closed', 'w')"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_command([sys.executable, "-c", code], ROOT, seconds=2, cwd=tmp_path) is None
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "closed").exists()
    assert run_command(["sh", "-c", "exit 5"], ROOT, seconds=600) == 5


def test_what_cannot_be_carried_out_changes_nothing(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = tmp_path / "out"
    for flags, word in (
        (("--stages", "no-such"), "no stage"), (("--time", "soon"), "duration"), (("--gpu", "h100"), "not on this"),
        (("--save", out / "saved"), "outside of"), (("--save", "/dev/null/x"), "--save /dev/null/x: /dev/null is no"),
        (("--time", "1e300h"), "duration"), (("--stages", "table1,nope"), "no stage 'nope'"),
    ):  # fmt: skip
        done = cli("campaign", "--out", out, *flags)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and word in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"environment": 3}', "[" * 100_000])
def test_a_damaged_record_is_named(cli: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "campaign.json").write_text(text)
    done = cli("campaign", "--gpu", "cpu", "--out", tmp_path, "--stages", "report")
    assert done.returncode == 2 and "campaign.json: " in done.stderr
    assert "It is not the record of a campaign." in done.stderr


@pytest.mark.parametrize(("text", "seconds"), [("18m", 1080), ("540", 540), ("90s", 90), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of("--time", text) == seconds


@pytest.mark.parametrize("text", ["", "0", "9 minutes", "-9m", "m"])
def test_bad_durations_are_named(text: str) -> None:
    with pytest.raises(UserError, match=r"--time: .* is no duration\. Write it as "):
        seconds_of("--time", text)


@pytest.mark.parametrize("text", ["1000001", "278h", "9" * 400, "9" * 5000 + "h"])
def test_durations_that_nobody_waits_for_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--time: .* s\. At most 1,000,000 s, which is 277h\.$") as error:
        seconds_of("--time", text)
    assert len(str(error.value)) < 1000


def test_make_campaign_is_the_command() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # these tests' own make
    command = ["make", "-n", "campaign", "GPU=h100", "PYTHON=python3"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
    assert done.stdout.decode().strip() == "python3 -m bench campaign --gpu h100"
