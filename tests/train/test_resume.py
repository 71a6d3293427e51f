"""Runs that are cut off, and runs of several processes: the same numbers as without. Each test starts processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import ROOT, Bench, wait_for
from tests.train.conftest import curve_of, metrics_of

pytestmark = pytest.mark.slow

Checkpoint = Callable[[str], Path]
StrategyFile = Callable[..., str]


def lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def kill(process: subprocess.Popen[str]) -> None:
    """The whole of it, torchrun's workers too, and with no time to tidy up."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def start(bench: Bench, arguments: list[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        bench.command(*arguments), cwd=ROOT, env=bench.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip


def saved(out: Path) -> dict[str, torch.Tensor]:
    return next(load_file(p) for p in (out / "model").glob("*.safetensors"))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("name", "kind", "every"),
    [
        ("lora", "llama", 4),  # 10 steps an epoch: goes on within one
        ("paca", "gpt2", 5),  # goes on between two epochs
        ("lora-fa", "llama", 4),
        ("qlora", "llama", 4),
        ("lisa", "gpt2", 4),  # blocks change every 3 steps: within a checkpoint's, at its end, and after it
    ],
)
def test_killed_and_resumed_equals_uninterrupted(
    name: str, kind: str, every: int, bench: Bench, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile,
    tmp_path: Path,
) -> None:  # fmt: skip
    strategy = strategy_file(name, accumulation=1, epochs=4, **({"lisa_every": 3} if name == "lisa" else {}))
    arguments = ["train", "--strategy", strategy, "--model", checkpoint(kind), "--data", few]
    arguments += ["--checkpoint-every", every, "--out"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(bench, [*arguments, cut])
    wait_for(lambda: lines(cut) > 3 * every or process.poll() is not None)
    kill(process)
    assert not (cut / "train.json").exists(), "it was to be killed before its end"
    complete = [p.parent for p in cut.glob("checkpoints/checkpoint-*/complete.json")]
    newest = max(complete, key=lambda p: int(p.name.rpartition("-")[2]))
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:-100])  # as a power cut would
    with open(cut / "metrics.jsonl", "a") as f:
        f.write('{"step": 99, "lo')
    held = load_file(newest / "trained.safetensors")
    assert any(".lora_A." in key for key in held) == (name in ("lora", "dora", "lora-fa", "qlora")), "what was drawn"
    done = bench(*arguments, cut)
    assert done.returncode == 0, done.stderr
    assert f"{newest.name}: torn; dropped" in done.stderr and "going on after step" in done.stderr
    assert bench(*arguments, whole).returncode == 0
    assert curve_of(cut) == curve_of(whole) and len(curve_of(whole)) == 40
    assert equal(saved(cut), saved(whole))
    for out in (cut, whole):
        events = EventAccumulator(str(out / "tensorboard")).Reload()
        for tag in ("loss", "tokens_per_s", "peak_mib"):
            assert [e.step for e in events.Scalars(f"train/{tag}")] == list(range(1, 41)), (out, tag)
        assert [m["tokens"] for m in metrics_of(cut)] == [m["tokens"] for m in metrics_of(whole)]
    told = [json.loads((out / "train.json").read_text()) for out in (cut, whole)]
    assert told[0]["final_loss"] == told[1]["final_loss"] and told[0]["tokens"] == told[1]["tokens"]
    elapsed = [m["elapsed_s"] for m in metrics_of(cut)]
    assert elapsed == sorted(elapsed) and elapsed[-1] <= told[0]["wall_s"], "one clock over both parts"


def test_a_run_killed_before_its_first_checkpoint_has_no_line_twice(
    bench: Bench, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["train", "--strategy", strategy_file("full", accumulation=1), "--model", checkpoint("gpt2")]
    arguments += ["--data", few, "--out", out]
    process = start(bench, arguments)
    wait_for(lambda: lines(out) > 3 or process.poll() is not None)
    kill(process)
    assert not (out / "train.json").exists() and not list(out.glob("checkpoints/*")), "it was to be killed early"
    assert bench(*arguments).returncode == 0
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 21)) == [m["step"] for m in metrics_of(out)]


def test_ctrl_c_says_how_to_go_on(
    bench: Bench, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    strategy = strategy_file("paca", epochs=200)
    arguments = ["train", "--strategy", strategy, "--model", checkpoint("llama"), "--data", few, "--out", out]
    process = bench.start(*arguments)
    wait_for(lambda: lines(out) >= 2 or process.poll() is not None)
    second = bench(*arguments)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "To go on from the last checkpoint: python -m bench train" in errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("interrupted. To go on"), "on a line of its own, and nothing below it"
    assert second.returncode == 2 and "another process is training into it" in second.stderr


class Torchrun(Bench):
    """`torchrun --nproc-per-node 2 -m bench`, on the CPU."""

    def command(self, *arguments: object) -> list[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        return [*launcher, "-m", "bench", *map(str, arguments)]


@pytest.mark.parametrize(("name", "kind"), [("lora", "gpt2"), ("upper-half-paca", "llama")])
def test_two_processes_equal_one_at_twice_the_batch(
    name: str, kind: str, bench: Bench, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    two = Torchrun(tmp_path)
    arguments = ["train", "--model", checkpoint(kind), "--data", few, "--epochs", 1]
    # AdamW divides by the root of a gradient's square: where a gradient is nearly zero, its rounding decides the sign
    # of a step. A few small steps keep that from growing.
    changes = {"accumulation": 2, "learning_rate": 1e-3} | ({"dropout": 0.0} if name == "lora" else {})
    one_out, two_out = tmp_path / "one", tmp_path / "two"
    assert bench(*arguments, "--strategy", strategy_file(name, batch=16, **changes), "--out", one_out).returncode == 0
    done = two(*arguments, "--strategy", strategy_file(name, batch=8, **changes), "--out", two_out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(two_out)], "process 0 alone prints"
    assert json.loads((two_out / "train.json").read_text())["world_size"] == 2
    one_curve, two_curve = curve_of(one_out), curve_of(two_out)
    assert [c[0] for c in one_curve] == [c[0] for c in two_curve] == list(range(1, 6))
    assert [c[1] for c in one_curve] == pytest.approx([c[1] for c in two_curve], rel=2e-6)
    one_values, two_values = saved(one_out), saved(two_out)
    assert one_values.keys() == two_values.keys()
    for key, value in one_values.items():
        torch.testing.assert_close(two_values[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_two_processes_killed_and_resumed_equal_two_uninterrupted(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    two = Torchrun(tmp_path)
    strategy = strategy_file("lora", accumulation=1, batch=8, epochs=4)
    arguments = ["train", "--strategy", strategy, "--model", checkpoint("llama"), "--data", few]
    arguments += ["--checkpoint-every", 4, "--out"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(two, [*arguments, cut])
    wait_for(lambda: lines(cut) >= 13 or process.poll() is not None)
    kill(process)
    assert not (cut / "train.json").exists()
    done = two(*arguments, cut)
    assert done.returncode == 0, done.stderr
    assert two(*arguments, whole).returncode == 0
    assert curve_of(cut) == curve_of(whole) and equal(saved(cut), saved(whole))
