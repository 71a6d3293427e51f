"""Results folders as a run would leave them, with times from a random series instead of a clock."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.case import Case
from bench.case.columns import COLUMNS
from bench.case.schema import SCHEMA
from bench.record.stats import summarize

Array = NDArray[np.float64]
START = datetime(2026, 1, 1, tzinfo=UTC)


def case(layer: str = "square-64", **axes: Any) -> Case:
    """A small layer under full fine-tuning."""
    given: dict[str, Any] = dict.fromkeys(Case.__annotations__)
    given |= {"level": "linear", "method": "full", "impl": "eager", "trainable_layers": "all"}
    return Case(**given | {"precision": "fp32", "batch": 1, "seq": 32, "layer": layer} | axes)


def write_run(folder: Path, rows: Sequence[dict[str, Any]], samples: Sequence[dict[str, Any]] = ()) -> Path:
    """run.json, rows.jsonl and samples.jsonl of a folder that holds these rows."""
    folder.mkdir(parents=True)
    run = {"schema": SCHEMA, "run_id": folder.name, "gpu": "Board 1", "gpu_key": "board-1", "driver": "580.1"}
    run |= {"source_hash": f"of-{folder.name}", "torch": "2.13.0", "commit": "0123456789abcdef", "dirty": False}
    (folder / "run.json").write_text(json.dumps(run | {"invocations": []}))
    for name, lines in (("rows.jsonl", rows), ("samples.jsonl", samples)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def row(run_id: str, repeat: int, minute: float, ms: float | None, **more: Any) -> dict[str, Any]:
    """A row of case() by its median alone; more replaces columns."""
    of = case()
    base: dict[str, Any] = dict.fromkeys(COLUMNS) | {"case_id": of.case_id, **of.axes(), "run_id": run_id}
    at = (START + timedelta(minutes=minute)).isoformat(timespec="milliseconds")
    base |= {"repeat": repeat, "process": f"{1000 + repeat}-{at}", "measured_at": at, "gpu": "Board 1", "noisy": False}
    return base | {"pass": "forward", "clock": "eager", "status": "ok", "median_ms": ms} | more


def sampled(run_id: str, repeat: int, minute: float, samples_ms: Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row and its line of samples, as the runner makes them."""
    rounded = [round(float(x), 6) for x in samples_ms]
    found = row(run_id, repeat, minute, None) | asdict(summarize(rounded))
    same = {k: found[k] for k in ("case_id", "run_id", "repeat", "process", "pass", "clock")}
    return found, same | {"samples_ms": rounded}


def abba(rounds: int) -> str:
    """The order in which `compare --run` measures: ABBAABBA ..."""
    return "".join("AB" if i % 2 == 0 else "BA" for i in range(rounds))
