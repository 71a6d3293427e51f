"""What the methods of sweep `methods` cost by arithmetic. `python -m bench.sweeps.costs` prints the tables of
docs/methods.md. Nothing in them was measured."""

from collections.abc import Iterable
from dataclasses import replace

from bench.case import Case
from bench.case.names import plain_name
from bench.case.shapes import model_shape
from bench.methods.registry import method_of, trainable_params
from bench.roofline.memory import need
from bench.roofline.roofline import compulsory_bytes, flops
from bench.sweeps.expand import make_plan

MODEL, LAYER = "tinyllama", "mlp.up_proj"
TEXTBOOK = "eager"


def cases() -> list[Case]:
    """The textbook forms of the sweep, in its order, of one model at its first length."""
    found = [c for c in make_plan("methods", on_cpu=False).cases if c.model == MODEL and c.impl == TEXTBOOK]
    return [c for c in found if c.seq == found[0].seq and c.compile is None]


def of_layer(case: Case) -> Case:
    """The same at level linear."""
    return replace(case, level="linear", layer=LAYER, targets=None, l2="cold")


def name_of(case: Case) -> str:
    """'LoRA', 'Full-FT, lisa-2', 'Full-FT, optimizer sgd'."""
    layers = [case.trainable_layers] * (case.trainable_layers != "all")
    return ", ".join([method_of(case).label, *layers, *map(plain_word, case.options.split())])


def plain_word(word: str) -> str:
    """'checkpointing-full' -> 'checkpointing full'; the names of layers and optimizers as they are."""
    return word.replace("-", " ", 1) if word.startswith(("checkpointing-", "compile-")) else word


def layer_table(found: Iterable[Case]) -> list[str]:
    """A line for each method, of one layer: values that train, FLOPs, and bytes that must move."""
    heads = (
        "Method",
        "Trained values",
        "Forward GFLOP",
        "Backward GFLOP",
        "Both / Full-FT",
        "Forward MB",
        "Backward MB",
    )
    lines, base = [], 0
    for case in [of_layer(c) for c in found if c.trainable_layers == "all" and not c.has_options]:
        work = [flops(case, p) or 0 for p in ("forward", "backward")]
        moved = [compulsory_bytes(case, p) or 0 for p in ("forward", "backward")]
        base = base or sum(work)
        words = [f"{w / 1e9:.1f}" for w in work] + [f"{sum(work) / base:.3f}"] + [f"{b / 1e6:.1f}" for b in moved]
        lines.append((name_of(case), f"{trainable_params(case):,}", *words))
    return markdown(heads, lines)


def model_table(found: Iterable[Case]) -> list[str]:
    """A line for each method and option, of the model: values that train, FLOPs, and memory of a training step."""
    heads = ("Method", "Trained values", "Forward TFLOP", "Backward TFLOP", "Least memory GiB",
             "About GiB")  # fmt: skip
    lines = []
    for case in found:
        work = [flops(case, p) for p in ("forward", "backward")]
        memory = need(case, step=True)
        if case.has_options and memory == need(case.plain, step=True):
            continue  # nothing that is counted here
        words = [f"{w / 1e12:.2f}" if w else "" for w in work]
        words += [f"{b / 2**30:.2f}" if b is not None else "" for b in (memory.at_least, memory.about)]
        lines.append((name_of(case), f"{trainable_params(case):,}", *words))
    return markdown(heads, lines)


def markdown(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> list[str]:
    """A table of Markdown, numbers to the right."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *lines)]


def page() -> str:
    """Both tables with what they are of."""
    found = cases()
    one, layer = found[0], next(p for p in model_shape(MODEL).projections if p.name == LAYER)
    return "\n".join([
        f"One layer, {plain_name(MODEL)}'s {LAYER} ({layer.in_features} inputs, {layer.out_features} outputs), at "
        f"{one.batch} x {one.seq} tokens in {one.precision}:",
        "",
        *layer_table(found),
        "",
        f"The whole model at {one.batch} x {one.seq}, a training step:",
        "",
        *model_table(found),
    ])  # fmt: skip


if __name__ == "__main__":
    print(page())
