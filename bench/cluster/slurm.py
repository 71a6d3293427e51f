"""Jobs of Slurm: submitted by submitit, watched by squeue, which every site has; sacct needs a database."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.cluster.jobs import How, JobState, Options, Payload, Unreachable, check_submitit, ended_by_result
from bench.errors import UserError
from bench.record.environment import ROOT

# How long before the time limit, or the end of a preemption's grace, a job hears SIGUSR2. Ending a worker may take 30 s
# (bench.process.AGAIN_S) and submitit gives `scontrol requeue` 60 s; Slurm itself may be up to 60 s early.
SIGNAL_S = 120
ANSWER_S = 60  # Slurm's own MessageTimeout is 10 s, and its commands try again

PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
# What sbatch says where nobody answers now. The job may be there all the same; nobody lists it, so that it ends itself.
AWAY = ("Unable to contact slurm controller", "timed out", "Connection refused", "Zero Bytes were transmitted")
ENDED: dict[str, How] = {
    "COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "cancelled", "REVOKED": "cancelled",
    "TIMEOUT": "timeout", "DEADLINE": "timeout", "NODE_FAIL": "node_fail", "BOOT_FAIL": "node_fail",
    "PREEMPTED": "preempted", "OUT_OF_MEMORY": "out_of_memory",
}  # fmt: skip
VARIABLES = {
    "array": "ARRAY_INX",
    "time": "TIMELIMIT",
    "mem": "MEM_PER_NODE",
}  # SBATCH_..., not as the option is called
# Options of sbatch that the jobs depend on: one process, on the cluster that squeue asks, whose output goes to its log.
OURS = (
    "array", "chdir", "clusters", "error", "job_name", "nodes", "ntasks", "ntasks_per_node", "open_mode", "output",
    "parsable", "signal", "test_only", "wait", "wrap",
)  # fmt: skip


class Slurm:
    """The Slurm that sbatch on the PATH belongs to."""

    name = "slurm"

    def __init__(self, jobs: Path) -> None:
        self._jobs = jobs.absolute()

    def check(self) -> None:
        check_submitit(self.name)
        for command in ("sbatch", "srun", "squeue", "scancel"):
            if not shutil.which(command):
                raise UserError(
                    f"--on slurm: there is no {command} on the PATH. Submit from a login node of the cluster (where"
                    " Slurm is a module, load it first), or measure on this machine: --on local."
                )
        if "%" in str(self._jobs):
            raise UserError(f"--out {self._jobs}: Slurm reads a % in a path as a pattern. Pass a folder without one.")

    def submit(self, payloads: Sequence[Payload], options: Options) -> list[str]:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        minutes, further = _sbatch(options)
        self._jobs.mkdir(parents=True, exist_ok=True)
        try:
            with _own_environment(further), redirect_stderr(StringIO()):  # submitit prints there what it raises too
                executor = submitit.SlurmExecutor(self._jobs, options.retries, python=options.python)
                executor.update_parameters(
                    job_name="lorabench",
                    time=minutes,
                    signal_delay_s=min(SIGNAL_S, minutes * 15),  # of a short job the last quarter
                    array_parallelism=options.at_most,
                    stderr_to_stdout=True,
                    wckey=None,  # submitit's own is none that a site knows
                    setup=_setup(),
                    # The one process of a job may use all cores that the job was given.
                    srun_args=["--cpu-bind=none"],
                    additional_parameters=further,
                )
                return [job.job_id for job in executor.submit_array(list(payloads))]
        except (FailedJobError, FailedSubmissionError) as e:
            for name in ("[0-9a-f]" * 32 + ".pkl", ".submission_file_*.sh"):  # not what jobs that run have just begun
                for path in self._jobs.glob(name):
                    path.unlink()
            words = _words(str(e))
            if any(sign in words for sign in AWAY):
                raise Unreachable(words) from None
            raise UserError(f"--on slurm: sbatch says: {words}") from None

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        if not ids:
            return {}
        arrays = sorted({job.partition("_")[0] for job in ids})
        told = _ask("squeue", "--all", "--noheader", "--array", "--states=all", "--format=%i|%T|%N|%r",
                    f"--jobs={','.join(arrays)}")  # fmt: skip
        lines = (line.strip().split("|", 3) for line in told.splitlines() if line.count("|") >= 3)
        known = {job: _state(*rest) for job, *rest in lines}
        return {job: known.get(job) or self._forgotten(job) for job in ids}

    def _forgotten(self, job: str) -> JobState:
        """Slurm keeps a job for MinJobAge, 5 minutes by default, after its end."""
        return JobState("ended", how=ended_by_result(self._jobs / f"{job}_0_result.pkl"))

    def cancel(self, ids: Sequence[str]) -> None:
        split = sorted(job.partition("_") for job in ids)
        names = []
        for (array, mark), elements in groupby(split, key=lambda parts: parts[:2]):
            names.append(f"{array}_[{','.join(index for _, _, index in elements)}]" if mark else array)
        if names:
            _ask("scancel", *names)

    def log(self, job: str) -> Path:
        return self._jobs / f"{job}_0_log.out"


def _sbatch(options: Options) -> tuple[int, dict[str, Any]]:
    """The time limit in minutes, and the options that submitit hands to sbatch as they are."""
    given = {key.strip("-").replace("-", "_"): value for key, value in options.sbatch.items()}
    for key in (key for key in given if key in OURS):
        raise UserError(f"--slurm {key.replace('_', '-')}: the jobs depend on it, so it is set here. Leave it out.")
    minutes = options.minutes
    if "time" in given:  # submitit must know it as well
        minutes = _minutes(str(given.pop("time")))
    ours: dict[str, str | bool] = {"requeue": "no_requeue" not in given}
    if options.partition:
        ours["partition"] = options.partition
    if not options.needs_gpu:
        ours |= {"exclusive": True}
    elif not given.get("exclusive"):
        if not any(key == "gres" or key.startswith("gpus") for key in given):
            ours["gres"] = "gpu:1"
        if not any(key.startswith("cpus_per") for key in given):
            ours["cpus_per_task"] = "2"  # for the process that measures and the one that watches it
    merged = ours | given
    if merged.get("exclusive") and not any(key.startswith("mem") for key in given):
        merged["mem"] = "0"  # all of the node's: it is given no more than it asks for, even where it is alone
    return minutes, {key: value for key, value in merged.items() if value is not False}


def _minutes(text: str) -> int:
    """A time limit as Slurm writes it, in whole minutes. Raises UserError."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        raise UserError(f"--slurm time={text}: this is no time. Valid: 90 (minutes), 1:30:00, 2-12 (days and hours).")
    days, *rest = found.groups()
    numbers = [int(part) for part in rest if part is not None]
    if days is None and len(numbers) < 3:  # minutes or minutes:seconds
        numbers = [0, *numbers]
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    return max(1, (int(days or 0) * 24 + hours) * 60 + minutes + (seconds > 0))


def _setup() -> list[str]:
    """Lines of the job's script: this checkout is what Python imports from, in a container too."""
    root = shlex.quote(str(ROOT))
    return [
        f"cd {root} || exit 1",
        f'export PYTHONPATH={root}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        "unset SLURM_EXPORT_ENV",  # where jobs get no environment (--export=NONE), srun passes on what is set here
    ]


@contextmanager
def _own_environment(further: Iterable[str]) -> Iterator[None]:
    """Submits as from a login node: what an interactive job has in its environment would bind the new jobs too. And
    what a person has set for all jobs, as SBATCH_TIMELIMIT, would win over the options that stand in a script."""
    of_a_job = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_") if "SLURM_JOB_ID" in os.environ else ()
    given = {f"SBATCH_{VARIABLES.get(option, option.upper())}" for option in (*OURS, "time", *further)}
    given.add("SBATCH_NO_REQUEUE")
    kept = {k: v for k, v in os.environ.items() if (k.startswith(of_a_job) and k != "SLURM_CONF") or k in given}
    for key in kept:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(kept)


def _state(state: str, node: str, reason: str) -> JobState:
    if state in PENDING:
        return JobState("pending", reason="" if reason == "None" else reason)
    if state in ENDED:
        return JobState("ended", node, how=ENDED[state])
    return JobState("running", node)  # suspended and completing ones still hold their node


def _ask(*command: str) -> str:
    """What a command of Slurm prints. Raises Unreachable. Jobs that it does not know are no failure."""
    try:
        # What a person has squeue leave out would count as ended.
        env = {k: v for k, v in os.environ.items() if not k.startswith("SQUEUE_")}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_S, env=env
        )
    except FileNotFoundError:
        raise Unreachable(f"there is no {command[0]} on the PATH") from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]} did not answer within {ANSWER_S} s") from None
    wrong = [x for x in done.stderr.splitlines() if "Invalid job id" not in x and "already" not in x]
    if done.returncode and wrong:
        raise Unreachable(_words("\n".join(wrong)))
    return done.stdout


def _words(text: str) -> str:
    """What Slurm said, in one line without the names of its programs."""
    lines = (re.sub(r"^\w+:? (error|fatal): ", "", line).strip() for line in text.splitlines())
    return "; ".join(dict.fromkeys(filter(None, lines))) or "it gave no reason"
