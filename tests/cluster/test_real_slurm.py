"""The Slurm of the tests leaves nothing behind, however the process ends that started it."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.cluster.real_slurm import NODES, RealSlurm, remove_orphans
from tests.conftest import ROOT, is_running, wait_for

START = """
import sys, time
from tests.cluster.real_slurm import running
with running() as slurm:
    job = slurm.sbatch(f"echo $$ > {slurm.folder}/job.pid; exec sleep 600")
    slurm.wait_state(job, "RUNNING")
    print(slurm.folder, flush=True)
    if sys.argv[1] == "stay":
        time.sleep(600)
"""


def started(how: str) -> tuple[Path, subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", START, how], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return Path(process.stdout.readline().strip()), process


def of(folder: Path) -> list[psutil.Process]:
    """What has that Slurm's configuration on its command line."""
    return [p for p in psutil.process_iter() if any(str(folder / "slurm.conf") in word for word in words(p))]


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_two_at_once_and_each_ends_with_its_process(slurm: RealSlurm) -> None:
    folder, process = started("go")
    process.communicate(timeout=60)
    assert process.returncode == 0 and not folder.exists() and not of(folder)

    folder, process = started("stay")
    daemons = [p.name() for p in of(folder) if p.name() != "slurmstepd"]  # steps that are still ending beside them
    assert folder != slurm.folder and sorted(daemons) == ["slurmctld"] + ["slurmd"] * len(NODES)
    job = int(wait_for(lambda: (path := folder / "job.pid").exists() and path.read_text()))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not of(folder))
    remove_orphans()
    assert not folder.exists()
    wait_for(lambda: not is_running(job))
    assert slurm.nodes("idle") == set(NODES), "and no other has lost anything"
