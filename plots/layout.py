"""Which table stands where: in the report's sections, and all of them in table1.md."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from plots.data.breakdown import GPU_CLOCKS, has_both
from plots.data.load import Folder
from plots.data.panels import MAX_TYPES, Panel, Table
from plots.data.results import Book
from plots.tables.breakdown import Splits, split_tables
from plots.tables.efficiency import efficiency_table, memory_table
from plots.tables.lengths import fits_table
from plots.tables.peers import is_peers, peers_summary, peers_table
from plots.tables.table1 import layers_table, paper_table, step_table, table1


@dataclass(frozen=True)
class Tables:
    """The tables of a folder by the section they stand in."""

    times: list[Table] = field(default_factory=list)  # of the headline panel: eager, beside the paper, graph, the step
    splits: list[Table] = field(default_factory=list)
    hardware: list[Table] = field(default_factory=list)
    further: list[Table] = field(default_factory=list)
    aside: list[Table] = field(default_factory=list)  # in table1.md alone: the split tables have their times
    peers: list[Table] = field(default_factory=list)  # of peers.md: a line for each layer and training type

    @property
    def every(self) -> list[Table]:
        return [*self.times, *self.splits, *self.hardware, *self.further, *self.aside]


def groups(found: list[Panel]) -> list[list[Panel]]:
    """The panels of the same level, precision and L2 state, one for each clock, the headline clock's first."""
    by_what: dict[tuple[str, str | None, str | None], list[Panel]] = {}
    for panel in found:
        by_what.setdefault((panel.level, panel.precision, panel.l2), []).append(panel)
    return list(by_what.values())


def arrange(folder: Folder, book: Book, found: list[Panel], splits: Splits) -> Tables:
    """Every table that the data support."""
    tables = Tables()
    for i, group in enumerate(groups(found)):
        head = group[0]
        split = any(has_both(book, case) for case in head.cases)
        times = tables.further if i else tables.times
        apart = [panel for panel in group if split and panel.clock in ("device", "host")]
        shown = [panel for panel in group if panel not in apart]
        for panel in shown:
            times += _times(folder, book, panel)
        times += _present(step_table(folder, book, panel) for panel in shown if panel.clock != "host")
        if split:
            tables.splits.extend(split_tables(folder, book, head, splits))
        gpu = [panel for clock in GPU_CLOCKS for panel in group if panel.clock == clock]
        tables.hardware.extend(_present(efficiency_table(folder, book, panel) for panel in gpu[:1]))
        tables.hardware.extend(_present([memory_table(folder, book, head)]))
        lines = [panel for panel in shown if panel.level != "linear" and panel.clock != "host"]
        tables.further.extend(_present(fits_table(folder, book, panel) for panel in lines))
        tables.peers.extend(peers_table(folder, book, panel) for panel in shown if is_peers(panel))
        for panel in apart:
            tables.aside.extend(_times(folder, book, panel))
    return tables


def _times(folder: Folder, book: Book, panel: Panel) -> list[Table]:
    if panel.level == "linear":
        few = len(panel.types) <= MAX_TYPES or not is_peers(panel)  # side by side; more of them stand in peers.md
        return [layers_table(folder, book, panel)] * few + [peers_summary(folder, book, panel)] * is_peers(panel)
    return [table1(folder, book, panel), *_present([paper_table(folder, book, panel)])]


def _present(tables: "Iterator[Table | None] | list[Table | None]") -> list[Table]:
    return [table for table in tables if table is not None]
