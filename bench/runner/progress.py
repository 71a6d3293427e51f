"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.case import Case
from bench.case.schema import Status


def duration(seconds: float) -> str:
    """3 s, 2:05 or 1:02:05."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


class Display:
    """Progress of a run. Use as a context; on a terminal the current case and its estimate are redrawn in place."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._total = total
        self._done = 0
        self._case = self._phase = self._estimate = ""
        self._started = time.monotonic()
        self._live = Live(get_renderable=self._panel, console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        self._started = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def begin(self, case: Case) -> None:
        self._case, self._phase, self._estimate = case.describe(), "starting a process", ""

    def event(self, event: dict[str, Any]) -> None:
        """A child's word on the current case."""
        if event["event"] == "phase":
            self._phase = event["phase"]
        elif event["event"] == "estimate":
            half = (event["ci_high_ms"] - event["ci_low_ms"]) / 2
            self._estimate = f"{event['pass']} {event['median_ms']:.4g} +- {half:.2g} ms, {event['n']} samples"

    def finish(self, case: Case, rows: list[dict[str, Any]]) -> None:
        """A case is on disk: one line for it."""
        self._done += 1
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
        self.say(f"[{self._done}/{self._total}] {case.describe()}: {found}  ({self._left()} to go)")

    def _left(self) -> str:
        if not self._done:
            return "unknown time"
        return duration((time.monotonic() - self._started) / self._done * (self._total - self._done))

    def _panel(self) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_row("now", Text(self._case))
        table.add_row(self._phase, Text(self._estimate))
        elapsed = duration(time.monotonic() - self._started)
        table.add_row("done", f"{self._done} of {self._total} cases in {elapsed}, {self._left()} to go")
        return Group(table)
