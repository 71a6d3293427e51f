"""python -m bench list: cases as a table, without torch."""

from bench.case import AXES
from bench.devices import ELSEWHERE, choose_any, entry_flag, gpus, known_devices
from bench.methods.registry import trainable_params, unsupported
from bench.roofline.memory import need, size_text, too_large
from bench.sweeps.of_model import ModelRequest, plan_of
from bench.terminal import output, plain_table
from bench.where import text_of


def show_cases(asked: str | ModelRequest, gpu: str, where: tuple[str, ...]) -> None:
    """Prints one line a case: its id, its axes, the memory it needs, why it would not be measured."""
    device = choose_any(gpu, gpus())
    plan = plan_of(asked, device.is_cpu, where)
    shown = [a for a, axis in AXES.items() if axis.listed and any(getattr(c, a) is not None for c in plan.cases)]
    step = "step" in plan.passes
    options = ["options"] * any(c.options for c in plan.cases)
    numbers = ("trained", "min memory", "estimated peak")
    table = plain_table(("case_id", *shown, *options, *numbers, "note"), right=numbers)
    for case in plan.cases:
        reason = unsupported(case, "cpu" if device.is_cpu else "cuda")
        values = [text_of(case.model_name if a == "model" else getattr(case, a)) for a in shown]
        note = f"unsupported: {reason}" if reason else ""
        if not reason and (too_much := too_large(case, step, device.memory_mib)):
            note = f"oom: {too_much.removesuffix('. Nothing was loaded')}"
        needs = need(case, step)
        if not note and device.memory_mib and (needs.about or 0) > device.memory_mib * 2**20:
            note = f"may not fit: the GPU has {size_text(device.memory_mib * 2**20)}"
        row = [
            case.case_id,
            *values,
            *[case.options.strip() for _ in options],
            f"{trainable_params(case):,}",
            size_text(needs.at_least),
            size_text(needs.about),
            note,
        ]
        table.add_row(*row)
    console = output()
    console.print(table)
    rows = len(plan.cases) * len(plan.row_keys)
    what = f"{len(plan.cases)} cases, {rows} rows ({', '.join(plan.passes)}; clock {', '.join(plan.clocks)})"
    console.print(f"{plan.name} on {device.name}: {what}")
    held = "weights, adapters, gradients" + (" and the optimizer's state" if step else "")
    sentence = f"min memory: {held}; estimated peak: with activations, by estimate for impl eager"
    console.print(sentence)
    if device.index == ELSEWHERE:
        others = [entry_flag(e) for e in known_devices()[device.key] if "memory_gib" in e and e["name"] != device.name]
        also = f" --gpu {device.key} also stands for {', '.join(others)}: name one to see it." if others else ""
        memory = f"its {size_text((device.memory_mib or 0) * 2**20)} are those of bench/gpus.yaml"
        where_found = f"{device.name} is not on this machine: {memory}, and packages are looked for here.{also}"
        console.print(where_found)
