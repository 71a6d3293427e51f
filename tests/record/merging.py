"""Results folders to merge, and what must hold of one that came of it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.case import Case
from bench.case.columns import COLUMNS
from bench.record.budget import with_budget
from bench.record.ratios import with_ratios
from bench.record.read import read_kept_rows, read_run, read_samples, write_csv
from tests.conftest import rows_of
from tests.record.shards import ENVIRONMENT, SWEEP
from tests.synthetic import START, case, row, sampled, write_run

FULL, LORA = case(), case(method="lora", rank=4, alpha=8.0, dropout=0.0)
FILES = ("rows.jsonl", "samples.jsonl", "run.json", "rows.csv")
Measured = tuple[dict[str, Any], dict[str, Any]]


def timed(name: str, of: Case, minute: float, ms: float = 2.0, repeat: int = 0, **more: Any) -> Measured:
    """A row with a time and its samples, as the process of that minute found it."""
    x = ms * (1 + 0.01 * np.random.default_rng(int(100 * minute) + repeat).standard_normal(24))
    found, line = sampled(name, repeat, minute, x)
    same = {"case_id": of.case_id}
    return found | of.axes() | same | more, line | same | {k: v for k, v in more.items() if k in line}


def failed(name: str, of: Case, minute: float, repeat: int = 0, status: str = "oom", **more: Any) -> Measured:
    found = row(name, repeat, minute, None, status=status, process=None, **more)
    return found | {"case_id": of.case_id} | of.axes(), {}


def folder(path: Path, found: Iterable[Measured], **run: Any) -> Path:
    found = list(found)
    write_run(path, [r for r, _ in found], [line for _, line in found if line])
    told = {"started": START.isoformat(), "command": f"python -m bench run grid --out {path.name}", "sweep": SWEEP}
    change(path, **ENVIRONMENT | {"gpu_uuid": f"GPU-{path.name}", "invocations": [told]} | run)
    return path


def change(path: Path, **values: Any) -> None:
    file = path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def once(tmp_path: Path, *names: str) -> list[Path]:
    """Folders of a comparison that each measured once, one a quarter of an hour after the other."""
    return [
        folder(tmp_path / name, [timed(name, FULL, 15 * i), timed(name, LORA, 15 * i + 1, 3.0)])
        for i, name in enumerate(names)
    ]


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES if (out / name).exists()}


def keys(out: Path) -> list[tuple[str, int, str, str]]:
    """(method, repeat, run_id, status) of the rows."""
    return [(r["method"], r["repeat"], r["run_id"], r["status"]) for r in rows_of(out)]


def held(out: Path) -> None:
    """Every row with a time has its own samples, and rows.csv says what the record does."""
    rows, torn = read_kept_rows(out)
    lines, torn_line = read_samples(out)
    assert torn is None and torn_line is None
    by_key = {(x["case_id"], x["pass"], x["clock"], x["repeat"]): x for x in lines}
    assert len(by_key) == len(lines)
    for r in rows:
        line = by_key.pop((r["case_id"], r["pass"], r["clock"], r["repeat"]), None)
        assert (line is not None) == (r["status"] == "ok")
        assert line is None or (line["run_id"], line["process"]) == (r["run_id"], r["process"])
    assert not by_key
    again = out.parent / "again.csv"
    write_csv(again, COLUMNS, with_budget(with_ratios(rows, lines), read_run(out)), "ignore")
    assert (out / "rows.csv").read_bytes() == again.read_bytes()
