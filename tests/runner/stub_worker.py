"""A worker that is none: it answers the scheduler's commands at once, as a test wants it to."""

from itertools import count
from pathlib import Path
from typing import Any

from bench.case.clocks import clocks_of

PASSES = ("forward", "backward", "forward-backward")


class StubWorker:
    """Answers each command at once; `script` changes what it says to the commands of a case."""

    pid = 1
    made: "list[StubWorker]" = []  # noqa: RUF012
    ends: list[int] = []  # noqa: RUF012
    script: Any = None

    def __init__(self, log: Path, timeout_s: float, models: bool = False) -> None:
        self.log, self.alive, self.closed = log, True, False
        self.job: dict[str, Any] | None = None
        self.commands: list[dict[str, Any]] = []
        StubWorker.made.append(self)

    def send(self, command: dict[str, Any]) -> None:
        if self.job is None:
            self.job = command
        else:
            self.commands.append(command)

    def __exit__(self, *_: object) -> None:
        self.alive, self.closed = False, True

    def events(self) -> Any:
        yield {"event": "hello", "own": [7], "cuda": "13.0", "gpu_clocks": {"locked": False}}
        if self.job and self.job["ceilings"]:
            yield {"event": "ceilings", "found": {"bf16": 989.0}}
        for i in count():  # whoever asks for the next event has sent a command before
            answer = StubWorker.script(self, self.commands[i])
            if answer is None:
                return
            yield answer

    def wait(self) -> int:
        return StubWorker.ends.pop(0) if StubWorker.ends else 0

    def last_words(self) -> str:
        return "CUDA error: an illegal memory access"


def answer(worker: StubWorker, command: dict[str, Any]) -> dict[str, Any]:
    """What a worker says when all goes well."""
    match command["do"]:
        case "prepare":
            return {"event": "prepared", "spent": {"building": 1.0}}
        case "begin":
            return {"event": "begun"}
        case "block":
            keys = [(p, c) for c in clocks_of("eager") for p in PASSES]
            return {"event": "block", "samples": [[p, c, [2.0, 2.1]] for p, c in keys]}
        case "end":
            begun = max(i for i, c in enumerate(worker.commands) if c["do"] == "begin")
            rounds = [c["number"] for c in worker.commands[begun:] if c["do"] == "block"]
            return measured("eager", rounds=[r for r in rounds for _ in range(2)])
        case "alone":
            return measured(command["clock"])
        case _:
            return {"event": "done", "last": False}


def measured(clock: str, status: str = "ok", detail: str | None = None, rounds: Any = None) -> dict[str, Any]:
    """A worker's word on one clock."""
    samples = [1.0, 1.1, 0.9] if rounds is None else [2.0, 2.1] * (len(rounds) // 2)
    numbers = {"samples_ms": samples, "stop": "converged", "dropped": 0, "refresh_ms": None,
               "launches": 3 if clock == "graph" else None, "sm_clock_mhz": 1980,
               **({} if rounds is None else {"rounds": rounds})}  # fmt: skip
    series = [
        {"pass": p, "clock": c, "status": status, "detail": detail, **(numbers if status == "ok" else {})}
        for c in clocks_of(clock)
        for p in PASSES
    ]
    return {"event": "measured", "series": series, "peak_mib": 5.0, "model_dropout": 0.0, "attention": None,
            "clocks_set": True, "spoiled": False, "spent": {"measuring": 1.0}}  # fmt: skip
