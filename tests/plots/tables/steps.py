"""Steps of Table 2's strategies with known times."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.plots.reading import lines_of

TIME = "Training time, one epoch"
# (method, layers) -> rank, forward and backward of a micro-step, optimizer, refresh, in ms
STEPS: dict[tuple[str, str], tuple[int, float, float, float, float]] = {
    ("lora", "all"): (8, 400.0, 500.0, 9.0, 0.0),
    ("lora", "upper-3/4"): (8, 380.0, 380.0, 8.0, 0.0),
    ("lora", "upper-1/2"): (8, 360.0, 260.0, 7.0, 0.0),
    ("paca", "all"): (16, 300.0, 420.0, 9.0, 1.0),
    ("paca", "upper-3/4"): (24, 300.0, 320.0, 9.0, 1.0),
    ("paca", "upper-1/2"): (32, 300.0, 220.0, 9.0, 1.0),
}


def whole(parts: tuple[int, float, float, float, float]) -> float:
    _, forward, backward, optimizer, refresh = parts
    return 4 * (forward + backward) + optimizer + refresh


def fill_steps(maker: Any, make_case: Callable[..., Any], clock: str = "eager", **axes: Any) -> None:
    axes = {"model": "llama2-7b", "batch": 8, "accumulation": 4, "impl": "eager"} | axes
    impl = axes.pop("impl")
    for (method, layers), parts in STEPS.items():
        case = make_case(method, impl, trainable_layers=layers, rank=parts[0], **axes)
        _, forward, backward, optimizer, refresh = parts
        truth = {"forward": forward, "backward": backward, "forward-backward": forward + backward, "step": whole(parts)}
        step = {"optimizer_ms": optimizer, "parts_ms": 1.02 * whole(parts), "peak_mib": 30000.0}
        extra = {name: {p: v if p == "step" else None for p in truth} for name, v in step.items()}
        extra["refresh_ms"] = dict.fromkeys(truth, refresh or None)
        maker.timed(case, truth, clock=clock, noise=0.0005, **extra)


def tidy2(folder: Path, **wanted: str) -> list[dict[str, str]]:
    return lines_of(folder / "table2.csv", **wanted)
