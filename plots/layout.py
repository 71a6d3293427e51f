"""Which table stands where: in the report's sections, and all of them in table1.md or tables.md."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from plots.data.breakdown import GPU_CLOCKS, has_both
from plots.data.causes import places
from plots.data.methods import compares_methods
from plots.data.panels import Panel, by_clock
from plots.render.blocks import Table
from plots.tables.breakdown import breakdown_tables
from plots.tables.causes import causes_tables
from plots.tables.efficiency import efficiency_table, memory_table
from plots.tables.lengths import lengths_table
from plots.tables.methods import methods_table, options_table
from plots.tables.peers import layers_summary, layers_table
from plots.tables.table1 import paper_table, step_table, times_table
from plots.tables.throughput import throughput_table
from plots.text.numbers import spare_marks


@dataclass(frozen=True)
class Tables:
    """The tables of a folder by the section they stand in."""

    times: list[Table] = field(default_factory=list)  # of the headline panel: eager, beside the paper, graph, the step
    breakdown: list[Table] = field(default_factory=list)
    causes: list[Table] = field(default_factory=list)  # of the longest time; those of others are aside
    limits: list[Table] = field(default_factory=list)
    memory: list[Table] = field(default_factory=list)
    throughput: list[Table] = field(default_factory=list)
    lengths: list[Table] = field(default_factory=list)
    further: list[Table] = field(default_factory=list)
    aside: list[Table] = field(default_factory=list)  # in no report: others tell more about the same samples
    layers: list[Table] = field(default_factory=list)  # of peers.md: a line for each layer and training type
    methods: list[Table] = field(default_factory=list)  # of methods.md: a line for each model and training type

    @property
    def every(self) -> list[Table]:
        times, budget = (self.times, self.breakdown, self.causes), (self.throughput, self.limits, self.memory)
        return [table for part in (*times, *budget, self.lengths, self.further, self.aside) for table in part]


def lay_out(panels: list[Panel]) -> Tables:
    """Every table that the data support."""
    tables = Tables()
    for i, group in enumerate(by_clock(panels)):
        head = group[0]
        both = any(has_both(head.results, case) for case in head.cases)
        apart = [panel for panel in group if both and panel.clock in ("device", "host")]
        apart += [panel for panel in group if panel.clock not in head.results.shown_clocks]
        shown = [panel for panel in group if panel not in apart]
        times = tables.further if i else tables.times
        for panel in shown:
            times += _times(panel)
        times += _present(step_table(panel) for panel in shown if panel.clock != "host")
        tables.breakdown.extend(breakdown_tables(head) if both else [])
        told = places(head)
        tables.causes.extend(causes_tables(head, told[:1]))
        on_gpu = [panel for clock in GPU_CLOCKS for panel in group if panel.clock == clock]
        tables.limits.extend(_present([efficiency_table((on_gpu or [head])[0])]))
        tables.memory.extend(_present([memory_table(head)]))
        tables.throughput.extend(_present([throughput_table(head)]))
        of_models = [panel for panel in shown if panel.level != "linear" and panel.clock != "host"]
        tables.lengths.extend(_present(lengths_table(panel) for panel in of_models))
        tables.layers.extend(layers_table(panel) for panel in shown if panel.compares_implementations)
        compared = [panel for panel in shown if compares_methods(panel) and panel.clock != "host"]
        tables.methods.extend(methods_table(panel) for panel in compared)
        tables.methods.extend(_present(options_table(panel) for panel in compared))
        for panel in apart:
            tables.aside.extend(_times(panel))
        tables.aside.extend(causes_tables(head, told[1:]))
    return Tables(**{name: [spare_marks(table) for table in found] for name, found in vars(tables).items()})


def _times(panel: Panel) -> list[Table]:
    if panel.level == "linear":  # with many implementations the layers stand in peers.md
        return [layers_summary(panel) if panel.compares_implementations else layers_table(panel)]
    return [times_table(panel), *_present([paper_table(panel)])]


def _present(tables: Iterable[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]
