"""A real Slurm on this machine, for tests: one controller, four nodes, all files in one temporary folder.

Each pytest process that asks for it starts one of its own, in a few seconds. Its daemons die with that process; what a
killed one left (jobs, files) the next start removes. It needs no root: then its jobs run as the person who tests.
"""

import contextlib
import ctypes
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.conftest import wait_for

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
NODES = ("n1", "n2", "n3", "n4")
# An installation puts daemons where the PATH of a person without rights may not look.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
HOME = Path(tempfile.gettempdir()) / f"lorabench-slurm-{getpass.getuser()}"
OWNER = "owner"  # in a Slurm's folder: the pid of the pytest process and when it began

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=8
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/task_prolog
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=2
InactiveLimit=0
SlurmdTimeout=300
MessageTimeout=4
GresTypes=gpu
{nodes}
PartitionName=normal Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=polite Nodes=ALL MaxTime=INFINITE PriorityTier=1 GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""

TASK_PROLOG = """#!/bin/sh
mkdir -p "{folder}/locks/$SLURMD_NODENAME"
echo "export LORABENCH_LOCKS={folder}/locks/$SLURMD_NODENAME"
"""


class RealSlurm:
    """A running Slurm: nodes n1 to n4 with 2 CPUs and a GPU that is none; partitions normal and polite (preemptible,
    polite with 20 s of grace and SIGUSR2), and high, whose jobs preempt theirs. Jobs are queued again after preemption.

    Every node has device locks of its own, as if it were a machine. `env` is what commands need to reach it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name in ("state", "locks", "log", *NODES):
            (self.folder / name).mkdir(parents=True)
        (self.folder / OWNER).write_text(f"{os.getpid()} {psutil.Process().create_time()}")
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        control, *ports = _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 Gres=gpu:1"
            for name, port in zip(NODES, ports, strict=True)
        )
        conf = CONF.format(host=host, control=control, user=getpass.getuser(), folder=self.folder, nodes=nodes)
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu File=/dev/null\n")
        prolog = self.folder / "task_prolog"
        prolog.write_text(TASK_PROLOG.format(folder=self.folder))
        prolog.chmod(0o755)
        files = {f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed", "log")}
        self._run("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        wait_for((self.folder / "munge.socket").exists, 10)
        self.controller_up()
        for name in NODES:
            self._run(name, "-N", name, program="slurmd")
        wait_for(lambda: self.nodes("idle") == set(NODES), 30)

    def _run(self, name: str, *arguments: str, program: str = "") -> None:
        path = shutil.which(program or name, path=SEARCH)
        assert path
        words = [path, *arguments] if name == "munged" else [path, "-D", "-f", self.env["SLURM_CONF"], *arguments]
        here = self.folder / name if name in NODES else self.folder
        with open(self.folder / "log" / f"{name}.out", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                words, env=os.environ | self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=here,
                start_new_session=True, preexec_fn=_die_with_starter(),
            )  # fmt: skip

    def _end(self, name: str, number: int = signal.SIGTERM) -> None:
        if daemon := self._daemons.pop(name, None):
            daemon.send_signal(number)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    # What a test asks and does.

    def command(self, *words: object, check: bool = True) -> str:
        """What a command of Slurm prints, on both streams."""
        done = subprocess.run(
            [str(w) for w in words], env=os.environ | self.env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.stdout}"
        return done.stdout.strip()

    def sbatch(self, script: str, *options: object) -> str:
        """Submits a shell script as it is; the job's id. It prints into job-ID.out of the folder."""
        path = self.folder / "script.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        return self.command("sbatch", "--parsable", f"--output={self.folder}/job-%j.out", *options, path)

    def squeue(self, *options: object) -> dict[str, str]:
        """The state of all jobs and array elements that Slurm still knows, in its words, by id."""
        lines = self.command("squeue", "-h", "-a", "-r", "-t", "all", "-o", "%i %T", *options).splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def scancel(self, *words: object) -> None:
        self.command("scancel", *words)

    def node_of(self, job: str) -> str:
        """Where a job runs."""
        return self.command("squeue", "-h", "-j", job, "-o", "%N")

    def nodes(self, state: str) -> set[str]:
        """The nodes in a state, as sinfo names it."""
        return set(self.command("sinfo", "-h", "-N", "-p", "normal", "-t", state, "-o", "%N", check=False).split())

    def wait_state(self, job: str, *states: str, seconds: float = 60) -> str:
        """Waits until a job is in one of the states, in Slurm's words, and returns it."""
        return str(wait_for(lambda: (s := self.squeue().get(job, "")) in states and s, seconds))

    def node_down(self, name: str) -> None:
        """The node dies with all that runs on it, and the controller learns of it."""
        self._end(name, signal.SIGKILL)
        _kill(self.folder, name)
        self.command("scontrol", "update", f"nodename={name}", "state=down", "reason=test")

    def node_up(self, name: str) -> None:
        """It comes back, empty."""
        if name not in self._daemons:
            self._run(name, "-N", name, program="slurmd")
        wait_for(lambda: name in self.nodes("idle,mixed,allocated,completing") or self._resume(name), 30)

    def _resume(self, name: str) -> None:
        self.command("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        time.sleep(0.2)

    def controller_down(self) -> None:
        """Nobody answers; jobs go on."""
        self._end("slurmctld")

    def controller_up(self) -> None:
        if "slurmctld" not in self._daemons:
            self._run("slurmctld")
        wait_for(lambda: "UP" in self.command("scontrol", "ping", check=False), 30)

    def restart_controller(self) -> None:
        self.controller_down()
        self.controller_up()

    def reset(self) -> None:
        """As it was at first: no jobs, all nodes idle."""
        self.controller_up()
        self.command("scancel", f"--user={getpass.getuser()}", check=False)
        for name in set(NODES) - set(self._daemons) | self.nodes("down,drain,drained,draining"):
            self.node_up(name)
        wait_for(lambda: not self.command("squeue", "-h", "-a", "-o", "%i") and self.nodes("idle") == set(NODES), 60)

    def logs(self) -> str:
        """The last lines of all daemons."""
        told = []
        for path in sorted((self.folder / "log").iterdir()):
            told += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-40:]]
        return "\n".join(told)

    def stop(self) -> None:
        """Ends all of it, jobs too, and removes the files."""
        for name in [n for n in self._daemons if n != "munged"]:
            self._end(name, signal.SIGKILL)  # nothing of it is needed any more
        self._end("munged")
        _remove(self.folder)


def _die_with_starter() -> Callable[[], object]:
    """For a daemon to call first: the kernel (Linux) ends it with the process that started it, however that ends."""
    libc, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to connections, which could take one while its daemon is away."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(range(20000, 32000), 200):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
        return found[:count]


def _kill(folder: Path, node: str = "") -> bool:
    """Kills what belongs to a Slurm, or to one node of it: daemons, jobs, commands. Never this process. Whether there
    was anything."""
    conf = str(folder / "slurm.conf")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == "slurmstepd":  # it hides its environment, and has its folder from slurmd
                ours = Path(process.cwd()).is_relative_to(folder / node)
            else:
                env = process.environ()
                ours = env.get("SLURM_CONF") == conf and node in ("", env.get("SLURMD_NODENAME"))
            if ours and process.pid != os.getpid():
                found.append(process)
    for process in sorted(found, key=lambda p: p.name() != "slurmstepd"):  # these first: a dead node tells nobody
        with contextlib.suppress(psutil.Error):
            process.kill()
    return bool(found)


def _remove(folder: Path) -> None:
    for _ in range(100):  # until nothing has begun meanwhile
        if not _kill(folder):
            break
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def remove_orphans() -> None:
    """Ends and removes each Slurm whose pytest process is gone."""
    for folder in HOME.iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid, began = (folder / OWNER).read_text().split()
            with contextlib.suppress(psutil.Error):
                if abs(psutil.Process(int(pid)).create_time() - float(began)) < 2:
                    continue
            _remove(folder)


def unavailable() -> str:
    """Why there can be no Slurm here; "" where there can."""
    lacking = [name for name in NEEDED if not shutil.which(name, path=SEARCH)]
    return f"needs slurm-wlm and munge: there is no {', '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def running() -> Iterator[RealSlurm]:
    """A Slurm for as long as the context lasts."""
    HOME.mkdir(mode=0o700, exist_ok=True)
    remove_orphans()
    slurm = RealSlurm(Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=HOME)))
    try:
        try:
            slurm.start()
        except Exception as e:
            raise AssertionError(f"Slurm did not start\n{slurm.logs()}") from e
        yield slurm
    finally:
        slurm.stop()
