"""Rows of a finished case: what the child found, in the columns of the record."""

import shlex
from dataclasses import asdict
from typing import Any

from bench.case import Case
from bench.measure.stop import estimate
from bench.run.record import Row, now
from bench.sweep import Plan
from bench.words import COLUMNS, Status


class RowMaker:
    """Makes the rows of one run; everything they share is here."""

    def __init__(self, plan: Plan, run_id: str, gpu: str, gpu_key: str) -> None:
        self._plan = plan
        self._run_id = run_id
        self._gpu = gpu
        self._gpu_key = gpu_key

    def _base(self, case: Case, repeat: int, process: str | None) -> Row:
        return dict.fromkeys(COLUMNS) | {
            "case_id": case.case_id,
            "run_id": self._run_id,
            "repeat": repeat,
            "gpu": self._gpu,
            **case.axes(),
            "trainable_params": case.trainable_params,
            "process": process,
            "measured_at": now(),
            "repro": self._repro(case),
        }

    def _repro(self, case: Case) -> str:
        """A command that measures this case again, in a folder of its own."""
        words = ["run", self._plan.sweep, "--gpu", self._gpu_key, "--where", f"case_id={case.case_id}", "--out"]
        return shlex.join(["python", "-m", "bench", *words, f"results/repro/{case.case_id}"])

    def measured(self, case: Case, repeat: int, process: str, event: dict[str, Any]) -> tuple[list[Row], list[Row]]:
        """(rows, sample lines) of a case that was measured."""
        base = self._base(case, repeat, process)
        rows, samples = [], []
        for series in event["series"]:
            e = estimate(series["samples_ms"])
            key = {"pass": series["pass"], "clock": series["clock"]}
            rows.append(
                base
                | key
                | {k: _to_ns(v) for k, v in asdict(e).items()}
                | {
                    "stop": series["stop"],
                    "noisy": e.half_width > self._plan.settings.noisy,
                    "status": Status.ok,
                    "peak_mib": event["peak_mib"],
                    "model_dropout": event["model_dropout"],
                    "refresh_ms": _to_ns(event["refresh_ms"]),
                }
            )
            same = {k: base[k] for k in ("case_id", "run_id", "repeat", "process")}
            samples.append(same | key | {"samples_ms": [_to_ns(x) for x in series["samples_ms"]]})
        return rows, samples

    def failed(self, case: Case, repeat: int, process: str | None, status: Status, detail: str) -> list[Row]:
        """The rows of a case that left no numbers: one for each that was wanted."""
        base = self._base(case, repeat, process)
        return [base | {"pass": p, "clock": c, "status": status, "detail": detail} for p, c in self._plan.row_keys]


def _to_ns(ms: float | None) -> float | None:
    """Milliseconds to the nanosecond; no clock here resolves more, and the record stays readable."""
    return None if ms is None else round(ms, 6)


def need_text(case: Case) -> str:
    """What a case needs at least: weights and gradients, by closed form. Activations come on top."""
    width = {"bf16": 2, "fp16": 2}.get(case.precision, 4)
    shape = case.shape
    if case.level == "linear":
        weights = case.projection.params
    else:
        assert shape is not None
        weights = shape.block_params if case.level == "block" else shape.num_params
    adapter = {"bf16": 2, "fp16": 2, "fp32": 4, None: width}[case.adapter_dtype]
    extra = case.trainable_params * adapter * (1 if case.method == "full" else 2)
    mib = (weights * width + extra) / 2**20
    return f"{mib:.3g} MiB" if mib < 1000 else f"{mib / 1024:.3g} GiB"
