"""python -m bench cross-check: the same work under our GPU clocks and under clocks that others wrote.

triton.testing.do_bench times the eager call between events, behind a write over a large buffer. nvbench (the package
cuda-bench, optional) times it between events behind a kernel that blocks the stream, after flushing the L2 cache. Our
clocks flush it too, whatever the case says, so all of them time the same: cold, forward first.
"""

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.case import Case
from bench.devices import Device, choose, gpus, visible_index
from bench.errors import UserError
from bench.process import terminate_as_interrupt
from bench.runner.lock import only_run_on
from bench.sweeps.expand import make_plan
from bench.terminal import output, plain_table, say
from bench.timing.settings import MeasureSettings

PASSES = ("forward", "forward-backward")
OURS = ("device", "graph")
WORTH_MS = 1.0  # below, what the events themselves take is a percent and more

Times = dict[tuple[str, str], dict[str, float]]  # (case_id, pass) -> clock -> median in ms


def compare(sweep: str, gpu: str, where: tuple[str, ...]) -> int:
    """Prints a table of times and of differences to clock device, in percent, and a closing sentence; returns 0.

    Raises UserError where there is no GPU, or no case at level linear.
    """
    device = choose(gpu, gpus())
    if device.is_cpu:
        raise UserError(
            f"--gpu {gpu}: cross-check compares clocks of CUDA kernels, and needs an NVIDIA GPU; found none"
        )
    plan = make_plan(sweep, False, where)
    cases = [c for c in plan.cases if c.level == "linear"]
    if not cases:
        raise UserError(f"sweep {sweep!r}: cross-check times single layers, and no case left is at level linear")
    # Both are read when CUDA starts, which is later: nothing so far has imported torch.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ.setdefault("CUDA_SCALE_LAUNCH_QUEUES", "4x")
    with terminate_as_interrupt(), only_run_on(device, say):
        times = _measure(cases, device, plan.settings)
    _show(cases, times, device)
    return 0


def _measure(cases: list[Case], device: Device, settings: MeasureSettings) -> Times:
    import torch

    where = torch.device("cuda", visible_index(device))
    torch.cuda.set_device(where)
    times: Times = {(c.case_id, p): {} for c in cases for p in PASSES}
    # A capture that fails may spoil the process: graph comes last.
    for name, clock in {"device": _ours, "do_bench": _do_bench}.items():
        for case in cases:
            for pass_, ms in clock(name, _work(case, where), where, settings).items():
                times[case.case_id, pass_][name] = ms
    if find_spec("cuda") and find_spec("cuda.bench"):
        for key, ms in _nvbench(cases, where).items():
            times[key]["nvbench"] = ms
    else:
        say("nvbench is not installed (pip install cuda-bench): compared with do_bench alone")
    for case in cases:
        for pass_, ms in _ours("graph", _work(case, where), where, settings).items():
            times[case.case_id, pass_]["graph"] = ms
    return times


def _work(case: Case, where: Any) -> Any:
    from bench.models.build import build

    return build(case, str(where))


def _ours(name: str, work: Any, where: Any, settings: MeasureSettings) -> dict[str, float]:
    from bench.record.stats import summarize
    from bench.timing.clocks import make_clock
    from bench.timing.sampler import measure

    m = measure(work, make_clock(name, where, True, settings), PASSES, "linear", settings)
    if not m.samples_ms:
        say(f"{work.case.describe()}: clock {name} is {m.status}: {m.detail}")
    return {p: summarize(m.samples_ms[p, name]).median_ms for p in PASSES if m.samples_ms}


def calls(work: Any) -> dict[str, Callable[[], None]]:
    """What is timed, as functions without arguments; gradients have to be cleared between two calls."""
    return {"forward": lambda: _forward(work), "forward-backward": lambda: work.backward(work.forward())}


def _forward(work: Any) -> None:
    work.forward()


def _do_bench(_name: str, work: Any, _where: Any, _settings: MeasureSettings) -> dict[str, float]:
    from triton.testing import do_bench

    leaves = [leaf for _, leaf in work.leaves]
    return {
        p: float(do_bench(call, warmup=200, rep=500, grad_to_none=leaves, return_mode="median"))
        for p, call in calls(work).items()
    }


def _nvbench(cases: list[Case], where: Any) -> dict[tuple[str, str], float]:
    """Median (older versions: mean) of nvbench's cold measurements in ms, by (case_id, pass)."""
    import cuda.bench as nvbench  # type: ignore[import-not-found, unused-ignore]
    import torch

    def register(case: Case, pass_: str) -> None:
        def run(state: Any) -> None:
            def on(stream: Any) -> Any:
                return torch.cuda.stream(torch.cuda.ExternalStream(stream.addressof(), device=where))

            work = _work(case, where)
            torch.cuda.synchronize(where)  # it was made on another stream

            def launch(launched: Any) -> None:
                with on(launched.get_stream()):
                    work.clear()
                    calls(work)[pass_]()

            with on(state.get_stream()):  # nvbench blocks the stream: no allocation may be left to make then
                for _ in range(5):
                    work.clear()
                    calls(work)[pass_]()
            torch.cuda.synchronize(where)
            state.exec(launch, batched=False)

        nvbench.register(run).set_name(f"{case.case_id} {pass_}")

    for case in cases:
        for pass_ in PASSES:
            register(case, pass_)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nvbench.json"
        arguments = ["--devices", str(where.index), "--json", str(path), "--quiet"]
        nvbench.run_all_benchmarks([sys.argv[0], *arguments])
        return nvbench_times(json.loads(path.read_text()))


def nvbench_times(result: dict[str, Any]) -> dict[tuple[str, str], float]:
    """(case_id, pass) -> ms out of what nvbench writes; benchmarks that it skipped are left out."""
    found = {}
    for benchmark in result["benchmarks"]:
        case_id, _, pass_ = benchmark["name"].partition(" ")
        for state in benchmark["states"]:
            values = {s["tag"]: s["data"] for s in state.get("summaries") or []}
            data = values.get("nv/cold/time/gpu/median") or values.get("nv/cold/time/gpu/mean")
            if data:
                found[case_id, pass_] = 1e3 * float(next(d["value"] for d in data if d["name"] == "value"))
    return found


def differences(times: Times) -> dict[tuple[str, str], dict[str, float]]:
    """In percent of clock device, for each other clock; nothing where device found no time."""
    return {
        key: {name: 100 * (ms / found["device"] - 1) for name, ms in found.items() if name != "device"}
        for key, found in times.items()
        if "device" in found
    }


def closing_sentence(times: Times, device: Device) -> str:
    """The largest difference to an outside clock on kernels long enough to compare."""
    outside = [
        (abs(percent), name)
        for key, found in differences(times).items()
        if times[key]["device"] >= WORTH_MS
        for name, percent in found.items()
        if name not in OURS and math.isfinite(percent)
    ]
    if not outside:
        return (
            f"No call takes {WORTH_MS:g} ms on {device.name}: the differences are mostly what events themselves take."
        )
    percent, name = max(outside)
    return (
        f"On calls above {WORTH_MS:g} ms, clock device and {name} differ by at most {percent:.2f} % on {device.name}."
    )


def _show(cases: list[Case], times: Times, device: Device) -> None:
    names = list(dict.fromkeys(name for found in times.values() for name in found))
    heads = [f"{name}, ms" if name == "device" else f"{name}, ms (to device)" for name in names]
    table = plain_table(("case", "pass", *heads), right=heads)
    apart = differences(times)
    for case in cases:
        for pass_ in PASSES:
            found, percents = times[case.case_id, pass_], apart.get((case.case_id, pass_), {})
            cells = [
                "" if name not in found
                else f"{found[name]:.4f}" + (f" ({percents[name]:+.2f} %)" if name in percents else "")
                for name in names
            ]  # fmt: skip
            table.add_row(case.describe(), pass_, *cells)
    console = output()
    console.print(table)
    console.print(closing_sentence(times, device))
