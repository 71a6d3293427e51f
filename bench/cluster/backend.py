"""The two that run jobs: Slurm, and this machine itself. Both by submitit."""

from pathlib import Path

from bench.cluster.jobs import Backend, JobState, Options, Payload, Unreachable
from bench.cluster.local import Local
from bench.cluster.slurm import Slurm

__all__ = ["Backend", "JobState", "Options", "Payload", "Unreachable", "backend"]


def backend(name: str, jobs: Path) -> Backend:
    """The backend that --on names, slurm or local, for jobs whose files stand in the folder `jobs`."""
    return Slurm(jobs) if name == "slurm" else Local(jobs)
