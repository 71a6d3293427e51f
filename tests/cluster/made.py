"""A folder with a submission in it, as run --on leaves it, and a queue that does what a test says."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.cluster.backend import JobState, Options, Payload, Unreachable
from bench.cluster.layout import Layout
from bench.cluster.shard import attempt
from bench.cluster.submissions import ShardJobs, Submission, write_submissions
from bench.devices import Device
from bench.runner.plan import comparisons
from bench.runner.scheduler import Scheduler
from bench.sweeps.expand import make_plan
from tests.conftest import SWEEP
from tests.runner.stub_worker import StubWorker

GPUS = [
    Device("a100", "NVIDIA A100-SXM4-40GB", i, f"GPU-{i}{i}{i}", "580.1", 108, 40960) for i in range(2)
]  # alike but for their place and their UUID


def submitted(folder: Path, repeats: int = 1, gpu: str = "a100", backend: str = "slurm") -> tuple[Layout, Submission]:
    """A small sweep of two comparisons, each repeat of each a shard with a job j0, j1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep = folder / "mine.yaml"
    sweep.write_text(SWEEP)
    plan = make_plan(str(sweep), on_cpu=gpu == "cpu")
    layout = Layout(folder)
    name = layout.write_plan(1, plan)
    shards = []
    for i, part in enumerate(comparisons((r, c) for r in range(repeats) for c in plan.cases)):
        layout.write_assignment(i, name, part, gpu=gpu, command="python -m bench run mine.yaml", again="the same")
        shards.append(ShardJobs(i, len(part), 30.0, None, [f"j{i}"]))
    submission = Submission(
        name, backend, "python -m bench run mine.yaml --on slurm", "2026-01-01T00:00:00+00:00", "login", "ann", gpu,
        repeats, False, {"minutes": 30}, {}, shards,
    )  # fmt: skip
    write_submissions(folder, [submission])
    return layout, submission


class StubScheduler(Scheduler):
    """Its workers answer at once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, worker=StubWorker, **options)


def job(layout: Layout, number: int, id_: str | None = None, gpu: Device = GPUS[0]) -> int:
    """What the job of a shard does on a node with that GPU."""
    return attempt(layout.folder, number, id_ or f"j{number}", [gpu], StubScheduler)


class Queue:
    """A backend whose jobs stand as a test says."""

    name = "slurm"

    def __init__(self, **states: JobState) -> None:
        self.known = states
        self.submitted: list[Any] = []
        self.calls: list[int] = []  # of submit: how many
        self.cancelled: list[str] = []
        self.silent = False
        self.refuses: Exception | None = None

    def check(self) -> None:
        pass

    def submit(self, payloads: Sequence[Payload], options: Options) -> list[str]:
        if self.refuses:
            raise self.refuses
        self.submitted += payloads
        self.calls.append(len(payloads))
        ids = [f"again{len(self.submitted) - i}" for i in reversed(range(len(payloads)))]
        self.known |= dict.fromkeys(ids, JobState("pending"))
        return ids

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        if self.silent:
            raise Unreachable("nobody answers")
        return {id_: self.known.get(id_, JobState("ended")) for id_ in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled += ids

    def log(self, job: str) -> Path:
        return Path(f"/nowhere/{job}.out")


running = partial(JobState, "running")
ended = partial(JobState, "ended", "n1")
