"""Jobs on this machine, by submitit's LocalExecutor: each is a controller and the process that it runs."""

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import psutil

from bench.cluster.jobs import JobState, Options, Payload, Unreachable, check_submitit, ended_by_result
from bench.errors import UserError, short
from bench.record.environment import ROOT


def local_id(folder: Path, pid: str) -> str:
    """The id of a job: its submission's folder, its controller and this machine."""
    return f"{folder.name}-{pid}-{socket.gethostname()}"


def _parts(job: str) -> Sequence[str]:
    """Submission, controller and machine. Raises UserError for what is no id of ours."""
    found = re.fullmatch("([0-9]+)-([0-9]+)-(.+)", job)
    if not found:
        raise UserError(f"{short(job)}: no job of --on local, which are NUMBER-PID-HOST. Copy the folder again.")
    return found.groups()


class Local:
    """This machine. The id of a job is NUMBER-PID-HOST: its submission, which has a folder of its own, and its
    controller."""

    name = "local"

    def __init__(self, jobs: Path) -> None:
        self._jobs = jobs.absolute()

    def check(self) -> None:
        check_submitit(self.name)

    def submit(self, payloads: Sequence[Payload], options: Options) -> list[str]:
        folder = self._new_folder()
        errors = folder / "start.err"
        # A process of its own starts them, without this terminal: neither Ctrl-C nor its closing reaches them, and the
        # system, not this process, hears of their end.
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with errors.open("ab") as err:
            done = subprocess.run(
                [sys.executable, "-m", "bench.cluster.start"],
                input=pickle.dumps((folder, options.python, options.retries, list(payloads))),
                stdout=subprocess.PIPE, stderr=err, cwd=ROOT, start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
            )  # fmt: skip
        if done.returncode:
            said = errors.read_text(errors="replace").strip().splitlines()[-1:] or ["it gave no reason"]
            raise UserError(f"--on local: the jobs cannot be started: {said[0]}. {errors} has all of it.")
        return [local_id(folder, pid) for pid in done.stdout.decode().split()]

    def _new_folder(self) -> Path:
        self._jobs.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            with suppress(FileExistsError):
                (folder := self._jobs / str(number)).mkdir()
                return folder
        raise AssertionError

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        running = self._running(ids)
        return {job: self._state(job, bool(running.get(job))) for job in ids}

    def _state(self, job: str, running: bool) -> JobState:
        if running:
            return JobState("running", socket.gethostname())
        folder, pid = self._place(job)
        how = ended_by_result(folder / f"{pid}_0_result.pkl")
        if not how:
            how = "cancelled" if (folder / f"{pid}_cancelled").exists() else "failed"
        return JobState("ended", socket.gethostname(), how=how)

    def cancel(self, ids: Sequence[str]) -> None:
        for job, processes in self._running(ids).items():
            folder, pid = self._place(job)
            (folder / f"{pid}_cancelled").touch()
            with suppress(psutil.NoSuchProcess):
                if controller := next((p for p in processes if str(p.pid) == pid), None):
                    controller.send_signal(signal.SIGINT)  # as submitit cancels: the job is interrupted, then killed
                else:
                    for left in processes:
                        left.kill()

    def log(self, job: str) -> Path:
        folder, pid = self._place(job)
        return folder / f"{pid}_0_log.out"

    def _place(self, job: str) -> tuple[Path, str]:
        number, pid, _ = _parts(job)
        return self._jobs / number, pid

    def _running(self, ids: Sequence[str]) -> dict[str, list[psutil.Process]]:
        """The processes of those jobs that have any: the controller, and what it runs, which outlives it where only it
        was killed. A pid that went to another process since is told by the folder, which no two submissions share."""
        host = socket.gethostname()
        for _, _, other in map(_parts, ids):
            if other != host:
                raise Unreachable(f"the jobs run on {other}, and this is {host}")
        found: dict[str, list[psutil.Process]] = {}
        wanted = set(ids)
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                words = process.cmdline()
                if len(words) < 3 or not Path(words[-1]).parent.samefile(self._jobs):
                    continue
                if "submitit.local._local" in words:
                    pid = str(process.pid)
                elif "submitit.core._submit" in words:
                    pid = process.environ().get("SUBMITIT_LOCAL_JOB_ID", "")
                else:
                    continue
                job = local_id(Path(words[-1]), pid)
                if job in wanted:
                    found.setdefault(job, []).append(process)
        return found
