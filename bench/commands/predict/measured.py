"""Predictions beside results folders of this repository, and beside published timings where they are at hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.case import read_case
from bench.case.schema import PASSES
from bench.commands.predict.groups import TYPICAL, Group, Tracer, judge, judge_ratio
from bench.errors import UserError
from bench.files import cache_folder
from bench.folder import usable
from bench.predict.boards import Board, ErrorKind, board, boards
from bench.predict.changes import changed
from bench.predict.cpu import CLOCK, price_cpu, remembered_cpu
from bench.predict.fit import Check, refit
from bench.predict.fitting import half_widths
from bench.predict.judged import Judged
from bench.predict.known_models import Chosen, Known, read_model_level, with_config
from bench.predict.predicted import Predicted, price, ratio
from bench.predict.trace import trace
from bench.record.ratios import baselines
from bench.record.read import Row, read_rows

RESULTS = Path(__file__).parents[3] / "results"
_CLOCKS = ("graph", "eager")
# Of the fit's checks those that tell of what it had not seen, with the target of their mean error.
_UNSEEN = {"shapes held out": 0.06, "board held out": 0.09, "memory, every other row held out": None,
           "memory, board held out": None}  # fmt: skip


def results(tracer: Tracer, folder: Path = RESULTS) -> list[Group]:
    """Every published results folder of a GPU that boards.yaml knows by its name, a group for each board and clock."""
    out: list[Group] = []
    for path in sorted({rows.parent for rows in folder.glob("*/reference/*/rows.*")}):
        by_gpu: dict[str, list[Row]] = {}
        for row in read_rows(path)[0]:
            by_gpu.setdefault(str(row.get("gpu")), []).append(row)
        for name, rows in sorted(by_gpu.items()):
            if known := _named(name):
                out += _of_board(tracer, path.name, rows, known)
    return out


def _named(name: str) -> Board | None:
    """The board that NVML calls so: 'NVIDIA GeForce RTX 5090' is the RTX 5090."""
    return next((known for known in boards().values() if f" {name}".endswith(f" {known.name}")), None)


def of_this_cpu(folder: Path = RESULTS / "cpu" / "reference" / "table1") -> list[Group]:
    """The record of Table 1's blocks on a CPU beside predictions by this machine's rates; nothing where it was measured
    on another CPU, or where this one's rates were never measured (`predict --gpu cpu` does)."""
    rates = remembered_cpu()
    rows = [r for r in read_rows(folder)[0] if r.get("status") == "ok" and r.get("clock") == CLOCK]
    if rates is None or not rows or any(r.get("gpu") != rates.name for r in rows):
        return []
    measured = {(read_case(row), str(row["pass"])): float(row["median_ms"]) for row in rows}
    found = {case: price_cpu(trace(case, on_gpu=False), rates, PASSES[:3]) for case, _ in measured}
    full = baselines(found)
    times, ratios = [], []
    for (case, pass_), ms in measured.items():
        key = (pass_, CLOCK)
        if key not in found[case]:
            continue
        subject, base = f"{case.model} {case.seq}", full.get(case.comparison)
        times.append(judge(subject, found[case][key], ms))
        if base is not None and base != case and (base, pass_) in measured:
            quotient = ratio(found[case][key], found[base][key])
            ratios.append(judge_ratio(subject, quotient, ms / measured[base, pass_]))
    section = f"This CPU, blocks of Table 1 ({rates.name}; rates {rates.source.partition(':')[0]})"
    return [
        Group("times", times, section=section),
        Group("ratios to Full-FT", ratios, 0.15, section=section, of="ratio"),
    ]


def _of_board(tracer: Tracer, sweep: str, rows: Sequence[Row], known: Board) -> Iterator[Group]:
    by_clock: dict[str, list[Judged]] = {clock: [] for clock in _CLOCKS}
    for row in rows:
        clock, pass_, ms = row.get("clock"), row.get("pass"), row.get("median_ms")
        if row.get("status") != "ok" or clock not in _CLOCKS or not ms or not pass_:
            continue
        case = read_case(row)
        try:
            found = price(tracer(case), known, (pass_,), case.micro_steps, TYPICAL)
        except (UserError, ValueError):  # what no trace sees, as a compiled case
            continue
        by_clock[clock].append(judge(case.model or case.subject, found[pass_, clock], ms))
    for clock, judged in by_clock.items():
        if judged:
            note = TYPICAL.source if clock == "eager" else ""
            yield Group(f"{known.name}, {sweep}, clock {clock}", judged, note=note, section="Results folders")


def operators(folder: Path) -> list[Group]:
    """The published timings of single operators, by a fit that had not seen them: by kind of check and board.

    The intervals of held-out shapes are by construction those of these rows; those of a held-out board are the other
    boards' errors.
    """
    _, check = refit(folder)
    out = []
    for name, target in _UNSEEN.items():
        of_kind = {key: ratios for key, ratios in check.items() if key[1].startswith(name)}
        whole: list[Judged] = []
        for key, ratios in sorted(of_kind.items()):
            if key[1].endswith("any size"):
                continue
            others = _widths(of_kind, key) if name.endswith("board held out") else board(key[0]).errors[_kind(name)]
            judged = [_judged_ratio(key[0], r, others) for r in ratios]
            whole += [] if key[0] == "l40s" else judged
            of = "memory-bound" if _kind(name) == "memory" else "GEMMs"
            section = f"Single operators: {of}, {name.removeprefix('memory, ')}"
            out.append(Group(key[0], judged, section=section))
        each = [j for j in whole if np.isfinite(j.error)]
        out.append(
            Group("all but the L40S, which its power limit slows" if target else "all", each, target, section=section)
        )
    return out


def _kind(name: str) -> ErrorKind:
    return "memory" if name.startswith("memory") else "gemm"


def _widths(check: Check, key: tuple[str, str]) -> tuple[float, float]:
    """Half widths by the other boards."""
    low, high = half_widths(np.concatenate([r for k, r in check.items() if k[0] != key[0]]))
    return low, high


def _judged_ratio(subject: str, ratio: float, half: Sequence[float]) -> Judged:
    """Of predicted over measured, with 1 in the place of the measured time."""
    low, high = ((max(0.0, ratio * (1 - h)), ratio * (1 + h)) for h in half[:2])
    return Judged(subject, ratio, 1.0, (low, high))


@dataclass(frozen=True)
class Models:
    """Published timings of whole models beside their predictions, as groups; all times and all ratios; the choice."""

    groups: list[Group]
    times: list[Judged]
    ratios: list[Judged]
    chosen: Chosen


def model_level(tracer: Tracer, folder: Path) -> Models:
    """Of those that can be predicted, a group for each source, and what was left out."""
    chosen = read_model_level(folder)
    configs = cache_folder("configs") or usable("the cache", Path("lorabench-configs"))
    found: list[tuple[Known, Predicted]] = []
    for known in chosen.known:
        try:
            found.append((known, _predicted(tracer, with_config(known, configs))))
        except (UserError, ValueError) as e:
            key = (known.source, f"no trace: {e}"[:80])
            chosen.left_out[key] = chosen.left_out.get(key, 0) + 1
    by_group: dict[str, list[Judged]] = {}
    for known, predicted in found:
        by_group.setdefault(_group(known), []).append(judge(str(known.case.model), predicted, known.ms))
    section = f"Whole models, published, with {TYPICAL.forward_us:g} us an operator on the host"
    groups = [Group(name, rows, section=section) for name, rows in by_group.items()]
    times = [j for rows in by_group.values() for j in rows]
    ratios = _ratios(found)
    groups.append(Group("all of them", times, 0.15, section=section))
    groups.append(Group("ratios LoRA over Full-FT of a step", ratios, section=section, of="ratio"))
    return Models(groups, times, ratios, chosen)


def _ratios(found: list[tuple[Known, Predicted]]) -> list[Judged]:
    """Of each LoRA to the full fine-tuning of the same source and size."""
    full = {_alike(known): (known, predicted) for known, predicted in found if known.case.method == "full"}
    out = []
    for known, predicted in found:
        if known.case.method != "full" and (base := full.get(_alike(known))):
            measured = known.ms / base[0].ms
            out.append(judge_ratio(str(known.case.model), ratio(predicted, base[1]), measured))
    return out


def _alike(known: Known) -> tuple[object, ...]:
    return known.source, known.board.key, known.pass_, known.training, known.case.comparison


def _group(known: Known) -> str:
    case = known.case
    what = "one block" if case.level == "block" else {True: "training", False: "inference"}[known.training]
    return f"{known.source}: {case.precision} {what}, {case.method}"


def _predicted(tracer: Tracer, known: Known) -> Predicted:
    case = known.case
    trace = changed(tracer(case), case, known.changes)
    return price(trace, known.board, (known.pass_,), case.micro_steps, TYPICAL)[known.pass_, "eager"]
