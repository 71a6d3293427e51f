"""Profiles whose causes are known, each planted alone and mixed: what comes out against what went in."""

import random
import re

import pytest

from bench.case.causes import CAUSES
from bench.causes.attribution import TRITON, Event, Role, Tally, of_pass, tally
from tests.conftest import ROOT

BY_OPERATOR = [c for c in CAUSES if c not in ("optimizer", "refresh", "gaps", "left_over", "fused")]
NAMES = ("aten::mm", "aten::mul", "aten::add", "aten::_to_copy", "aten::view", "aten::index_select")


class Planted:
    """A profile that is made operator by operator, and the truth beside it: us by (phase, cause)."""

    def __init__(self, seed: int = 0) -> None:
        self.roles: list[Role] = []
        self.events: list[Event] = []
        self.truth: dict[tuple[str, str], float] = {}
        self._random = random.Random(seed)

    def operator(
        self, cause: str, us: float, phase: str = "forward", name: str | None = None, gpu: bool = False
    ) -> None:
        """An operator, at random inside of composite ones and with others inside of it, as aten::linear holds
        aten::addmm, and that holds aten::copy_. Its time is spread over all of them."""
        draw = self._random
        name = name or draw.choice(NAMES)
        self.roles.append(Role(name, phase, cause, bytes=8.0, flops=2.0))
        self.truth[phase, cause] = self.truth.get((phase, cause), 0.0) + us
        parts = [draw.random() + 0.1 for _ in range(3)]
        around, own, within = (us * part / sum(parts) for part in parts)
        parent = None
        if draw.random() < 0.5:
            parent = self._event("aten::linear", phase, around, None, gpu)
        else:
            own += around
        # A sum of gradients may be made in place in one of the two runs.
        shown = name + "_" if name == "aten::add" and draw.random() < 0.5 else name
        parent = self._event(shown, phase, own, parent, gpu)
        self._event("aten::add", phase, within, parent, gpu)

    def _event(self, name: str, phase: str, us: float, parent: int | None, gpu: bool) -> int:
        kernels = ((f"kernel of {name}", us),) if gpu else ()
        self.events.append(Event(name, phase, 1.0 if gpu else us, parent, kernels))
        return len(self.events) - 1

    def check(self, gpu: bool = False) -> None:
        found = tally(self.roles, self.events, gpu)
        assert {key: part.us for key, part in found.items() if part.us} == pytest.approx(self.truth, rel=0.02)
        assert sum(part.launches for part in found.values()) == len(self.events)


@pytest.mark.parametrize("gpu", [False, True], ids=["operators", "kernels"])
@pytest.mark.parametrize("cause", BY_OPERATOR)
def test_a_cause_planted_alone(cause: str, gpu: bool) -> None:
    planted = Planted()
    for _ in range(20):
        planted.operator(cause, 10.0, "backward", gpu=gpu)
    planted.check(gpu)


@pytest.mark.parametrize("gpu", [False, True], ids=["operators", "kernels"])
@pytest.mark.parametrize("seed", range(5))
def test_mixtures_of_all_causes_in_both_phases(seed: int, gpu: bool) -> None:
    planted, draw = Planted(seed), random.Random(seed)
    for phase in ("forward", "backward"):
        for _ in range(500):
            planted.operator(draw.choice(BY_OPERATOR), draw.expovariate(0.01), phase, gpu=gpu)
    planted.check(gpu)


def test_what_only_one_of_the_two_runs_saw_costs_no_more_than_itself() -> None:
    planted, draw = Planted(), random.Random(1)
    for i in range(1200):
        planted.operator(draw.choice(BY_OPERATOR), 100.0, name=None if i % 10 else "aten::slice")
        if i % 20 == 7:  # seen by the dispatcher alone
            planted.roles.append(Role("aten::slice", "forward", "casts"))
        if i % 20 == 17:  # timed by the profiler alone
            planted.events.append(Event("aten::slice", "forward", 1.0))
    found = tally(planted.roles, planted.events, on_gpu=False)
    for key, us in planted.truth.items():
        assert found[key].us == pytest.approx(us, rel=0.02)
    assert found["forward", "left_over"].us == pytest.approx(60.0)


def test_views_and_allocations_serve_what_they_were_made_for() -> None:
    """As aten::matmul, which looks at x in another shape before it multiplies; a view alone keeps its cause."""
    roles = [
        Role("aten::view", "forward", "base_forward", light=True), Role("aten::mm", "forward", "branch", 8.0, 2.0),
        Role("aten::t", "forward", "base_forward", light=True),
    ]  # fmt: skip
    events = [
        Event("aten::matmul", "forward", 5.0), Event("aten::view", "forward", 1.0, 0),
        Event("aten::mm", "forward", 10.0, 0), Event("aten::t", "forward", 2.0),
    ]  # fmt: skip
    found = tally(roles, events, on_gpu=False)
    assert {cause: part.us for (_, cause), part in found.items()} == {"branch": 16.0, "base_forward": 2.0}


def test_an_operator_that_nobody_saw_is_left_over() -> None:
    planted = Planted()
    planted.operator("branch", 10.0, name="aten::mm")
    planted.events.append(Event("planted::unheard_of", "forward", 30.0))
    found = of_pass(tally(planted.roles, planted.events, on_gpu=False), "forward")
    assert {cause: part.us for cause, part in found.items()} == pytest.approx({"branch": 10.0, "left_over": 30.0})


def test_ranges_are_gaps_on_a_cpu_and_nothing_on_a_gpu() -> None:
    node = Event("autograd::engine::evaluate_function: MmBackward0", "backward", 5.0, operator=False)
    product = Event("aten::mm", "backward", 20.0, parent=0, kernels=(("ampere_sgemm", 7.0),))
    roles = [Role("aten::mm", "backward", "base_dx")]
    assert _us(tally(roles, [node, product], on_gpu=False)) == {"gaps": 5.0, "base_dx": 20.0}
    assert _us(tally(roles, [node, product], on_gpu=True)) == {"base_dx": 7.0}


def test_the_optimizer_and_the_refresh_are_one_cause_each_whatever_runs_in_them() -> None:
    planted = Planted()
    planted.operator("base_dx", 4.0, "backward")
    planted.operator("norms", 2.0, "optimizer")
    planted.operator("base_forward", 3.0, "refresh")
    found = of_pass(tally(planted.roles, planted.events, on_gpu=False), "step")
    expected = {"base_dx": 4.0, "optimizer": 2.0, "refresh": 3.0}
    assert {cause: part.us for cause, part in found.items()} == pytest.approx(expected)
    assert found["refresh"].bytes == 8.0


def test_gradients_that_go_into_grad_are_known_by_their_node() -> None:
    node = Event("torch::autograd::AccumulateGrad", "backward", 1.0, operator=False)
    found = _us(tally([], [node, Event("aten::detach", "backward", 2.0, parent=0)], on_gpu=False))
    assert found == {"gaps": 1.0, "accumulation": 2.0}


def test_kernels_of_this_project_are_known_by_their_names() -> None:
    inside = Event("LoraLinear", "forward", 9.0, None, (("gemm_kernel", 6.0), ("project_kernel", 2.0)), operator=False)
    loose = [("backward", "skinny_kernel", 3.0), ("backward", "strange", 1.0), ("optimizer", "strange", 4.0)]
    found = tally([], [inside], on_gpu=True, loose=loose)
    assert {key: part.us for key, part in found.items()} == {
        ("forward", "fused"): 6.0, ("forward", "branch"): 2.0, ("backward", "branch"): 3.0,
        ("backward", "left_over"): 1.0, ("optimizer", "optimizer"): 4.0,
    }  # fmt: skip


def test_a_kernel_of_this_project_in_the_refresh_is_the_refreshs() -> None:
    inside = Event("Merge", "refresh", 9.0, None, (("gemm_kernel", 6.0),), operator=False)
    assert _us(tally([], [inside], on_gpu=True, loose=[("refresh", "gather_kernel", 1.0)])) == {"refresh": 7.0}


def test_every_kernel_of_this_project_has_a_cause() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "kernels").rglob("*.py"))
    launched = set(re.findall(r"^@triton\.jit[^\n]*\ndef (\w+_kernel)\(", sources, re.MULTILINE))
    assert launched and launched == TRITON.keys()
    assert set(TRITON.values()) <= CAUSES.keys()


def test_what_a_compiler_made_is_fused() -> None:
    graph = Event("## Call CompiledFxGraph abc ##", "forward", 5.0)
    within = [Event("aten::mm", "forward", 3.0, 0), Event("aten::_scaled_dot_product_attention", "forward", 2.0, 0)]
    assert _us(tally([], [graph, *within], on_gpu=False, compiled=True)) == {"fused": 8.0, "attention": 2.0}


def _us(found: dict[tuple[str, str], Tally]) -> dict[str, float]:
    return {cause: part.us for (_, cause), part in found.items()}
