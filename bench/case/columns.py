"""The columns of rows.csv: their order, units, types and meanings. `python -m bench.case.columns` prints
docs/columns.md."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bench.case.case import AXES, TYPES
from bench.case.clocks import CLOCKS
from bench.case.schema import BESIDE, Status

# The pandas dtype of each kind of column, as bench.read gives it; all of them know a missing value.
DTYPES = {
    "text": "string", "time": "datetime64[us, UTC]", "count": "Int64", "amount": "float64", "share": "float64",
    "flag": "boolean",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column of rows.csv. kind: what its values are; 'amount' is a number of its unit, and none is negative."""

    name: str
    meaning: str
    unit: str = ""
    kind: Literal["text", "time", "count", "amount", "share", "flag"] = "text"
    derived: bool = False  # worked out from the record whenever it is read, so that old rows have it too

    @property
    def dtype(self) -> str:
        """Its pandas dtype."""
        return DTYPES[self.kind]


_FIRST = (
    Column("case_id", "12 hex digits over the axes: the same case has the same id in every run"),
    Column("run_id", "the run that measured the row; its provenance is in run.json"),
    Column("repeat", "counts from 0; each repeat is a process of its own", kind="count"),
    Column("gpu", "full name of the GPU, or of the CPU where there is none"),
)
_PASS = (
    Column("pass", "forward, backward, forward-backward or step (micro-steps, optimizer and refresh in one go)"),
    Column("clock", "; ".join(f"{name}: {clock.meaning}" for name, clock in CLOCKS.items())),
)
_FOUND = (
    Column("median_ms", "median of the samples", "ms", "amount"),
    Column("ci_low_ms", "lower end of the median's 95 % interval", "ms", "amount"),
    Column("ci_high_ms", "upper end of the median's 95 % interval", "ms", "amount"),
    Column("p20_ms", "20th percentile of the samples", "ms", "amount"),
    Column("p80_ms", "80th percentile of the samples", "ms", "amount"),
    Column("min_ms", "smallest sample", "ms", "amount"),
    Column("n", "number of samples", kind="count"),
    Column(
        "ratio",
        "time over the baseline's in the same pass and clock: the median over rounds, or a quotient of medians",
        kind="amount",
    ),
    Column(
        "ratio_low",
        "lower end of the ratio's 95 % interval, from its rounds and, on a CPU, from what starts differ by",
        kind="amount",
    ),
    Column("ratio_high", "upper end of the ratio's 95 % interval, likewise", kind="amount"),
    Column("ratio_to", "case_id of the baseline: Full-FT eager, or the first case of the comparison without it"),
    Column(
        "rounds",
        "rounds in which the case and the baseline took turns; empty where it was measured alone",
        kind="count",
    ),
    Column("beside", f"what the case took turns with: {', '.join(BESIDE)}"),
    Column(
        "outliers", "samples beyond 1.5 interquartile ranges from the quartiles; counted, never dropped", kind="count"
    ),
    Column("stop", "why sampling stopped: converged, budget, wall, samples or rounds"),
    Column("noisy", "True where the interval is wider than +-2 %", kind="flag"),
    Column("status", f"how the measurement ended: {', '.join(Status)}"),
    Column("detail", "what else is to be said, such as the reason of a status"),
    Column(
        "comparison",
        "12 hex digits over the axes that a ratio must share: rows of equal comparison, pass, clock and repeat may be"
        " compared",
        derived=True,
    ),
    Column("tokens", "tokens in one call: batch x seq, in a step times its micro-steps", kind="count", derived=True),
    Column(
        "tokens_per_s",
        "tokens over median_ms, of what trains: a step or forward-backward of a block or model. Not under clock host,"
        " nor under cpu-time with several threads, which are no time that passes",
        "1/s",
        "amount",
        derived=True,
    ),
    Column(
        "mfu",
        "model FLOPs utilization where tokens_per_s is known: flops over median_ms and over the peak, from 0 to 1. The"
        " peak is the data sheet's dense one, without a data sheet that of one big matrix product measured on the"
        " machine (ceilings in run.json)",
        kind="amount",
        derived=True,
    ),
    Column("peak_mib", "peak memory of the pass", "MiB", "amount"),
    Column("trainable_params", "trained values; where blocks take turns, those that train at a time", kind="count"),
    Column("flops", "work of the pass, by closed form: matrix products alone", "FLOP", "amount"),
    Column("bytes", "what the pass must read and write, by closed form", "bytes", "amount"),
    Column("floor_ms", "roofline time: what the pass takes at least, by the data sheet's peaks", "ms", "amount"),
    Column("launches", "nodes of the CUDA graph", kind="count"),
    Column("sm_clock_mhz", "median SM clock while sampling", "MHz", "amount"),
    Column("power_w", "median power while sampling", "W", "amount"),
    Column("temperature_c", "highest temperature while sampling", "degrees Celsius", "amount"),
    Column("mem_clock_mhz", "median memory clock while sampling", "MHz", "amount"),
    Column("power_capped", "share of the readings in which the power limit held the clocks down", kind="share"),
    Column(
        "dropped",
        "samples that did not count: throttled GPU, a sleep kernel too short, a CPU process that waited for a core",
        kind="count",
    ),
    Column(
        "energy_j",
        "energy of one call by the GPU's own counter, over at least 2 s of calls back to back. Where a sweep has "
        "measure: {energy: true}, of blocks and models, on the row of clock eager: of the step where it is timed, "
        "else of forward-backward",
        "J",
        "amount",
    ),
    Column("refresh_ms", "PaCA's column refresh, or merged's merge, due once per optimizer step", "ms", "amount"),
    Column("optimizer_ms", "of a step: AdamW alone", "ms", "amount"),
    Column("parts_ms", "of a step: micro-steps, optimizer and refresh, timed apart and added up", "ms", "amount"),
    Column("model_dropout", "the largest dropout of the model itself", kind="share"),
    Column(
        "attention",
        "kernel that torch chose for the attention of a block or model: flash, efficient, cudnn, fused or math; empty"
        " where it is not seen, as in a compiled model",
    ),
    Column("tuned", "hash of the tuned tiles that our kernels ran under; empty for other impls and default tiles"),
    Column("threads", "threads that the CPU computed with; empty on a GPU", kind="count"),
    Column("process", "the worker process that measured the row: a name of its own, from its number and its start"),
    Column("measured_at", "when the row was on disk, UTC", kind="time"),
    Column("repro", "the command that measures this case again"),
)


def _of_axis(name: str) -> Column:
    kinds: dict[type, Any] = {str: "text", int: "count", float: "amount"}
    return Column(name, AXES[name].meaning, kind=kinds[TYPES[name]])


_AXES = tuple(_of_axis(name) for name in AXES if name != "l2")
_L2 = (_of_axis("l2"),)
ROW = (*_FIRST, *_AXES, *_PASS, *_L2, *_FOUND)
COLUMNS = tuple(column.name for column in ROW)  # in their order; an empty cell means not measured
RECORDED = tuple(column.name for column in ROW if not column.derived)  # those of rows.jsonl


def column_table(columns: Iterable[Column]) -> list[str]:
    """The lines of a table of columns, for docs/."""
    lines = (f"| `{c.name}` | {c.unit} | {c.meaning.replace('|', '/')} |" for c in columns)
    return ["| Column | Unit | Meaning |", "| --- | --- | --- |", *lines]


def as_markdown() -> str:
    """docs/columns.md."""
    cells = (f"| `{c.name}` | {c.dtype} | {c.unit} | {c.meaning.replace('|', '/')} |" for c in ROW)
    derived = ", ".join(f"`{c.name}`" for c in ROW if c.derived)
    lines = [
        "# The columns of rows.csv",
        "",
        "One line for each case, pass, clock and repeat. An empty cell means not measured. This page is generated from"
        " the schema: `python -m bench.case.columns > docs/columns.md`.",
        "",
        "Type is the pandas dtype that `bench.read(folder)` gives the column; each of them knows a missing value."
        f" {derived} are worked out from the record whenever it is read or rows.csv is written, and are not in"
        " rows.jsonl. [schema/](schema) has the JSON Schema of rows.jsonl, samples.jsonl and run.json.",
        "",
        "| Column | Type | Unit | Meaning |",
        "| --- | --- | --- | --- |",
        *cells,
    ]
    words = [f"- `{name}`: {', '.join(axis.valid)}" for name, axis in AXES.items() if axis.valid]
    return "\n".join([*lines, "", "Axes with a fixed set of words:", "", *words, ""])


if __name__ == "__main__":
    print(as_markdown(), end="")
