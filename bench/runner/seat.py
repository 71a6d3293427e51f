"""A case that takes part in a comparison: its lane, what it has measured, and how it was lost, if it was."""

from typing import Any

from bench.case import Case
from bench.case.schema import Status
from bench.runner.lane import Lane, Lost
from bench.runner.rounds import Gone
from bench.runner.worker_process import Event
from bench.timing.measurement import Samples


class Seat:
    """One case of one repeat. Once it is lost, it answers nothing more."""

    def __init__(self, case: Case, repeat: int, recorded: bool = True) -> None:
        """recorded: False for a baseline that was measured before, and is there as company."""
        self.case, self.repeat, self.recorded = case, repeat, recorded
        self.lane: Lane | None = None
        self.siblings: list[int] = []  # the other lanes' processes as NVML counts them
        self.lost: Lost | None = None
        self.in_rounds = False  # whether it was lost in rounds, beside others
        self.spoiled = False  # its worker must not measure anything more
        self.measured: list[Event] = []  # one event a clock

    @property
    def live(self) -> bool:
        return self.lost is None and not self.spoiled

    @property
    def process(self) -> str | None:
        return self.lane.process if self.lane else None

    @property
    def results(self) -> list[Event]:
        """What it has measured, unless that turned out wrong."""
        return [] if self.lost is not None and self.lost.status is Status.wrong else self.measured

    def send(self, do: str, **values: Any) -> None:
        if self.lost is None and self.lane is not None:
            self.lane.send(do, siblings=self.siblings, **values)

    def hear(self, answer: str) -> Event | None:
        """The answer to what was sent; None where the case was lost, now or before."""
        if self.lost is not None or self.lane is None:
            return None
        try:
            event = self.lane.hear(answer)
        except Lost as e:
            self.lost = e
            return None
        if event.get("last"):
            self.lane.close()
        if answer == "measured":
            self.measured.append(event)
            self.spoiled = event["spoiled"]
        return event

    def ask(self, do: str, answer: str, **values: Any) -> Event | None:
        self.send(do, **values)
        return self.hear(answer)

    def block(self, number: int, seconds: float) -> Samples:
        """Its block of a round, as rounds.Turn has it."""
        event = self.ask("block", "block", number=number, seconds=seconds)
        if event is None or not event["samples"]:
            raise Gone
        return {(p, clock): samples for p, clock, samples in event["samples"]}
