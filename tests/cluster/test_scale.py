"""Ten thousand cases into a hundred shards, in a process of its own: how long it takes, and how much memory. And a look
at a thousand shards of them."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from bench.cluster.backend import Options
from bench.cluster.layout import Layout
from bench.cluster.show import total_line
from bench.cluster.submissions import ShardJobs, Submission
from bench.cluster.watch import Watch
from bench.record.read import ROWS
from bench.sweeps.expand import make_plan
from tests.cluster.made import Queue, running

CASES, SHARDS = 10_000, 100
SWEEP = """
description: five models at 250 sizes under eight ways to train
axes:
  level: model
  model: [gpt2-medium, gpt2-xl, tinyllama, llama2-7b, mistral-7b]
  precision: bf16
  batch: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  seq: [%s]
methods:
  - {method: full}
  - {method: lora, impl: [eager, peft, triton], rank: [4, 8], alpha: 16}
  - {method: paca, impl: eager, rank: 16, alpha: 32}
clocks: [eager, graph]
"""


@pytest.mark.benchmark
def test_ten_thousand_cases_become_a_hundred_shards(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(SWEEP % ", ".join(str(40 * i) for i in range(1, 26)))
    found: dict[str, Any] = {}

    def run() -> None:
        script = "import sys; from tests.cluster.test_scale import main; main(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        found.update(json.loads(done.stdout))

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= found
    print("\n{tasks:,} cases into {shards} shards: {seconds:.1f} s, {mib:.0f} MiB at most".format(**found))
    assert (found["cases"], found["tasks"], found["shards"]) == (CASES, CASES, SHARDS)


@pytest.mark.benchmark
def test_a_look_at_a_thousand_shards(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(SWEEP % ", ".join(str(40 * i) for i in range(1, 26)))
    plan, layout, shards = make_plan(str(path), on_cpu=False), Layout(tmp_path), []
    name = layout.write_plan(1, plan)
    for i in range(1000):
        part = plan.cases[i::1000]
        layout.write_assignment(i, name, [(0, c) for c in part], gpu="h100", command="", again="")
        keys = [{"case_id": c.case_id, "pass": p, "clock": k} for c in part for p, k in plan.row_keys]
        lines = (json.dumps(key | {"repeat": 0, "status": "ok"}) for key in keys)
        (layout.claim(i) / ROWS).write_text("".join(f"{line}\n" for line in lines))
        shards.append(ShardJobs(i, len(part), 60.0, None, [f"7_{i}"]))
    submission = Submission(name, "slurm", "", "", "login", "ann", "h100", 1, False, {}, {}, shards)
    queue = Queue(**{f"7_{i}": running(f"n{i}") for i in range(1000)})
    began = perf_counter()
    watch = Watch(layout, [submission], queue, Options(), print)
    watch.look()
    first = perf_counter() - began
    benchmark.pedantic(watch.look, rounds=3)
    print(f"\na look at 1000 shards: {first:.1f} s the first, then {benchmark.stats.stats.median:.2f} s")
    assert total_line(watch) == "10000 of 10000 cases; shards: 1000 done"


def main(path: str) -> None:
    """Splits a sweep for a GPU that is not here, and prints counts, seconds and MiB as JSON."""
    began = perf_counter()
    from bench.cluster.estimate import prices
    from bench.cluster.split import split
    from bench.devices import choose_any
    from bench.sweeps.expand import make_plan

    plan = make_plan(path, on_cpu=False)
    shards = split([(0, c) for c in plan.cases], SHARDS, prices(plan, choose_any("h100", [])).seconds)
    counts = {"cases": len(plan.cases), "tasks": sum(map(len, shards)), "shards": len(shards)}
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(counts | {"seconds": perf_counter() - began, "mib": mib}))
