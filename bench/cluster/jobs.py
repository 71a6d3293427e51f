"""What the cluster's commands know of jobs, whoever runs them: payloads, options, states, and what a backend can do."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bench.errors import UserError, install
from bench.needs import missing

Word = Literal["pending", "running", "ended"]
How = Literal["", "completed", "failed", "cancelled", "timeout", "node_fail", "preempted", "out_of_memory"]


@dataclass(frozen=True)
class JobState:
    """Where a job stands."""

    word: Word
    node: str = ""  # where it runs or ran
    reason: str = ""  # why it is pending, in Slurm's words
    how: How = ""  # it ended; "" where nobody knows any more


class Unreachable(Exception):
    """Nobody answers now who could tell how the jobs stand: the last known states stay. The text says who, in one
    line."""


class Payload(Protocol):
    """What a job calls, in a process of its own: it comes there as a pickle, so its class stands in a module.

    What __call__ returns is lost. It fails by an exception, or by SystemExit with a status other than 0.
    """

    gpu: int | None  # --on local: the GPU's index in PCI order; None hides all GPUs. Slurm gives a GPU itself

    def __call__(self) -> object: ...

    def checkpoint(self) -> Any:
        """Is called in the main thread on SIGUSR2, before the job is queued again: submitit's DelayedSubmission of what
        to call then, or None where it must not be queued again."""


@dataclass(frozen=True)
class Options:
    """How jobs are submitted. Those of Slurm mean nothing to `local`, which starts all payloads at once."""

    partition: str | None = None  # None: the site's default
    at_most: int = 256  # jobs of one submission that run at once
    minutes: int = 24 * 60  # time limit of one job
    python: str = shlex.quote(sys.executable)  # what starts Python on the nodes, as a shell reads it
    sbatch: Mapping[str, str | bool] = field(default_factory=dict)  # further options; True: a flag, False: not ours
    needs_gpu: bool = True
    retries: int = 3  # how often a job that ran into its time limit is queued again


class Backend(Protocol):
    """Runs payloads as jobs whose files stand in one folder. It keeps nothing: another process, with the same folder,
    knows as much of the jobs."""

    name: str

    def check(self) -> None:
        """Raises UserError where jobs cannot be submitted from here: it says what is missing."""

    def submit(self, payloads: Sequence[Payload], options: Options) -> list[str]:
        """The ids of the jobs, in order. Raises UserError, in Slurm's own words where it refuses: then there is no
        job. Raises Unreachable: then there may be one, which nobody lists."""

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        """How each job stands. Raises Unreachable."""

    def cancel(self, ids: Sequence[str]) -> None:
        """Ends jobs, pending or running; those that have ended stay as they are. Does not wait for their end. Raises
        Unreachable."""

    def log(self, job: str) -> Path:
        """The file that has what a job printed, in all its attempts; there once it has begun."""


def check_submitit(name: str) -> None:
    """Raises UserError where a backend lacks submitit. name: as --on has it."""
    if missing(("submitit",)):
        raise UserError(f"--on {name}: submitit is not installed. Install it: {install('cluster')}")


def ended_by_result(result: Path) -> How:
    """How a job ended, by what submitit left of it; "" where it left nothing. Nothing is unpickled."""
    try:
        with result.open("rb") as file:
            head = file.read(64)  # ("success", ...) or ("error", ...)
    except OSError:
        return ""
    return "completed" if b"success" in head else "failed" if b"error" in head else ""
