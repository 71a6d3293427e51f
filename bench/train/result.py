"""train.json: that a run is finished, and what it was."""

import json
import platform
from typing import Any

from bench.files import replace_file
from bench.record.environment import version
from bench.train.folder import RESULT
from bench.train.plan import Plan, absolute

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "triton")


def write_result(plan: Plan, told: dict[str, Any]) -> None:
    """train.json: the run is finished, and this is what it was. wall_s is null where nothing was trained."""
    strategy = plan.strategy
    result = {
        "strategy": plan.name,
        "method": strategy.method,
        "trainable_layers": strategy.trainable_layers if strategy.method != "none" else "none",
        "rank": strategy.rank,
        "alpha": strategy.alpha,
        "model": plan.request.model,
        "model_path": absolute(plan.request.model),
        "data": plan.request.data,
        "examples": len(plan.items),
        "steps": 0,
        "epochs": strategy.epochs,
        "batch": strategy.batch,
        "accumulation": strategy.accumulation,
        "length": strategy.length,
        "learning_rate": strategy.learning_rate,
        "wall_s": None,
        "training_time": None,
        "final_loss": None,
        "device": "cpu" if plan.on_cpu else "cuda",
        "gpu": None,
        "precision": strategy.precision,
        "impl": plan.impl,
        "world_size": plan.world_size,
        "trainable_params": 0,
        "seed": plan.request.seed,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
    }
    replace_file(plan.request.out / RESULT, json.dumps({**result, **told}, indent=1) + "\n")
