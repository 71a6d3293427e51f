"""The optimizer steps of a folder that Table 2 is about, and what each is compared with."""

from dataclasses import dataclass

from plots.data.case import METHODS, Case
from plots.data.length_fit import Estimate
from plots.data.results import Book, Cell
from plots.data.training_runs import LENGTH, Published, clock_word, line_of, steps_of

NAMED = {"upper-1/2": "Upper Half", "upper-3/4": "Three Quarters"}
PEFT = ("peft-fp32", "peft")  # the first that was timed: with its own fp32 adapters, as the paper most likely had it


@dataclass(frozen=True)
class Timed:
    """A case of which an optimizer step was to be timed, with what it is compared with."""

    case: Case
    how: str  # it is computed: the impl, and the precision where the folder has several
    step: Cell
    lora: Case | None  # on all layers, of the same impl, at equal axes
    same_layers: Case | None  # LoRA on the layers that this case trains
    peft: Case | None  # PEFT's LoRA on all layers

    @property
    def strategy(self) -> str:
        """In the paper's words: 'PaCA', 'Upper Half PaCA', 'Upper Half LoRA'."""
        layers = self.case.trainable_layers or "all"
        method = METHODS.get(self.case.method, self.case.method)
        return method if layers == "all" else f"{NAMED.get(layers, layers)} {method}"

    @property
    def paper(self) -> Published | None:
        return line_of(None, self.case.method, self.case.trainable_layers or "all")


def timed_cases(book: Book) -> list[Timed]:
    """The cases whose gradients accumulate to a step of a whole model, in the order of the record."""
    clock = book.clocks[0] if book.clocks else "none"
    cases = [
        c
        for c in book.cases
        if c.level == "model" and c.accumulation and (c in book.failures or (c, "step", clock) in book.cells)
    ]  # fmt: skip
    loras = {
        (c.impl, c.trainable_layers or "all", *_conditions(c)): c for c in reversed(cases) if c.method == "lora"
    }  # reversed: of several ranks the first counts

    def timed(case: Case) -> Timed:
        def lora(impl: str, layers: str) -> Case | None:
            return loras.get((impl, layers, *_conditions(case)))

        layers = case.trainable_layers or "all"
        pefts = [c for impl in PEFT if (c := lora(impl, "all")) and book.get(c, "step", clock).time]
        step = book.get(case, "step", clock)
        how = f"{case.impl}, {case.precision}" if several else case.impl
        return Timed(case, how, step, lora(case.impl, "all"), lora(case.impl, layers), pefts[0] if pefts else None)

    several = len({c.precision for c in cases}) > 1
    found = [timed(c) for c in cases]
    whole = {(t.case.method, t.case.impl) for t in found if t.step.status != "unsupported"}
    return [t for t in found if (t.case.method, t.case.impl) in whole]


def _conditions(case: Case) -> tuple[object, ...]:
    """What must be equal for two steps to be compared, beside how they are computed."""
    return case.model, case.precision, case.batch, case.seq, case.accumulation, case.l2


def epoch(one: Timed, examples: int) -> Estimate | None:
    """Seconds of one epoch by the time of a step: steps x step. None at another length than the paper's, at which an
    example would not be what it is there."""
    if one.step.time is None or one.case.seq != LENGTH:
        return None
    return one.step.time.times(steps_of(examples, one.case.batch, one.case.micro_steps) / 1e3)


def epoch_word(found: Estimate | None) -> str:
    """'6:04:30 ± 0:01:12', hours, minutes and seconds; empty where there is none."""
    if found is None:
        return ""
    half = "" if found.half is None else f" ± {clock_word(found.half)}"
    return f"{clock_word(found.value)}{half}"
