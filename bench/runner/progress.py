"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.case import Case
from bench.case.schema import Status
from bench.terminal import Progress, duration


class Display(Progress):
    """Progress of a run; the current case and its estimate are redrawn in place."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        super().__init__(total, console=console)
        self._case = self._phase = self._estimate = ""
        self._live = Live(get_renderable=self._panel, console=self.console, refresh_per_second=4, transient=True)

    def start_drawing(self) -> None:
        self._live.start()

    def stop_drawing(self) -> None:
        self._live.stop()

    def begin(self, case: Case) -> None:
        self._case, self._phase, self._estimate = case.describe(), "starting a process", ""

    def event(self, event: dict[str, Any]) -> None:
        """A worker's word on the current case."""
        if event["event"] == "phase":
            self._phase = event["phase"]
        elif event["event"] == "estimate":
            half = (event["ci_high_ms"] - event["ci_low_ms"]) / 2
            self._estimate = f"{event['pass']} {event['median_ms']:.4g} +- {half:.2g} ms, {event['n']} samples"

    def finish(self, case: Case, rows: list[dict[str, Any]]) -> None:
        """A case is on disk: one line for it."""
        self.done += 1
        ok = [r for r in rows if r["status"] == Status.ok and r["clock"] != "host"]
        if ok:
            clocks = dict.fromkeys(r["clock"] for r in ok)
            found = "; ".join(
                (f"{c}: " if len(clocks) > 1 else "")
                + "  ".join(f"{r['pass']} {r['median_ms']:.4g} ms" for r in ok if r["clock"] == c)
                for c in clocks
            )
            found += "  (noisy)" if any(r["noisy"] for r in ok) else ""
            bad = {r["clock"]: r for r in rows if r["status"] != Status.ok and r["clock"] != "host"}
            found += "".join(f"; {c}: {r['status']}: {r['detail']}" for c, r in bad.items())
        else:
            found = f"{rows[0]['status']}: {rows[0]['detail']}"
        self.say(f"[{self.done}/{self.total}] {case.describe()}: {found}  ({self.left()})")

    def _panel(self) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_row("now", Text(self._case))
        table.add_row(self._phase, Text(self._estimate))
        table.add_row("done", f"{self.done} of {self.total} cases in {duration(self.elapsed_s)}, {self.left()}")
        return Group(table)
