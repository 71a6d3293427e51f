"""python -m bench advise: which way of training to use for a model, batch and length, measured here or predicted.

Top to bottom: this flow -> timed (measures, reads the record) or predicted -> layers, largest -> table -> request.
"""

import signal
from collections.abc import Callable
from dataclasses import replace

from bench.again import to_go_on
from bench.case import Case
from bench.commands.advise.layers import TIMED, Pair, inside, kinds, layers_sentence, layers_table, most_blocks, pairs
from bench.commands.advise.predicted import Forecast
from bench.commands.advise.request import Asked
from bench.commands.advise.table import Found, answer, answer_tables, barred
from bench.commands.advise.timed import Timed
from bench.commands.predict.command import measured_host_cost, trace_case
from bench.devices import ELSEWHERE, Device, choose_any, gpus
from bench.errors import UserError, shell_line
from bench.predict.boards import board, boards
from bench.predict.ops import Trace
from bench.predict.predicted import Host
from bench.process import terminate_as_interrupt
from bench.roofline.memory import size_text
from bench.sweeps.expand import Plan
from bench.terminal import output, say

WIDE = 150  # columns that the whole table takes
TRIED = 3  # counts of blocks that are timed, from the one that the line gives downwards
Source = Timed | Forecast
Tracer = Callable[[Case, bool], Trace]


def advise(asked: Asked, tracer: Tracer = trace_case, host: Callable[[], Host] = measured_host_cost) -> int:
    """Measures or predicts, prints the ranked ways of training and what to use; the exit status: 0 where there is an
    answer, 1 where there is none.

    tracer, host: what finds a case's operators and what measures the host, for a prediction. Raises UserError before
    anything is measured.
    """
    with terminate_as_interrupt() as came:
        try:
            source = _source(asked, tracer, host)
            plan = source.plan(asked.model)
            _check(asked, plan)
            found = source.find(asked.model)
            if not found.options:
                say(_nothing(asked, found))
                return 1
            found = source.with_peaks(barred(replace(found, rooms=source.rooms(found)), source.limit))
            _show(asked, plan, source, found)
            if asked.chooses_layers:
                _show_layers(asked, plan, source, found)
        except KeyboardInterrupt:
            say(f"interrupted; what is finished is on disk. To go on: {to_go_on()}")
            return 128 + (came[0] if came else signal.SIGINT)
    return 0 if answer(found) else 1


def _source(asked: Asked, tracer: Tracer, host: Callable[[], Host]) -> Source:
    try:
        device: Device | None = choose_any(asked.gpu, gpus())
    except UserError:  # gpus.yaml has no such board, with which one may be predicted all the same
        device = None
        if asked.gpu not in boards():
            raise
    if device is not None and device.index != ELSEWHERE:
        return Timed(asked, device)
    if asked.gpu not in boards():
        raise UserError(
            f"--gpu {asked.gpu}: it is not on this machine, and nothing is known to predict for it by. Predicted can be"
            f" {', '.join(boards())}."
        )
    return Forecast(asked, board(asked.gpu), host(), tracer)


def _check(asked: Asked, plan: Plan) -> None:
    for flag, values in (("--batch", asked.model.batch), ("--seq", asked.model.seq)):
        if values and len(values) > 1:
            raise UserError(f"{flag} {','.join(map(str, values))}: advise answers for one of them. Give one number.")
    if asked.chooses_layers and all(c.level != "model" for c in plan.cases):
        raise UserError(
            "--step-ms, --trained: layers are chosen in a whole model, and without a GPU one decoder block is measured."
            " Add --level model, or predict with --gpu and the key of a board."
        )


def _nothing(asked: Asked, found: Found) -> str:
    told = sorted({why for _, why in found.lost})
    return (
        f"No time was found of {asked.model.model} ({'; '.join(told) or 'no way of training can run here'}). Give more"
        " --time, a shorter --seq or a smaller --batch, or predict with --gpu and the key of a board."
    )


def _show(asked: Asked, plan: Plan, source: Source, found: Found) -> None:
    console, case = output(), found.options[0].case
    what = {"model": "the whole model", "block": "one decoder block"}.get(case.level, case.level)
    lead = "PREDICTED, not measured: " if found.predicted else ""
    limit = "" if source.limit is None else f"; memory {size_text(source.limit)}"
    console.print(f"{lead}{case.subject}, {what}, {case.conditions}, on {source.place}{limit}", soft_wrap=True)
    for table in answer_tables(found, asked.price, console.width < WIDE):
        console.print(table)
        console.print()
    told = answer(found)
    console.print(lead + (told or no_answer(found)), soft_wrap=True)
    console.print(unknown(found, source, asked), soft_wrap=True)
    if source.folder is not None:
        why = shell_line(["python", "-m", "bench", "why", str(source.folder)])
        say(f"The record: {source.folder}. Why times differ: {why}")


def no_answer(found: Found) -> str:
    """Why there is none."""
    if all(option.bar for option in found.options):
        return "No answer: nothing fits. Give more --memory, a shorter --seq or a smaller --batch."
    return "No answer: the intervals are too wide."


def unknown(found: Found, source: Source, asked: Asked) -> str:
    """What the answer does not tell."""
    several = len({o.case.method for o in found.options}) > 1
    apart = ", and in which methods differ, since they train different values" if several else ""
    told = [f"accuracy, which no time tells{apart} (docs/methods.md, docs/table2.md)"]
    if found.predicted:
        told += [
            "how far the prediction is off beyond its 80 % intervals",
            "the peak memory of anything but impl eager",
        ]
    elif any(room.estimated for room in found.rooms.values()):
        told += ["whether sizes and peaks marked ~, which a closed form for impl eager tells, are right"]
    if found.options[0].case.level == "block":
        told += ["embedding, head, loss and the other blocks"]
    if found.lost:
        told += [f"{len(found.lost)} way{'s' * (len(found.lost) > 1)} of training without a time"]
    return f"Not known: {'; '.join(told)}."


def _show_layers(asked: Asked, plan: Plan, source: Source, found: Found) -> None:
    console, chosen = output(), kinds(found)
    if "paca" not in [method for method, _ in chosen]:
        console.print("No choice of layers: PaCA has no time here.")
        return
    blocks = plan.cases[0].blocks
    timed = source.find(replace(asked.model, trainable_layers=TIMED), chosen)
    case = next(o.case for o in timed.options if o.case.method == "paca")
    times = {p.blocks: p.paca.ms.value for p in pairs(timed, blocks) if p.paca}
    count, bound = most_blocks(replace(case, trainable_layers="all"), times, asked, source.limit)
    layers: tuple[str, ...] = TIMED
    for n in range(count, max(count - TRIED, 0), -1):  # a time may lie above the line
        if n not in times:
            layers = (*layers, str(n))
            timed = source.find(replace(asked.model, trainable_layers=layers), chosen)
        if any(p.paca and p.blocks == n and inside(p.paca, asked) for p in pairs(timed, blocks)):
            break
    shown: list[Pair] = pairs(source.with_peaks(timed), blocks)
    console.print()
    console.print(layers_table(shown, timed, asked))
    console.print()
    console.print(layers_sentence(shown, count, bound, timed, asked), soft_wrap=True)
