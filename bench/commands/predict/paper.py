"""Predictions beside the tables of "LoRA Is Slower Than You Think" (results/paper). No board is fitted to them.

The paper does not say how it ran: autocast over fp32 weights, and LoRA by PEFT on every linear layer with dropout, are
inferred from its "16-bit mixed" and from its Table 3; that the A100 is the SXM4 one with 80 GB is inferred too.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.case import Case
from bench.commands.predict.groups import HOSTS_US, TYPICAL, Group, Tracer, judge, judge_ratio, spanning
from bench.errors import UserError
from bench.predict.boards import board
from bench.predict.judged import Judged
from bench.predict.predicted import Host, Predicted, price, ratio
from bench.reading import LARGEST, read_text
from bench.sweeps.expand import make_plan

PAPER = Path(__file__).parents[3] / "results" / "paper"
PASSES = ("forward", "backward")
_LORA = ("lora", "peft")
_STEPS = 60  # of the search for one host's costs, 1 us each


def paper(tracer: Tracer, folder: Path = PAPER) -> list[Group]:
    """Tables 1 and 2. Raises UserError where their files are missing or are no such tables."""
    return [*_table1(tracer, _read(folder / "table1.csv", ("model", "method", "seq", "forward_ms", "backward_ms"))),
            _table2(tracer, _read(folder / "table2.csv", ("method", "trainable_layers", "training_time")))]  # fmt: skip


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    mend = f"It is part of the repository: git checkout {path.name} restores it."
    if not path.is_file():
        raise UserError(f"{path}: not there. {mend}")
    rows = list(csv.DictReader(io.StringIO(read_text(path, LARGEST))))
    if missing := [c for c in columns if not rows or rows[0].get(c) is None]:
        raise UserError(f"{path}: no column {', '.join(missing)}. {mend}")
    return rows


Cells = dict[tuple[str, int, str], dict[str, float]]  # (model, length, method) -> ms by pass
Priced = Mapping[tuple[str, int, str], Mapping[tuple[str, str], Predicted]]


def _table1(tracer: Tracer, table: list[dict[str, str]]) -> Iterator[Group]:
    cells: Cells = {
        (row["model"], int(row["seq"]), row["method"]): {p: float(row[f"{p}_ms"]) for p in PASSES} for row in table
    }
    cases = {(str(c.model), c.seq, c.method): c for c in make_plan("table1-paper", on_cpu=False).cases
             if (c.method, c.impl) in (("full", "eager"), _LORA)}  # fmt: skip
    traces = {key: tracer(cases[key]) for key in cells}
    a100 = board("a100")

    def priced(host: Host | None) -> Priced:
        return {key: price(traces[key], a100, (*PASSES, "forward-backward"), host=host) for key in cells}

    typical = priced(TYPICAL)
    section = "Table 1 of the paper, A100"
    yield Group("GPU time alone", _times(cells, typical, "graph"), section=section)
    yield Group(f"a host of {TYPICAL.forward_us:g} us an operator", _times(cells, typical, "eager"), 0.08, False,
                TYPICAL.source, section)  # fmt: skip
    hosts = [priced(Host(us, us, "published")) for us in (TYPICAL.forward_us, *HOSTS_US)]
    yield _any_host("any host of {} to {} us", [_times(cells, p, "eager") for p in hosts], section, "time")
    fitted = _fitted(cells, priced)
    yield Group(f"one host fitted to these 24: {fitted.forward_us:g} us forward, {fitted.backward_us:g} backward",
                _times(cells, priced(fitted), "eager"), 0.05, True, "", section)  # fmt: skip
    section = "Its ratios LoRA over Full-FT, forward and backward together"
    yield Group(f"a host of {TYPICAL.forward_us:g} us", _ratios(cells, typical), None, section=section, of="ratio")
    yield _any_host("any host of {} to {} us, ratio", [_ratios(cells, p) for p in hosts], section, "ratio")
    yield Group("the fitted host", _ratios(cells, priced(fitted)), None, True, "", section, of="ratio")


def _any_host(name: str, by_host: list[list[Judged]], section: str, of: str) -> Group:
    """One prediction for each: that of the typical host, with an interval over all of them."""
    spans = [spanning(list(of_one)) for of_one in zip(*by_host, strict=True)]
    return Group(name.format(*(f"{us:g}" for us in HOSTS_US)), spans, None, False, "", section, of=of)


def _times(cells: Cells, priced: Priced, clock: str) -> list[Judged]:
    return [judge(key[0], priced[key][p, clock], ms) for key, times in cells.items() for p, ms in times.items()]


def _ratios(cells: Cells, priced: Priced) -> list[Judged]:
    """LoRA's forward plus backward over Full-FT's, as the paper's claim has it."""
    out = []
    for (model, seq, method), times in cells.items():
        if method != "lora":
            continue
        lora, full = (priced[model, seq, which]["forward-backward", "eager"] for which in ("lora", "full"))
        measured = sum(times.values()) / sum(cells[model, seq, "full"].values())
        out.append(judge_ratio(model, ratio(lora, full), measured))
    return out


def _fitted(cells: Cells, priced: Callable[[Host | None], Priced]) -> Host:
    """The host by which the mean error of the cells is least, forward and backward apart: whole microseconds."""
    off: dict[str, list[float]] = {p: [] for p in PASSES}
    for us in range(_STEPS):
        found = priced(Host(float(us), float(us), ""))
        for p in PASSES:
            errors = [found[key][p, "eager"].ms / times[p] - 1 for key, times in cells.items()]
            off[p].append(float(np.abs(errors).mean()))
    best = [float(np.argmin(off[p])) for p in PASSES]
    return Host(best[0], best[1], "fitted to the paper's 24 cells")


def _table2(tracer: Tracer, table: list[dict[str, str]]) -> Group:
    """Training times of the strategies over LoRA's, as an optimizer step of each on an A6000."""
    times = {(r["method"], r["trainable_layers"]): _hours(r["training_time"]) for r in table if r["training_time"]}
    plan = make_plan("table2", on_cpu=False, where=["precision=amp-fp16", "model=llama2-7b"])
    cases = {(c.method, c.trainable_layers): c for c in plan.cases
             if (c.method, c.impl) in (_LORA, ("paca", "eager"))}  # fmt: skip
    steps = {key: _step(tracer, cases[key]) for key in times}
    base = ("lora", "all")
    judged = [judge_ratio(f"{method} {layers}", ratio(steps[method, layers], steps[base]), hours / times[base])
              for (method, layers), hours in times.items() if (method, layers) != base]  # fmt: skip
    return Group("training time over LoRA's, by a step", judged, 0.08, False, TYPICAL.source,
                 "Table 2 of the paper, RTX A6000, LLaMA2-7B", of="ratio")  # fmt: skip


def _step(tracer: Tracer, case: Case) -> Predicted:
    return price(tracer(case), board("a6000"), ("step",), case.micro_steps, TYPICAL)["step", "eager"]


def _hours(text: str) -> float:
    """Of h:mm:ss.ss."""
    hours, minutes, seconds = (float(part) for part in text.split(":"))
    return hours + minutes / 60 + seconds / 3600
