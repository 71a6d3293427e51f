"""Ten thousand cases into a hundred shards, in a process of its own: how long it takes, and how much memory."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

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
