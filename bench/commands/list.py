"""python -m bench list: cases as a table, without torch."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.case import AXES
from bench.devices import choose, gpus
from bench.methods.registry import trainable_params, unsupported
from bench.roofline.memory import need, size_text, too_large
from bench.sweeps.expand import make_plan, text_of


def show_cases(sweep: str, gpu: str, where: tuple[str, ...]) -> None:
    """Prints one line a case: its id, its axes, the memory it needs, why it would not be measured."""
    device = choose(gpu, gpus())
    plan = make_plan(sweep, device.is_cpu, where)
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = [a for a, axis in AXES.items() if axis.listed and any(getattr(c, a) is not None for c in plan.cases)]
    step = "step" in plan.passes
    for column in ("case_id", *shown, "trained", "needs", "about", ""):
        table.add_column(column, no_wrap=True, justify="right" if column in ("trained", "needs", "about") else "left")
    for case in plan.cases:
        reason = unsupported(case, "cpu" if device.is_cpu else "cuda")
        values = [text_of(getattr(case, a)) for a in shown]
        last = f"unsupported: {reason}" if reason else ""
        if not reason and (too_much := too_large(case, step, device.memory_mib)):
            last = f"oom: {too_much.removesuffix('. Nothing was loaded')}"
        needs = need(case, step)
        row = [
            case.case_id,
            *values,
            f"{trainable_params(case):,}",
            size_text(needs.at_least),
            size_text(needs.about),
            last,
        ]
        table.add_row(*(Text(v) for v in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 400  # a pipe has no width to fit into
    console.print(table)
    rows = len(plan.cases) * len(plan.row_keys)
    what = f"{len(plan.cases)} cases, {rows} rows ({', '.join(plan.passes)}; clock {', '.join(plan.clocks)})"
    console.print(f"{plan.sweep} on {device.name}: {what}", markup=False)
    held = "weights, adapters, gradients" + (" and the optimizer's state" if step else "")
    console.print(f"needs: {held}; about: with activations, by estimate for impl eager", markup=False)
