"""cluster.json: what was submitted from a folder, and as which jobs."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from bench.case.schema import SCHEMA
from bench.cluster.layout import CLUSTER
from bench.errors import UserError, short
from bench.files import replace_file
from bench.reading import Count, Flag, Number, Object, Text, fields_of, read_object, shape_of

# Words that commands get: none of them an option, a path to elsewhere, or a second line of the job's script.
_Job = Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
_Option = Annotated[Text, Field(pattern=r"^[a-z][a-z_-]*$")]
_Line = Annotated[Text, Field(pattern=r"^[^\n\r]*$")]
_OPTIONS: Any = fields_of(
    {"partition": _Line, "at_most": Count, "minutes": Count, "python": _Line, "needs_gpu": Flag, "retries": Count}
)
_SHARD: Any = fields_of(
    {
        "number": Count,
        "tasks": Count,
        "seconds": Number,
        "gpu_index": Count,
        "jobs": list[_Job],
        "left": Text,
        "done": Count,
        "idle": Count,
    },
    ("number", "tasks", "jobs"),
)
_SUBMISSION: Any = fields_of(
    {**dict.fromkeys(("plan", "command", "at", "host", "user", "gpu"), Text),
     "backend": Literal["slurm", "local"], "repeats": Count,
     "strict": Flag, "options": _OPTIONS, "sbatch": dict[_Option, _Line | Flag], "shards": list[_SHARD]},
    ("plan", "backend", "command", "host", "user", "repeats", "shards"),
)  # fmt: skip
_SHAPE = shape_of({"schema": Count, "submissions": list[_SUBMISSION]}, ("schema", "submissions"))


@dataclass
class ShardJobs:
    """A shard, and the jobs that were submitted for it, the latest last."""

    number: int
    tasks: int
    seconds: float = 0.0  # by estimate
    gpu_index: int | None = None  # of the GPU that it has on this machine; None where the queue assigns it
    jobs: list[str] = field(default_factory=list)
    done: int = 0  # tasks that were when its last job ended
    idle: int = 0  # jobs in a row, up to that one, that finished no task
    left: str = ""  # why no further job is submitted for it, once that is so


@dataclass
class Submission:
    """One `run --on`: what it measures, on what, and its shards."""

    plan: str  # the file
    backend: str
    command: str
    at: str
    host: str
    user: str
    gpu: str
    repeats: int
    strict: bool
    options: Object  # of bench.cluster.backend.Options, but sbatch
    sbatch: Object
    shards: list[ShardJobs]

    @property
    def last_jobs(self) -> list[str]:
        return [shard.jobs[-1] for shard in self.shards if shard.jobs]


def read_submissions(folder: Path) -> list[Submission]:
    """Those of a folder, the latest last; none where nothing was submitted. Raises UserError for a damaged file."""
    path = folder / CLUSTER
    if not path.exists():
        return []
    told = read_object(path, _SHAPE)
    if told["schema"] != SCHEMA:
        raise UserError(f"{path}: found schema {short(told['schema'])}. This version reads schema {SCHEMA} alone.")
    known = Submission.__dataclass_fields__
    found = []
    for one in told["submissions"]:
        shards = [
            ShardJobs(**{k: v for k, v in s.items() if k in ShardJobs.__dataclass_fields__ and v is not None})
            for s in one["shards"]
        ]
        values: Object = dict.fromkeys(known) | {k: v for k, v in one.items() if k in known} | {"shards": shards}
        values |= {
            "options": values["options"] or {},
            "sbatch": values["sbatch"] or {},
            "strict": bool(values["strict"]),
        }
        found.append(Submission(**values))
    return found


def write_submissions(folder: Path, submissions: list[Submission]) -> None:
    told = {"schema": SCHEMA, "submissions": [asdict(s) for s in submissions]}
    replace_file(folder / CLUSTER, json.dumps(told, indent=1) + "\n")
