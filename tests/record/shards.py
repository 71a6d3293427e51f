"""Results folders of many rows, as shards of one sweep would leave them."""

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.case.columns import RECORDED
from bench.case.schema import SCHEMA
from bench.record.stats import summarize
from tests.synthetic import START, case

METHODS: tuple[dict[str, Any], ...] = (
    {"method": "full"},
    {"method": "full", "impl": "compile"},
    {"method": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0},
    {"method": "lora", "impl": "peft", "rank": 8, "alpha": 16.0, "dropout": 0.0},
    {"method": "paca", "rank": 8, "alpha": 16.0},
)
IN_TURNS, ALONE = ("eager", "host"), ("graph",)  # clocks
KEYS = [(p, c) for c in IN_TURNS for p in ("forward", "backward", "forward-backward")]
KEYS += [(p, c) for c in ALONE for p in ("forward", "backward")]
ENVIRONMENT = {
    "gpu": "Board 1", "gpu_key": "board-1", "sm_count": 100, "driver": "580.1", "source_hash": "00ff", "threads": None,
    "torch": "2.13.0", "triton": "3.7.1", "commit": "0123456789abcdef", "dirty": False, "python": "3.11.7",
}  # fmt: skip
SWEEP = {"name": "grid", "description": "a grid", "text": "description: a grid\n", "words": ["grid"]}
SAMPLES = 100


def shard(folder: Path, number: int, comparisons: int = 25) -> Path:
    """A folder of 40 rows for each comparison, eight for each of five cases: in turns under eager and host, alone under
    graph."""
    rng = np.random.default_rng(number)
    run_id = f"20260101T{number:06d}-abcdef"
    x = 2 * (1 + 0.01 * rng.standard_normal((20, SAMPLES)))
    series = [[round(float(v), 6) for v in one] for one in x]
    summaries = [asdict(summarize(one)) for one in series]
    rounds, rows, lines = [i // 5 for i in range(SAMPLES)], [], []
    for n in range(comparisons):
        cases = [case(seq=32 * (1 + number * comparisons + n), **more) for more in METHODS]
        for i, of in enumerate(cases):
            at = (START + timedelta(seconds=1000 * number + 10 * n + i)).isoformat(timespec="milliseconds")
            same = {"case_id": of.case_id, "run_id": run_id, "repeat": 0, "process": f"{1000 + i}-{at}"}
            base = dict.fromkeys(RECORDED) | same | of.axes()
            base |= {"gpu": "Board 1", "noisy": False, "status": "ok", "stop": "converged", "peak_mib": 123.5,
                     "trainable_params": 4096, "flops": 262144, "bytes": 16384, "floor_ms": 0.001, "launches": 3,
                     "sm_clock_mhz": 1755.0, "power_w": 412.5, "temperature_c": 55.0, "mem_clock_mhz": 2619.0,
                     "power_capped": 0.0, "dropped": 0, "model_dropout": 0.0, "measured_at": at,
                     "repro": f"python -m bench run grid --where case_id={of.case_id} --out results/repro"}  # fmt: skip
            for pass_, clock in KEYS:
                which = int(rng.integers(len(series)))
                key = {"pass": pass_, "clock": clock}
                row, line = base | key | summaries[which], same | key | {"samples_ms": series[which]}
                if clock in IN_TURNS:
                    ratios = [round(float(r), 7) for r in 1 + 0.01 * rng.standard_normal(20)]
                    row |= {"ratio": 1.0, "ratio_low": 0.99, "ratio_high": 1.01, "ratio_to": cases[0].case_id}
                    row |= {"rounds": 20, "beside": "comparison"}
                    line |= {"rounds": rounds, "turns": f"{at[:19]} {cases[0].case_id}"}
                    line |= {"ratio_to": cases[0].case_id, "ratios": ratios}
                rows.append(row)
                lines.append(line)
    folder.mkdir(parents=True)
    invocation = {"started": START.isoformat(), "finished": None, "command": "python -m bench run grid", "sweep": SWEEP}
    run = {"schema": SCHEMA, "run_id": run_id, **ENVIRONMENT, "gpu_uuid": f"GPU-{number}", "invocations": [invocation]}
    (folder / "run.json").write_text(json.dumps(run))
    for name, objects in (("rows.jsonl", rows), ("samples.jsonl", lines)):
        (folder / name).write_text("".join(json.dumps(o) + "\n" for o in objects))
    return folder
