"""What a run tells while it trains: metrics.jsonl, a bar with the time to go, and the wall clock of the paper."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback

from bench.errors import UserError
from bench.files import append_json_lines, replace_file
from bench.reading import Count, Number, Object, number, read_json_lines, shape_of


class Stopwatch:
    """Seconds of training, summed over the parts of a run that was cut off; what was trained and lost counts once."""

    def __init__(self, before_s: float) -> None:
        self._before = self._lap = before_s
        self._started: float | None = None

    def start(self) -> None:
        self._started = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call, or since the start."""
        before, self._lap = self._lap, self.elapsed_s
        return self._lap - before

    @property
    def elapsed_s(self) -> float:
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)


def training_time(seconds: float) -> str:
    """H:MM:SS.ss, as the paper's Table 2 has it: 26221.79 is 7:17:01.79."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 100:02}.{rest % 100:02}"


PEAK_OF_GPU, PEAK_OF_PROCESS = "allocated by torch on the GPU", "resident set of the process"


def peak_mib(on_cpu: bool) -> float | None:
    """Peak memory in MiB: on a GPU what torch allocated there since training began, on the CPU the resident set of this
    process since it began; None where the system does not tell."""
    if not on_cpu:
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


_AMOUNT: Any = number(0, 1e12)
_LINE = shape_of(
    {"step": Count, "loss": Number, "tokens": Count, "peak_mib": _AMOUNT, "learning_rate": _AMOUNT}, ("step", "loss")
)


def read_metrics(path: Path) -> list[Object]:
    """The lines of a metrics.jsonl, without a torn last one; none where there is no file. Raises UserError."""
    return read_json_lines(path, _LINE)[0]


class Metrics(TrainerCallback):
    """One line of metrics.jsonl for each optimizer step.

    step, epoch, loss (mean over the step's loss tokens, of all processes), learning_rate, grad_norm (null where fp16
    overflowed and the step was skipped), elapsed_s (training so far); and as PartTrainer logs them: step_s, tokens,
    tokens_per_s, examples_per_s (all processes; of this step), peak_mib (of process 0, so far).
    """

    def __init__(self, path: Path, watch: Stopwatch, examples: int, per_step: int, resumed_step: int) -> None:
        self._path, self._watch, self._resumed = path, watch, resumed_step
        self._examples, self._per_step = examples, per_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._watch.lap()
        if state.is_world_process_zero:
            kept = [m for m in read_metrics(self._path) if m["step"] <= self._resumed]
            replace_file(self._path, "".join(json.dumps(m) + "\n" for m in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"the loss is {logs['loss']} after step {state.global_step}: lower learning_rate, or pass"
                " --precision amp-bf16 where it was amp-fp16, with --fresh"
            )
        if state.is_world_process_zero:
            before = (state.global_step - 1) % -(-self._examples // self._per_step) * self._per_step
            examples = min(self._per_step, self._examples - before)  # the last step of an epoch may have fewer
            line = {
                "step": state.global_step,
                "epoch": logs.get("epoch"),
                "loss": logs["loss"],
                "learning_rate": logs.get("learning_rate"),
                "grad_norm": norm if math.isfinite(norm := logs.get("grad_norm", math.nan)) else None,
                **{key: logs.get(key) for key in ("step_s", "tokens", "tokens_per_s")},
                "examples_per_s": examples / seconds if (seconds := logs.get("step_s")) else None,
                "peak_mib": logs.get("peak_mib"),
                "elapsed_s": round(self._watch.elapsed_s, 3),
            }
            append_json_lines(self._path, [line])


class Bar(TrainerCallback):
    """A bar on standard error: steps, time to go, loss. Whoever made it closes it."""

    _bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        live = sys.stderr.isatty()
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            disable=not state.is_world_process_zero,
            dynamic_ncols=live,
            mininterval=0.1 if live else 30,  # a log file wants few lines
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def close(self) -> None:
        """Draws it for the last time, so that what is said next stands below it."""
        if self._bar is not None:
            self._bar.close()
