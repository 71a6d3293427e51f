"""How times, ratios and differences are told: one value with its interval, or the word that stands in its place."""

from dataclasses import replace

from bench.record.numbers import decimals, with_interval
from bench.record.stats import Estimate
from plots.data.results import Cell, Ratio
from plots.data.training_runs import Run, clock_word
from plots.render.blocks import Table

NOISY = "†"
RATIOS_OF_RUNS = (
    "A ratio is of median steps, without the first tenth of a run's steps (at least one, at most ten), which warm up. "
    "Its base is the training of all layers of the same model on the same device, with equal batch, accumulation, "
    "length, precision, optimizer and checkpointing. An interval is of 95 %, and speaks for the two processes that "
    "trained; it takes 6 steps."
)
OTHER_CLOCK = "‡"  # a number from clock device, where graph has none


def time_word(cell: Cell, by: float = 1.0) -> str:
    """The time of a cell in ms, or in the unit that is ms / `by`; or the status that stands in its place."""
    if cell.time is None:
        return cell.status
    return marked(with_interval(cell.time.times(by)), cell.noisy)


def short(value: float, sign: str = "") -> str:
    """Three digits, or all before the point: '0.123', '1234'; '+' as sign tells that of what is above zero too."""
    return f"{value:{sign}.0f}" if 100 <= abs(value) < 1e7 else f"{value:{sign}.3g}"


def ratio_word(ratio: Ratio) -> str:
    """The ratio with its interval, 1 for the baseline itself, or the word that stands in its place."""
    if ratio.value is None:
        return ratio.word
    return "1" if ratio.by_definition else marked(with_interval(ratio.value), ratio.noisy)


def run_ratio_word(found: Estimate | None) -> str:
    """The ratio of two trainings' steps; 1 for the base itself, and empty where there is none."""
    return "" if found is None else "1" if found == Estimate(1.0) else with_interval(found, 3)


def score_words(run: Run) -> dict[str, str]:
    """'30.00 ± 5.12': the accuracies of a run in percent, with their standard errors where those are known."""
    return {
        name: f"{score:.2f} ± {run.errors[name]:.2f}" if name in run.errors else f"{score:.4g}"
        for name, score in run.scores.items()
    }


def difference_word(found: Estimate) -> str:
    """'+12.1 [+11.8, +12.4]': a difference, with its sign."""
    places = decimals(found)
    if found.low is None or found.high is None:
        return f"{found.value:+.{places}f} (no interval)"
    return f"{found.value:+.{places}f} [{found.low:+.{places}f}, {found.high:+.{places}f}]"


def epoch_word(found: Estimate | None) -> str:
    """'6:04:30 [6:03:18, 6:05:42]', hours, minutes and seconds; empty where there is none."""
    if found is None:
        return ""
    ends = "" if found.low is None or found.high is None else f" [{clock_word(found.low)}, {clock_word(found.high)}]"
    return clock_word(found.value) + ends


def marked(words: str, noisy: bool, other_clock: bool = False) -> str:
    """The words with the marks that a table explains."""
    return words + (f" {OTHER_CLOCK}" if other_clock else "") + (f" {NOISY}" if noisy else "")


def rate_word(tera: float, unit: str) -> str:
    """'989.4 TFLOP/s', '41.7 GFLOP/s': a rate in units of 1e12 of FLOP/s or B/s."""
    return f"{tera:.4g} T{unit}" if tera >= 1 else f"{1e3 * tera:.4g} G{unit}"


def spare_marks(table: Table) -> Table:
    """Without the marks of the columns most of whose values are noisy: a sentence above the table says it once."""
    crowded = []
    for i, column in enumerate(zip(*table.lines, strict=True)):
        values = [cell for cell in column if " [" in cell or "(no interval)" in cell]
        if i >= len(table.lead) and 2 * sum(cell.endswith(NOISY) for cell in values) > len(values):
            crowded.append(i)
    if not crowded:
        return table
    told = f"Most values of these columns are noisy and carry no mark: {'; '.join(table.heads[i] for i in crowded)}."
    lines = tuple(
        tuple(cell.removesuffix(f" {NOISY}") if i in crowded else cell for i, cell in enumerate(line))
        for line in table.lines
    )
    return replace(table, caption=f"{told} {table.caption}", lines=lines)
