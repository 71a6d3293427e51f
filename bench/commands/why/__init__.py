"""python -m bench why: each ratio to Full-FT told by its causes. What causes.csv does not have is profiled first."""

import signal
from contextlib import closing
from pathlib import Path

from bench.again import to_go_on
from bench.case import Case
from bench.case.shapes import takes_turns
from bench.commands.why.folder import Known, Only, read_known
from bench.commands.why.sentences import sentences, untold
from bench.devices import Device, choose, cpu_device, gpus
from bench.errors import UserError, one_line, shell_line
from bench.files import refuse_links
from bench.folder import hold, usable
from bench.methods.registry import impl_of, unsupported
from bench.process import terminate_as_interrupt
from bench.record.causes import CAUSES_CSV, write_causes
from bench.record.environment import IDENTITY, provenance, tuned_hash
from bench.runner.lane import Lost
from bench.runner.lock import only_run_on
from bench.runner.plan import results_folder
from bench.runner.profiles import Job, profiles
from bench.sweeps.file import sweep_path
from bench.terminal import Progress, say

TRACES = "traces"


def tell_why(folder: Path | None, only: Only, gpu: str = "auto", trace: bool = False, fresh: bool = False) -> int:
    """Tells on standard output what each ratio of a folder comes from, a sentence each; the exit status: 1 where a case
    could not be profiled.

    folder: by default that of table1 on the device that `gpu` names. trace: keeps a Chrome trace of each case. fresh:
    profiles again what is known. Raises UserError where there is nothing to tell of; and where something would have to
    be profiled that was not measured here and by these sources, after what is known was told.
    """
    if folder is None:
        folder = results_folder(Path("results") / choose(gpu, gpus()).key, sweep_path("table1"))
    elif gpu != "auto":
        raise UserError(f"--gpu {gpu}: {folder} says itself what it was measured on. Give one of the two.")
    known = read_known(folder, only)
    if known.side.torn:
        say(f"{folder / 'rows.jsonl'}: the last line is torn, and passed over")
    for line in untold(known):
        say(line)
    failed = 0
    if todo := _open(known, trace, fresh):
        device = _device(known)
        if differs := _differs(known, device):
            _tell(known)
            raise UserError(_refusal(known, todo, differs))
        usable("DIR", folder)
        with terminate_as_interrupt() as came:
            try:
                with hold(folder, lambda process: say(_waits(process, folder))), only_run_on(device, say):
                    refuse_links(folder)
                    known = read_known(folder, only)
                    failed = _profile(known, _open(known, trace, fresh), device, trace)
            except KeyboardInterrupt:
                say(f"interrupted; what is finished is on disk. To go on: {to_go_on()}")
                return 128 + (came[0] if came else signal.SIGINT)
            except OSError as e:
                raise UserError(f"{e.filename or folder}: {e.strerror}; {CAUSES_CSV} holds what came before") from None
        known = read_known(folder, only)
    _tell(known)
    if trace:
        say(f"Traces, to open at https://ui.perfetto.dev: {folder / TRACES / '<case_id>.json.gz'}")
    return int(failed > 0)


def _waits(process: str, folder: Path) -> str:
    return f"another command (process {process}) is at work in {folder}; waiting until it is done"


def _open(known: Known, trace: bool, fresh: bool) -> list[Case]:
    """The cases to profile."""
    timed = [c for c in known.needed if known.passes(c) and not takes_turns(c.trainable_layers)]
    return [c for c in timed if fresh or known.lacking(c) or (trace and not _trace(known, c).exists())]


def _trace(known: Known, case: Case) -> Path:
    return known.side.folder / TRACES / f"{case.case_id}.json.gz"


def _device(known: Known) -> Device:
    """The device of this machine that comes closest to the one that the folder was measured on."""
    run, here = known.side.run, gpus()
    if run.get("gpu_key") == "cpu":
        return cpu_device()
    same = [d for d in here if d.uuid == run.get("gpu_uuid")] + [d for d in here if d.name == run.get("gpu")]
    return (same or [choose("auto", here)])[0]


def _differs(known: Known, device: Device) -> str:
    """In what this machine and these sources are not those of the record: 'torch 2.12.0 -> 2.13.0'; empty where in
    nothing."""
    run = known.side.run
    here = provenance(device, run.get("threads"))
    return ", ".join(f"{k} {run.get(k)} -> {here.get(k)}" for k in IDENTITY if run.get(k) != here.get(k))


def _refusal(known: Known, todo: list[Case], differs: str) -> str:
    folder, invocations = known.side.folder, known.side.run.get("invocations") or [{}]
    sweep = invocations[-1].get("sweep") or {}
    words = sweep.get("words") or [sweep.get("name") or "table1"]
    again = shell_line(["python", "-m", "bench", "run", *words, "--out", str(folder)])
    return (
        f"{folder}: {len(todo)} of {len(known.needed)} cases are still to be profiled, and they were measured in"
        f" another environment ({differs}). What is profiled must be what was measured: measure again first, by"
        f" {again}, or go on where it was measured."
    )


def _profile(known: Known, todo: list[Case], device: Device, trace: bool) -> int:
    """Profiles cases into causes.csv; how many could not be. Raises OSError."""
    folder, threads, splits = known.side.folder, known.side.run.get("threads"), known.splits
    problems = {case: problem for case in todo if (problem := _cannot(known, case, device))}
    for case, problem in problems.items():
        say(f"{case.describe()}: cannot be profiled: {problem}")
    # On a GPU a worker for each: the profiler loses more kernels with each session of a process (see causes/profiled).
    # On a CPU one for all, as long as it lives: starting one takes 4 to 5 s of a core, a case there 2 to 5 s
    # (two cores of an AMD EPYC).
    logs = {c: folder / "logs" / ("why.log" if device.is_cpu else f"why-{c.case_id}.log") for c in todo}
    jobs = [Job(c, known.medians(c), logs[c], _trace(known, c) if trace else None) for c in todo if c not in problems]
    if jobs:
        say(f"{folder} on {device.name}: {len(jobs)} case{'s' * (len(jobs) != 1)} to profile")
    if jobs and trace:
        (folder / TRACES).mkdir(exist_ok=True)
    progress, failed = Progress(len(jobs)), len(problems)
    with closing(profiles(jobs, device, threads)) as results:
        for job, found in zip(jobs, results, strict=True):
            if isinstance(found, Lost):
                told = f"{found.status}: {found.detail} (log: {job.log})"
            else:
                kept = {key: split for key, split in splits.items() if key[0] != job.case.case_id}
                splits = kept | {(job.case.case_id, *key): split for key, split in found.items()}
                write_causes(folder, splits)
                left = [p for p in known.passes(job.case) if (p, known.clock) not in found]
                told = f"no causes of {', '.join(left)}" if left else ""
            progress.done += 1
            failed += bool(told)
            progress.say(
                f"[{progress.done}/{len(jobs)}] {job.case.describe()} {told or 'profiled'} ({progress.left()})"
            )
    return failed


def _cannot(known: Known, case: Case, device: Device) -> str | None:
    """Why a case that was measured cannot be profiled any more, in a sentence; None where it can."""
    try:
        _ = case.shape  # a config.json may be gone
        if reason := unsupported(case, "cpu" if device.is_cpu else "cuda"):
            return reason
    except UserError as e:
        return str(e)
    measured = {row["tuned"] for row in known.side.rows if row["case_id"] == case.case_id}
    if impl_of(case).tuned and tuned_hash(device) not in measured:
        return "it was measured under other tuned tiles than today's; measure it again first"
    return None


def _tell(known: Known) -> None:
    for told in sentences(known):
        print(one_line(told))
    if known.splits:
        draw = shell_line(["python", "-m", "plots", str(known.side.folder)])
        say(f"Times by cause: {known.side.folder / CAUSES_CSV}; figures: {draw}")
