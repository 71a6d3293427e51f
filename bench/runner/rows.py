"""Rows of a finished case: what the worker found, in the columns of the record."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bench.case import Case
from bench.case.clocks import between_starts
from bench.case.columns import RECORDED
from bench.case.schema import Status
from bench.devices import Device
from bench.errors import shell_line
from bench.methods.registry import impl_of, trainable_params
from bench.record.environment import tuned_hash
from bench.record.stats import ratio_estimate, ratios_by_round, summarize
from bench.record.store import Row, now
from bench.roofline.peaks import peaks_of
from bench.roofline.roofline import compulsory_bytes, flops, roofline_ms
from bench.sweeps.expand import Plan

SUSPECT = 0.9  # of the roofline time: a GPU may exceed the data sheet's boost clock for a while


@dataclass(frozen=True)
class Company:
    """What a case was measured beside."""

    turns: str  # id of the set of rounds: only samples of one set can be paired by round
    beside: str  # one of BESIDE
    base: str | None  # case_id of the baseline
    measured: list[dict[str, Any]]  # what the baseline's worker told of its clocks

    def series(self, pass_: str, clock: str) -> dict[str, Any] | None:
        """What the baseline found under a pass and clock, where it has samples in rounds."""
        every = (s for event in self.measured for s in event["series"])
        return next((s for s in every if (s["pass"], s["clock"]) == (pass_, clock) and "rounds" in s), None)


class RowMaker:
    """Makes the rows of one run; everything they share is here."""

    def __init__(self, plan: Plan, run_id: str, device: Device, threads: int | None = None) -> None:
        self._plan = plan
        self._run_id = run_id
        self._device = device
        self._threads = threads
        self._tuned = tuned_hash(device)
        self._peaks = peaks_of(device.name, device.sm_count)

    def _base(self, case: Case, repeat: int, process: str | None) -> Row:
        return dict.fromkeys(RECORDED) | {
            "case_id": case.case_id,
            "run_id": self._run_id,
            "repeat": repeat,
            "gpu": self._device.name,
            **case.axes(),
            "trainable_params": trainable_params(case),
            "tuned": self._tuned if impl_of(case).tuned else None,
            "threads": self._threads,
            "process": process,
            "measured_at": now(),
            "repro": self._repro(case),
        }

    def _repro(self, case: Case) -> str:
        """A command that measures this case again, in a folder of its own."""
        words = ["run", *self._plan.words, "--gpu", self._device.key, "--where", f"case_id={case.case_id}", "--out"]
        return shell_line(["python", "-m", "bench", *words, f"results/repro/{case.case_id}"])

    def measured(
        self, case: Case, repeat: int, process: str, event: dict[str, Any], company: Company
    ) -> tuple[list[Row], list[Row]]:
        """(rows, sample lines) of a clock that was measured; a row whose status is not ok has no numbers."""
        base = self._base(case, repeat, process) | {k: event[k] for k in ("peak_mib", "model_dropout", "attention")}
        rows, samples = [], []
        for series in event["series"]:
            key = {"pass": series["pass"], "clock": series["clock"]}
            row = base | key | self._physics(case, series["pass"]) | {k: v for k, v in series.items() if k in RECORDED}
            if series["status"] != Status.ok:
                rows.append(row)
                continue
            e = summarize(series["samples_ms"])
            row |= {k: _to_ns(v) for k, v in asdict(e).items()}
            row |= {"noisy": e.half_width > self._plan.settings.noisy, "detail": event.get("note")}
            row |= {k: _to_ns(row[k]) for k in ("refresh_ms", "optimizer_ms", "parts_ms")}
            ratio, more = _beside(case, series, company)
            rows.append(row | ratio | self._suspicion(row))
            same = {k: base[k] for k in ("case_id", "run_id", "repeat", "process")}
            samples.append(same | key | {"samples_ms": [_to_ns(x) for x in series["samples_ms"]]} | more)
        return rows, samples

    def _physics(self, case: Case, pass_: str) -> Row:
        """What the pass must compute and move, and how long this GPU needs for it at least, by closed form."""
        least = roofline_ms(case, pass_, self._peaks)
        return {
            "flops": flops(case, pass_),
            "bytes": compulsory_bytes(case, pass_),
            "floor_ms": _to_ns(least),
        }

    def _suspicion(self, row: Row) -> Row:
        """A status for a time that physics does not allow; the numbers stay, for whoever looks into it."""
        least = row["floor_ms"]
        if row["clock"] == "host" or least is None or row["median_ms"] >= SUSPECT * least:
            return {}
        detail = f"{row['median_ms']:.4g} ms is below {SUSPECT} x the roofline time of {least:.4g} ms"
        return {"status": Status.suspect, "detail": "; ".join(filter(None, [detail, row["detail"]]))}

    def failed(
        self, case: Case, repeat: int, process: str | None, status: Status, detail: str, kept: Iterable[Row] = ()
    ) -> list[Row]:
        """The rows of a case that left no numbers: one for each that was wanted and is not among those `kept`."""
        base = self._base(case, repeat, process)
        there = {(row["pass"], row["clock"]) for row in kept}
        left = [key for key in self._plan.row_keys if key not in there]
        return [base | {"pass": p, "clock": c, "status": status, "detail": detail} for p, c in left]


def _beside(case: Case, series: dict[str, Any], company: Company) -> tuple[Row, Row]:
    """(columns of the row, keys of the sample line) on what a case took turns with, and its ratio to the baseline."""
    if "rounds" not in series:
        return {"beside": "nothing"}, {}
    row: Row = {"beside": company.beside, "rounds": len(set(series["rounds"]))}
    line: Row = {"rounds": series["rounds"], "turns": company.turns}
    base = company.series(series["pass"], series["clock"])
    if base is None:
        return row, line
    row["ratio_to"] = company.base
    if case.case_id == company.base:
        return row | dict.fromkeys(("ratio", "ratio_low", "ratio_high"), 1.0), line
    ratios = ratios_by_round(series["samples_ms"], series["rounds"], base["samples_ms"], base["rounds"])
    if not ratios:
        return row | {"ratio_to": None}, line
    found = ratio_estimate(ratios, between_starts(series["clock"]))
    row |= {"ratio": _digits(found.value), "ratio_low": _digits(found.low), "ratio_high": _digits(found.high)}
    return row, line | {"ratio_to": company.base, "ratios": [_digits(r) for r in ratios]}


def _digits(ratio: float | None) -> float | None:
    """No ratio here is known to a millionth."""
    return None if ratio is None else round(ratio, 7)


def _to_ns(ms: float | None) -> float | None:
    """Milliseconds to the nanosecond; no clock here resolves more, and the record stays readable."""
    return None if ms is None else round(ms, 6)
