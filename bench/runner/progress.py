"""What a person sees while a run goes on: a live panel on a terminal, and lines that stay, one comparison at a time."""

from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from bench.case import Case
from bench.case.schema import Status
from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from bench.runner.rounds import Rounds
from bench.runner.seat import Seat
from bench.terminal import Progress, duration, shown

# Seconds of a case beside its samples, until the first comparison has shown how long they are.
BESIDE_SAMPLES_S = 3.0


class Display(Progress):
    """Progress of a run: the comparison at hand and its ratios as they settle are redrawn in place."""

    def __init__(self, total: int = 0, console: Console | None = None) -> None:
        super().__init__(total, console=console)
        self._title = self._phase = self._now = ""
        self._ratios: list[tuple[str, str]] = []
        self._lines: list[str] = []  # of the comparison at hand
        self._case_s, self._told_at = 0.0, 0.0
        self._live = Live(get_renderable=self._panel, console=self.console, refresh_per_second=4, transient=True)

    def start_drawing(self) -> None:
        self._live.start()

    def stop_drawing(self) -> None:
        self._live.stop()

    def expect(self, cases: int, budget_s: float) -> None:
        """So many cases will be timed, each for about so long."""
        self.total, self._case_s = cases, budget_s + BESIDE_SAMPLES_S

    def begin(self, case: Case) -> None:
        """A comparison begins; `case` is one of its cases."""
        self._title = f"{case.subject} {case.level}, {case.conditions}"
        self._phase, self._now, self._ratios, self._lines = "starting", "", [], []

    def working(self, case: Case) -> None:
        """The worker of this case is waited for."""
        self._now = case.training

    def event(self, event: dict[str, Any]) -> None:
        """A worker's word on its case."""
        if event["event"] == "phase":
            self._phase = event["phase"]
        elif event["event"] == "estimate":
            half = (event["ci_high_ms"] - event["ci_low_ms"]) / 2
            self._phase = f"{event['pass']} {event['median_ms']:.4g} +- {half:.2g} ms, {event['n']} samples"

    def round(self, rounds: Rounds[Seat]) -> None:
        """A round is over."""
        self._phase, self._now = f"round {rounds.done}", "in turns"
        base, *others = rounds.live
        self._ratios = [(base.case.training, "1")]
        self._ratios += [(s.case.training, _short(found[-1])) for s in others if (found := rounds.ratios(s))]

    def finish(self, case: Case, rows: list[dict[str, Any]]) -> None:
        """A case is on disk."""
        self.done += 1
        self._lines.append(_line(case, rows))

    def end(self) -> None:
        """The comparison is over: a line for each of its cases."""
        self._case_s, self._told_at = self.elapsed_s / max(self.done, 1), self.elapsed_s
        self.say(f"[{self.done}/{self.total}] {self._title}  ({self.left()})")
        for line in self._lines:
            self.say(line)

    def left(self) -> str:
        """'about 1:20 left': counts down between comparisons."""
        seconds = self._case_s * (self.total - self.done) - (self.elapsed_s - self._told_at)
        return f"about {duration(max(seconds, 1.0))} left" if self.done < self.total else "done"

    def _panel(self) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_row(shown("now"), shown(self._title))
        table.add_row("", shown(f"{self._now}: {self._phase}" if self._now else self._phase))
        for training, ratio in self._ratios:
            table.add_row("", shown(f"{training:<26} {ratio}"))
        table.add_row(
            shown("done"), shown(f"{self.done} of {self.total} cases, {duration(self.elapsed_s)}, {self.left()}")
        )
        return Group(table)


def _short(found: Estimate) -> str:
    return f"{found.value:.3f}" if found.half is None else f"{found.value:.3f} +- {found.half:.3f}"


def _line(case: Case, rows: list[dict[str, Any]]) -> str:
    """'  lora/eager r8      forward-backward 76.13 ms   0.631 [0.612, 0.650]': of the pass that holds the others, under
    the headline's clock; or how it failed."""
    ok = [r for r in rows if r["status"] == Status.ok and r["clock"] == rows[0]["clock"]]
    words = f"  {case.training:<26} "
    bad = {r["clock"]: r for r in rows if r["status"] not in (Status.ok, Status.unsupported)}
    if ok:
        row = ok[-1]
        ratio = "1" if row["ratio_to"] == case.case_id else ""
        if row["ratio"] is not None and not ratio:
            ratio = with_interval(Estimate(row["ratio"], row["ratio_low"], row["ratio_high"]))
        words += f"{row['pass']} {row['median_ms']:.4g} ms  {ratio}".rstrip()
    elif not bad:
        words += f"{rows[0]['status']}: {rows[0]['detail']}"
    if not ok and len({(r["status"], r["detail"]) for r in bad.values()}) == 1:
        bad = {"all clocks": next(iter(bad.values()))}
    return words + "".join(f"  {c}: {r['status']}: {r['detail']}" for c, r in bad.items())
