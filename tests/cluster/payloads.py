"""What the tests run as jobs: it notes how it was called, waits to be let go, and ends as it was told."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cluster.backend import Backend, JobState
from tests.conftest import wait_for

NOTED = ("SLURMD_NODENAME", "LORABENCH_LOCKS", "CUDA_VISIBLE_DEVICES", "SRUN_CPUS_PER_TASK", "MARK")


@dataclass(frozen=True)
class Noted:
    """A payload whose calls can be read from the file `notes`."""

    notes: Path
    wait: bool = False  # for the file `notes`.go
    status: int = 0
    gpu: int | None = None
    deaf: bool = False  # to SIGUSR2

    def __call__(self) -> None:
        if self.deaf:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self._note(pid=os.getpid(), cwd=str(Path.cwd()), **{name: os.environ.get(name) for name in NOTED})
        print(f"call {len(self.calls())}", flush=True)
        while self.wait and not self._go.exists():
            time.sleep(0.05)
        if self.status:
            sys.exit(self.status)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        self._note(checkpoint=True)
        return DelayedSubmission(self)

    def _note(self, **what: object) -> None:
        with self.notes.open("a") as file:
            file.write(json.dumps(what) + "\n")

    @property
    def _go(self) -> Path:
        return self.notes.with_name(self.notes.name + ".go")

    def go(self) -> None:
        """Lets it end."""
        self._go.touch()

    def _noted(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []

    def calls(self) -> list[dict[str, Any]]:
        """What each call found."""
        return [note for note in self._noted() if "pid" in note]

    def called(self, times: int = 1) -> dict[str, Any]:
        """Waits for the call of that number, and returns what it found."""
        return dict(wait_for(lambda: len(self.calls()) >= times and self.calls()[times - 1]))

    def checkpoints(self) -> int:
        return len(self._noted()) - len(self.calls())


def until(backend: Backend, job: str, *wanted: str) -> JobState:
    """Waits until the job's word, or how it ended, is one of those."""

    def look() -> JobState | None:
        state = backend.states([job])[job]
        return state if {state.word, state.how} & set(wanted) else None

    return wait_for(look, 180)  # type: ignore[no-any-return]
