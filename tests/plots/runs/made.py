"""Folders as `bench train` and `bench evaluate` write them, with steps and accuracies that are chosen."""

import json
from pathlib import Path
from typing import Any

import numpy as np

STEP = {"device": "cuda", "gpu": "NVIDIA A100", "batch": 8, "accumulation": 4, "length": 512, "precision": "amp-fp16"}
SHARES = {"humanities": 40.0, "stem": 30.0, "social sciences": 50.0, "other": 45.0}


def made(
    folder: Path,
    method: str,
    step_s: float = 0.0,
    average: float | None = None,
    *,
    steps: int = 60,
    error: float = 0.4,
    seed: int = 0,
    **told: Any,
) -> Path:
    """A run whose steps take `step_s` seconds, give or take 2 %, but for a first one of ten times that; untrained
    without. Its strategy is the folder's name."""
    folder.mkdir(parents=True)
    run: dict[str, Any] = {"strategy": folder.name, "method": method, "trainable_layers": "all", "model": "a/llama-x"}
    if step_s:
        took = step_s * np.random.default_rng(seed).normal(1, 0.02, steps)
        took[0] = 10 * step_s
        clock = np.cumsum(took)
        lines = [
            {"step": i + 1, "loss": 3.0 / (i + 1), "step_s": took[i], "elapsed_s": round(clock[i], 3)}
            for i in range(steps)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run |= STEP | {"world_size": 1, "steps": steps, "examples": 32 * steps, "wall_s": round(clock[-1], 3)}
        run |= {"final_loss": 0.05, "tokens_per_s": 1234.5, "peak_mib": 2048.0, "peak_of": "of the GPU"}
    (folder / "train.json").write_text(json.dumps(run | told))
    if average is not None:
        errors = {**dict.fromkeys(SHARES, 1.25), "average": error}
        found = {"average": average, "categories": SHARES, "stderr": errors, "items": 200, "shots": 5, "by": "lm-eval"}
        found |= {"strategy": folder.name, "model": (run | told)["model"]}
        (folder / "accuracy.json").write_text(json.dumps(found))
    return folder


def five(runs: Path) -> Path:
    """Five strategies: 'half' is the fastest, 'paca' the most accurate, 'lora' slower than it and as accurate."""
    made(runs / "no-tuning", "none", 0.0, 45.0)
    made(runs / "lora", "lora", 1.0, 51.9, seed=1)
    made(runs / "paca", "paca", 0.8, 52.0, seed=2)
    made(runs / "half", "paca", 0.6, 47.0, seed=3, trainable_layers="upper-1/2")
    made(runs / "full", "full", 1.5, 44.0, seed=4)
    return runs
