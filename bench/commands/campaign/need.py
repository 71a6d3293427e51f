"""How long a campaign's stages take on a GPU, by the sampler's own rules. Without a GPU, and nothing here was measured.

Sweeps take what bench.cluster.model has for them; what it does not know is an ESTIMATE below.
"""

from collections.abc import Sequence

from bench.cluster.model import Stages, board_of, pace, runnable, start_s
from bench.commands.campaign.stages import NO_SWEEPS, STAGES, TUNE_S, part_of
from bench.commands.precompile import layers_of
from bench.devices import Device
from bench.runner.plan import comparisons
from bench.sweeps.expand import Plan, make_plan

# Estimates, in seconds.
TESTS_S = 115.0  # 60 to 80 of the kernels' in 12 processes, and a few of the clocks
COMPILED_PER_LAYER, COMPILE_S, COMPILERS = 4, 1.0, 12  # kernels of a layer at one number of tokens; processes
COMMAND_S = 8.0  # python -m bench run before its first worker, and python -m plots after it


def sweep_s(plan: Plan, device: Device) -> float:
    """A stage that is a sweep, from its command to its report; its kernels are compiled before."""
    board = board_of(device)
    there = runnable(plan, device)
    stages = Stages(plan, device, board, kernels=False)
    seconds = COMMAND_S + start_s(there, board) + board.ceilings_s
    for group in comparisons((0, c) for c in there):
        seconds += sum(stages.compare([c for _, c in group], lambda c, k: pace(c, plan, board, k)).values())
    return seconds


def needs(device: Device, names: Sequence[str] = STAGES) -> dict[str, float]:
    """Seconds of each stage of a campaign on a GPU, in their order, all of them from nothing; estimates."""
    parts = {n: part_of(n) for n in names if n not in NO_SWEEPS}
    plans = {n: make_plan(part.sweep, False, part.where) for n, part in parts.items()}
    layers = len(layers_of(c for plan in plans.values() for c in plan.cases))
    import_s = board_of(device).import_s
    fixed = {
        "gpu-tests": TESTS_S,
        "precompile": import_s + layers * COMPILED_PER_LAYER * COMPILE_S / COMPILERS,
        "tune": import_s + TUNE_S,
        "report": 0.0,  # drawn after each stage
    }
    return {n: fixed[n] if n in fixed else sweep_s(plans[n], device) for n in names}
