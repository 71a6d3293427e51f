"""train.json: that a run is finished, and what it was."""

import json
import platform
from pathlib import Path
from typing import Any

from pydantic import StrictStr

from bench.files import replace_file
from bench.reading import Count, Number, Object, Text, read_object, shape_of
from bench.record.environment import version
from bench.train.folder import RESULT
from bench.train.plan import Plan, absolute
from bench.train.strategy import Trained

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "triton")

_FIELDS: dict[str, Any] = {
    "method": Trained,
    **dict.fromkeys(("model", "model_path", "data"), StrictStr),  # as they are: they name files
    **dict.fromkeys(
        ("strategy", "precision", "trainable_layers", "training_time", "device", "gpu", "impl", "peak_of"), Text
    ),
    **dict.fromkeys(("rank", "examples", "steps", "epochs", "batch", "accumulation", "length", "world_size"), Count),
    **dict.fromkeys(("warmup_steps", "seed", "tokens"), Count),
    **dict.fromkeys(("alpha", "learning_rate", "wall_s", "final_loss", "tokens_per_s", "peak_mib"), Number),
    **dict.fromkeys(("scaling", "optimizer", "gradient_checkpointing"), Text),  # null for the usual word
    "versions": dict[Text, Text | None],
}
_SHAPE = shape_of(_FIELDS, ("strategy", "method", "model", "model_path", "precision"))


def read_result(folder: Path) -> Object:
    """train.json of a folder that bench train wrote. Raises UserError where the file is damaged."""
    return read_object(folder / RESULT, _SHAPE, "Copy the folder again, or train anew with --fresh.")


def write_result(plan: Plan, told: dict[str, Any]) -> None:
    """train.json: the run is finished, and this is what it was. wall_s is null where nothing was trained."""
    strategy = plan.strategy
    result = {
        "strategy": plan.name,
        "method": strategy.method,
        "trainable_layers": strategy.trainable_layers if strategy.method != "none" else "none",
        "rank": strategy.rank,
        "alpha": strategy.alpha,
        **{
            key: None if word == usual else word
            for key, word, usual in (
                ("scaling", strategy.scaling, "standard"),
                ("optimizer", strategy.optimizer, "adamw"),
                ("gradient_checkpointing", strategy.checkpointing, "none"),
            )
        },
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
        "warmup_steps": strategy.warmup_steps,
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
