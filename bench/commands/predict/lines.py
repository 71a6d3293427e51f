"""What is predicted of a case on a board, its ratios to Full-FT, and the lines of predictions.csv."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.case import Case
from bench.case.predictions import CAUSE_COLUMNS, Outcome
from bench.methods.registry import method_of, unsupported
from bench.predict.boards import Board
from bench.predict.predicted import LEVELS, Host, Predicted, Ratio, ratio
from bench.record.ratios import baselines
from bench.roofline.memory import too_large

Key = tuple[str, str]  # pass, clock


@dataclass(frozen=True)
class Line:
    """A case on a board."""

    case: Case
    board: str  # its key
    name: str  # and its full name
    outcome: Outcome = Outcome.predicted
    detail: str = ""  # why nothing is predicted
    found: Mapping[Key, Predicted] = field(default_factory=dict)
    base: "Line | None" = None  # Full-FT, where it is predicted too

    def ratio(self, key: Key) -> Ratio | None:
        """Over Full-FT; None of that itself, and where there is no such prediction."""
        base = self.base.found.get(key) if self.base and self.base.case != self.case else None
        return ratio(self.found[key], base) if base and key in self.found else None


def untraceable(case: Case, device: str) -> tuple[Outcome, str] | None:
    """Why a case has no operators to price, for any board; None where it has. device: 'cuda' or 'cpu'."""
    if reason := unsupported(case, device):
        return Outcome.unsupported, reason
    if case.compiles:
        return Outcome.untraced, "a compiler makes its kernels, which no trace of operators sees"
    if case.gradient_checkpointing:
        return Outcome.untraced, "what backward computes again is not in a trace of operators"
    if method_of(case).quantises:
        return Outcome.untraced, "4-bit weights cannot be made without memory, and their kernels have no price"
    if case.optimizer and case.optimizer != "sgd":
        return Outcome.untraced, f"the kernels of optimizer {case.optimizer} have no price"
    return None


def does_not_fit(case: Case, step: bool, board: Board) -> str | None:
    """Why a case cannot be on a board; None where it may."""
    told = too_large(case, step, None if board.memory_gib is None else round(board.memory_gib * 1024))
    return told and told.removesuffix(". Nothing was loaded")


def with_baselines(lines: Sequence[Line]) -> list[Line]:
    """The lines of one board, each with Full-FT's."""
    predicted = {line.case: line for line in lines if line.found}
    full = baselines(predicted)
    out = []
    for line in lines:
        base = full.get(line.case.comparison)
        out.append(Line(**line.__dict__ | {"base": None if base is None else predicted[base]}))
    return out


def csv_rows(lines: Iterable[Line], host: Host | None, day: str, version: str) -> Iterator[dict[str, object]]:
    """Lines of predictions.csv."""
    for line in lines:
        first = {"case_id": line.case.case_id, "board": line.board, "board_name": line.name, **line.case.axes()}
        last = {"predicted_on": day, "predicted_by": version}
        outcome = {"predicted_outcome": line.outcome, "predicted_detail": line.detail}
        if not line.found:
            yield first | outcome | last
        for key, found in line.found.items():
            yield first | outcome | _numbers(line, key, found, host) | last


def _numbers(line: Line, key: Key, found: Predicted, host: Host | None) -> dict[str, object]:
    row: dict[str, object] = {
        "pass": found.pass_,
        "clock": found.clock,
        "predicted_ms": found.ms,
        "predicted_gpu_ms": found.gpu_ms,
        "predicted_host_ms": found.host_ms,
        "predicted_launches": found.launches,
        "predicted_host_limit_us": found.host_limit_us,
    }
    for level in LEVELS:
        row[f"predicted_low{level}_ms"], row[f"predicted_high{level}_ms"] = found.interval(level)
    if quotient := line.ratio(key):
        assert line.base is not None
        row |= {"predicted_ratio": quotient.value, "predicted_ratio_to": line.base.case.case_id}
        for level in LEVELS:
            row[f"predicted_ratio_low{level}"], row[f"predicted_ratio_high{level}"] = quotient.interval(level)
    if found.clock == "eager" and host:
        row |= {
            "predicted_launch_bound": found.launch_bound,
            "predicted_host_forward_us": host.forward_us,
            "predicted_host_backward_us": host.backward_us,
            "predicted_host_source": host.source,
        }
    return row | {CAUSE_COLUMNS[cause]: ms for cause, ms in found.parts.items()}
