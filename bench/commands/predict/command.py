"""python -m bench predict, from its options to its exit status."""

import datetime
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.again import to_go_on
from bench.case import Case
from bench.case.names import plain_name
from bench.case.predictions import PREDICTIONS_CSV, SAID, Outcome
from bench.commands.predict.lines import Line, csv_rows, does_not_fit, untraceable, with_baselines
from bench.commands.predict.request import (
    Request,
    boards_of,
    check_options,
    given_host,
    namesakes,
    plan_of,
)
from bench.commands.predict.show import heading, host_line, sentences, stands_for, table
from bench.devices import cpu_device
from bench.errors import UserError, one_line, shell_line, short
from bench.files import cache_folder
from bench.folder import hold, usable
from bench.predict.boards import Board, numbers_version
from bench.predict.ops import Trace
from bench.predict.predicted import Host, Predicted, price
from bench.process import terminate_as_interrupt
from bench.record.predictions import holds_measurements, write_predictions
from bench.runner.plan import results_folder
from bench.sweeps.expand import Plan
from bench.terminal import Progress, output, say

LONGEST = 100  # bytes of the boards in a folder's name
SLOW_S = 0.2  # a trace that takes longer is told of
Tracer = Callable[[Case, bool], Trace]  # case, on_gpu
Prices = dict[tuple[str, str], Predicted]


def predict(request: Request, tracer: Tracer | None = None, measured: Callable[[], Host] | None = None) -> int:
    """Predicts cases, prints them and writes predictions.csv; the exit status.

    tracer, measured: what finds a case's operators and what measures the host; by default bench.predict's. Raises
    UserError before anything is written.
    """
    check_options(request)
    boards = [] if request.on_cpu else boards_of(request)
    host = given_host(request.host_us) if request.host_us is not None else None
    plan = plan_of(request)
    folder = _folder(request, plan, boards)
    if request.fresh:
        _forget_traces()
    with terminate_as_interrupt() as came:
        try:
            if host is None and "eager" in request.clocks and not request.on_cpu:
                host = (measured or measured_host_cost)()
            traces = traced(plan.cases, tracer or trace_case, not request.on_cpu)
            lines = _on_cpu(plan, traces) if request.on_cpu else on_boards(plan, traces, boards, request.clocks, host)
            day, version = datetime.date.today().isoformat(), numbers_version()
            with hold(folder, lambda process: say(f"process {process} writes into {folder}; waiting")):
                write_predictions(folder, csv_rows(lines, host, day, version))
        except KeyboardInterrupt:
            say(f"interrupted; what was traced is kept. To go on: {to_go_on()}")
            return 128 + (came[0] if came else signal.SIGINT)
        except OSError as e:
            raise UserError(f"{e.filename or folder}: {e.strerror}; {PREDICTIONS_CSV} was not written") from None
    _show(request, plan, lines, boards, host, heading(request.name, day, version))
    say(f"Written: {folder / PREDICTIONS_CSV}; figure and report: {shell_line(['python', '-m', 'plots', str(folder)])}")
    return 0


def _folder(request: Request, plan: Plan, boards: Sequence[Board]) -> Path:
    """Where predictions go: never beside anything measured."""
    if request.out is None:
        keys = "-".join(b.key for b in boards) or "cpu"
        keys = keys if len(keys) <= LONGEST else f"{len(boards)}-boards"
        named = plan.path if request.model is None else Path(f"{plain_name(request.name)}.yaml")
        folder = results_folder(Path("results") / "predicted", named)
        folder = folder.with_name(f"{folder.name}-{keys}")
    else:
        folder = request.out
    if holds_measurements(folder):
        raise UserError(f"--out {folder}: this folder holds measurements, and predictions never go beside those.")
    return usable("--out", folder)


def trace_case(case: Case, on_gpu: bool) -> Trace:
    from bench.predict.trace import trace

    return trace(case, on_gpu)


def _forget_traces() -> None:
    """Removes what earlier traces have left on disk."""
    folder = cache_folder("traces")
    for path in folder.glob("*.json") if folder else ():
        path.unlink(missing_ok=True)


def measured_host_cost() -> Host:
    from bench.predict.host import measured_host

    found: Host = measured_host()
    return found


def traced(cases: Sequence[Case], tracer: Tracer, on_gpu: bool) -> dict[Case, Trace | tuple[Outcome, str]]:
    """The operators of each case, or why there are none."""
    out: dict[Case, Trace | tuple[Outcome, str]] = {}
    with Progress(len(cases)) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about their own next versions
        told = 0.0
        for case in cases:
            reason = untraceable(case, "cuda" if on_gpu else "cpu")
            try:
                out[case] = reason or tracer(case, on_gpu)
            except (UserError, ValueError) as e:
                out[case] = (Outcome.untraced, one_line(short(str(e), 300).strip("'\"")))
            progress.done += 1
            if progress.elapsed_s - told > SLOW_S:
                progress.say(f"[{progress.done}/{len(cases)}] {case.describe()} traced ({progress.left()})")
            told = progress.elapsed_s
    return out


def on_boards(
    plan: Plan,
    traces: dict[Case, Trace | tuple[Outcome, str]],
    boards: Sequence[Board],
    clocks: Sequence[str],
    host: Host | None,
) -> list[Line]:
    lines = []
    for board in boards:
        of_board = []
        for case in plan.cases:
            found = traces[case]
            if not isinstance(found, Trace):
                of_board.append(Line(case, board.key, board.name, *found))
            elif reason := does_not_fit(case, "step" in plan.passes, board):
                of_board.append(Line(case, board.key, board.name, Outcome.too_large, reason))
            else:
                prices = price(found, board, plan.passes, case.micro_steps, host)
                kept = {key: p for key, p in prices.items() if key[1] in clocks}
                of_board.append(Line(case, board.key, board.name, found=kept))
        lines += with_baselines(of_board)
    return lines


def _on_cpu(plan: Plan, traces: dict[Case, Trace | tuple[Outcome, str]]) -> list[Line]:
    from bench.predict.cpu import measured_cpu, price_cpu

    name, board, lines = cpu_device().name, measured_cpu(), []
    for case in plan.cases:
        found = traces[case]
        if isinstance(found, Trace):
            prices: Prices = price_cpu(found, board, plan.passes, case.micro_steps)
            lines.append(Line(case, "cpu", name, found=prices))
        else:
            lines.append(Line(case, "cpu", name, *found))
    return with_baselines(lines)


def _show(
    request: Request, plan: Plan, lines: Sequence[Line], boards: Sequence[Board], host: Host | None, head: str
) -> None:
    console = output()
    for board in boards:
        console.print(stands_for(board, namesakes(board)))
    console.print(head)
    clocks = ("cpu-time",) if request.on_cpu else request.clocks
    if not request.on_cpu:
        console.print(host_line(host, clocks))
    for key in dict.fromkeys(line.board for line in lines):
        of_board = [line for line in lines if line.board == key]
        for clock in clocks:
            console.print()
            console.print(f"PREDICTED for {of_board[0].name}, clock {clock} ({SAID[clock]})")
            console.print(table(of_board, clock, plan.passes))
        console.print()
        for told in sentences(of_board, plan.passes):
            console.print(told, soft_wrap=True)
