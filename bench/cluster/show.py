"""What a person sees of a submission: one live table on a terminal, elsewhere a line when a shard changes."""

import heapq
from collections import Counter

from rich.console import Group
from rich.live import Live

from bench.cluster.watch import Watch, Watched
from bench.terminal import PlainTable, Progress, duration, plain_table, shown

COLUMNS = ("Shard", "Job", "State", "Node", "Cases", "Failed", "To go")
MOST_LINES = 24  # of shards on a terminal; those that run come first
ORDER = ("running", "pending", "ended", "given up", "done")


class ShardTable(Progress):
    """Call it with a Watch after each look. Use as a context."""

    def __init__(self) -> None:
        super().__init__(0)
        self._live = Live(console=self.console, refresh_per_second=2, transient=True, auto_refresh=False)
        self._told: dict[int, tuple[str, int]] = {}
        self._trouble = ""

    def start_drawing(self) -> None:
        self._live.start()

    def stop_drawing(self) -> None:
        self._live.stop()

    def __call__(self, watch: Watch) -> None:
        if self.console.is_terminal:
            lines = [shown(line) for line in (total_line(watch), watch.trouble) if line]
            self._live.update(Group(table_of(watch.shards, MOST_LINES), *lines), refresh=True)
            return
        if watch.trouble != self._trouble:
            self._trouble = watch.trouble
            self.say(watch.trouble or "the queue answers again")
        for w in watch.shards:
            known = self._told.get(w.shard.number)
            told = (w.word(), len(w.shard.jobs))
            if told != known:
                self._told[w.shard.number] = told
                self.say(_line(w))


def total_line(watch: Watch) -> str:
    """'12 of 48 cases, 1 failed; 2 shards running, 2 pending; 3:20 to go'."""
    done, total = sum(w.rows.done for w in watch.shards), sum(w.shard.tasks for w in watch.shards)
    failed = sum(w.rows.failed for w in watch.shards)
    words = Counter(_plain(w) for w in watch.shards)
    counts = ", ".join(f"{n} {word}" for word, n in sorted(words.items(), key=lambda x: ORDER.index(x[0])))
    told = f"{done} of {total} cases" + (f", {failed} failed" if failed else "")
    return f"{told}; shards: {counts}" + (f"; {duration(left)} to go" if (left := to_go(watch.shards)) else "")


def to_go(shards: list[Watched]) -> float:
    """Seconds until the last of them is done: those that wait begin where others end."""
    live = [w for w in shards if not w.settled and w.open and w.state.word != "ended"]
    running = [w for w in live if w.state.word == "running"]
    known = [(w.left_s(1.0), w.shard.seconds / w.shard.tasks * w.open) for w in running if w.shard.seconds and w.open]
    estimated = sum(e for _, e in known)
    pace = sum(s for s, _ in known) / estimated if estimated else 1.0
    ends = [w.left_s(pace) for w in running] or [0.0] * max(1, len(live))
    heapq.heapify(ends)
    for w in sorted((w for w in live if w not in running), key=lambda w: -w.shard.seconds):
        heapq.heapreplace(ends, ends[0] + w.left_s(pace))
    return max(ends) if live else 0.0


def table_of(shards: list[Watched], most: int | None = None) -> PlainTable:
    """A line for each shard, at most so many: those with most to say first."""
    table = plain_table(COLUMNS, right=("Shard", "Cases", "Failed", "To go"))
    ranked = sorted(shards, key=lambda w: (ORDER.index(_plain(w)), w.shard.number))
    chosen = ranked if most is None else ranked[:most]
    for w in sorted(chosen, key=lambda w: w.shard.number):
        word = w.word() + (f": {w.state.reason}" if w.word() == "pending" and w.state.reason else "")
        left = duration(w.left_s(1.0)) if w.state.word == "running" and w.open else ""
        table.add_row(
            str(w.shard.number), w.shard.jobs[-1] if w.shard.jobs else "", word, w.state.node,
            f"{w.rows.done}/{w.shard.tasks}", str(w.rows.failed or ""), left,
        )  # fmt: skip
    if more := len(shards) - len(chosen):
        table.add_row("", "", f"and {more} more", "", "", "", "")
    return table


def _plain(w: Watched) -> str:
    return w.word().partition(",")[0]


def _line(w: Watched) -> str:
    where = f" on {w.state.node}" if w.state.node and w.word() == "running" else ""
    reason = f" ({w.state.reason})" if w.state.reason and w.word() == "pending" else ""
    job = f", job {w.shard.jobs[-1]}" if w.shard.jobs else ""
    failed = f", {w.rows.failed} failed" if w.rows.failed else ""
    return f"shard {w.shard.number}{job}: {w.word()}{where}{reason}; {w.rows.done} of {w.shard.tasks} cases{failed}"
