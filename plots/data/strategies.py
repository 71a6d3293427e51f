"""The optimizer steps of a folder that Table 2 is about, and what each is compared with."""

from dataclasses import dataclass

from bench.case import Case
from bench.record.stats import Estimate
from plots.data.labels import method_label
from plots.data.results import MICRO_PASSES, Cell, Ratio, Results
from plots.data.training_runs import LENGTH, Published, line_of, steps_of

NAMED = {"upper-1/2": "Upper Half", "upper-3/4": "Three Quarters"}
DISAGREE = "parts and whole disagree"
BETWEEN = 0.02  # of a whole step, which may lie between its parts
PEFT = ("peft-fp32", "peft")  # the first that was timed: with its own fp32 adapters, as the paper most likely had it


@dataclass(frozen=True)
class Strategy:
    """A case of which an optimizer step was to be timed, with what it is compared with."""

    case: Case
    how: str  # it is computed: the impl, and the precision where the folder has several
    step: Cell
    micro: dict[str, Cell]  # by pass: the times of a micro-step
    peak_mib: float | None
    to_lora: Ratio  # on all layers, of the same impl, at equal axes
    to_same_layers: Ratio  # to LoRA on the layers that this case trains
    to_peft: Ratio  # to PEFT's LoRA on all layers
    peft: Case | None

    @property
    def name(self) -> str:
        """In the paper's words: 'PaCA', 'Upper Half PaCA', 'Upper Half LoRA'."""
        layers = self.case.trainable_layers
        method = method_label(self.case.method)
        return method if layers == "all" else f"{NAMED.get(layers, layers)} {method}"

    @property
    def paper(self) -> Published | None:
        return line_of(None, self.case.method, self.case.trainable_layers)

    @property
    def sum_off(self) -> float | None:
        """What the parts of a step add up to, less the whole, over the whole."""
        time, parts = self.step.time, self.step.parts_ms
        return None if time is None or parts is None else parts / time.value - 1

    def epoch(self, examples: int) -> Estimate | None:
        """Seconds of one epoch by the time of a step: steps x step. None at another length than the paper's, at which
        an example would not be what it is there."""
        if self.step.time is None or self.case.seq != LENGTH:
            return None
        return self.step.time.times(steps_of(examples, self.case.batch, self.case.micro_steps) / 1e3)


def find_strategies(results: Results) -> list[Strategy]:
    """The cases whose gradients accumulate to a step of a whole model, in the order of the record."""
    clock = results.clocks[0] if results.clocks else "none"
    cases = [
        c for c in results.cases
        if c.level == "model" and c.accumulation and (c in results.failures or (c, "step", clock) in results.cells)
    ]  # fmt: skip
    several = len({c.precision for c in cases}) > 1
    loras = {
        (c.impl, c.trainable_layers, *_conditions(c)): c for c in reversed(cases) if c.method == "lora"
    }  # reversed: of several ranks the first counts

    def over(case: Case, base: Case | None, name: str) -> Ratio:
        found = results.over(case, base, name, "step", clock)
        if found.value is None or not (off := [c for c in (case, base) if c and _disagree(results, c, clock)]):
            return found
        return Ratio(DISAGREE if off[0] == case else f"{name}: {DISAGREE}")

    def strategy(case: Case) -> Strategy:
        def lora(impl: str, layers: str) -> Case | None:
            return loras.get((impl, layers, *_conditions(case)))

        pefts = [c for impl in PEFT if (c := lora(impl, "all")) and results.get(c, "step", clock).time]
        peft = pefts[0] if pefts else None
        return Strategy(
            case, f"{case.impl}, {case.precision}" if several else case.impl, results.get(case, "step", clock),
            {pass_: results.get(case, pass_, clock) for pass_ in MICRO_PASSES}, results.peaks_mib.get(case),
            over(case, lora(case.impl, "all"), "LoRA"),
            over(case, lora(case.impl, case.trainable_layers), "LoRA there"), over(case, peft, "PEFT"), peft,
        )  # fmt: skip

    found = [strategy(c) for c in cases]
    whole = {(s.case.method, s.case.impl) for s in found if s.step.status != "unsupported"}
    return [s for s in found if (s.case.method, s.case.impl) in whole]


def _disagree(results: Results, case: Case, clock: str) -> bool:
    """Whether a step's parts and the whole lie apart by more than BETWEEN beyond their intervals, so that one of the
    two is wrong. Of the parts forward and backward have an interval; the others are small and count as exact."""
    step, both = (results.get(case, pass_, clock) for pass_ in ("step", "forward-backward"))
    if step.time is None or both.time is None or step.parts_ms is None:
        return False
    whole, micro = step.time, both.time.times(case.micro_steps)
    if whole.low is None or whole.high is None or micro.low is None or micro.high is None:
        return False
    low, high = (step.parts_ms + end - micro.value for end in (micro.low, micro.high))
    return low > whole.high * (1 + BETWEEN) or high * (1 + BETWEEN) < whole.low


def _conditions(case: Case) -> tuple[object, ...]:
    """What must be equal for two steps to be compared, beside how they are computed."""
    return case.model, case.precision, case.batch, case.seq, case.accumulation, case.l2
